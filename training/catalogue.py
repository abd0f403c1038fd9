"""The catalogue of a dataset folder as it is now, beside the bundle that it renews. Nothing is trained."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from domain.arrays import Floats, Mask
from domain.catalogue import IdTable, Items, TextTable
from domain.errors import DatasetError
from features.contract import GENRE_SLOTS
from release.bundle import Bundle
from release.refresh import Catalogue
from training import content, popularity, preference
from training.dataset import Dataset, read
from training.sources import item_table
from training.split import everything


def catalogue(data: Path, bundle: Bundle) -> Catalogue:
    """The folder's items, and as removed those that only the bundle has; features and popularity from all its events.

    Genres keep the slots that the models know; one that the bundle has no slot for waits for the next training. Raises
    ``DatasetError`` for a folder that cannot be used or is of another dataset.
    """
    dataset, name = read(data), bundle.manifest.dataset.name
    if dataset.settings.name != name:
        raise DatasetError([f"this is {dataset.settings.name}, and the bundle was trained on {name}"])
    united = _united(dataset, bundle.tables.items)
    cut = everything(united)
    items = item_table(cut)
    known = dataset.item_ids.rows(_ids(items.ids)) >= 0
    half_life = bundle.manifest.lineage.parameters.get("popularity", {}).get("half_life_days")
    return Catalogue(
        replace(items, removed=~known),
        content.fit(united),
        popularity.fit(cut, np.inf if half_life is None else half_life),
        preference.fit(cut),
        dataset.sha256,
        dataset.ended_at,
    )


def _united(dataset: Dataset, old: Items) -> Dataset:
    """The dataset with the items of ``old`` that it no longer has, without events, in the genre slots of ``old``."""
    now, before = _ids(dataset.item_ids), _ids(old.ids)
    gone = [row for row, at in enumerate(dataset.item_ids.rows(before)) if at < 0]
    ids = IdTable.of([*now, *(before[row] for row in gone)])
    to = np.concatenate([ids.rows(now), ids.rows([before[row] for row in gone])])
    back = np.argsort(to)
    titles = [*(dataset.titles.text(row) for row in range(len(now))), *(old.titles.text(row) for row in gone)]
    year: Floats = np.concatenate([dataset.year, old.year[gone]])
    genres: Mask = np.concatenate([_slotted(dataset, old.genre_names), old.genres[gone]])
    return replace(
        dataset,
        item_ids=ids,
        titles=TextTable.of(titles[at] for at in back.tolist()),
        year=year[back],
        genres=genres[back],
        genre_names=old.genre_names,
        item_row=to[dataset.item_row],
        facets=dataset.facets and dataset.facets.ordered(np.where(back < len(now), back, -1)),
    )


def _slotted(dataset: Dataset, names: tuple[str, ...]) -> Mask:
    """``(n, GENRE_SLOTS)``: the dataset's genres in the slots of ``names``."""
    genres = np.zeros((len(dataset.item_ids), GENRE_SLOTS), np.bool_)
    slots = {name: slot for slot, name in enumerate(names)}
    for at, name in enumerate(dataset.genre_names):
        if name in slots:
            genres[:, slots[name]] = dataset.genres[:, at]
    return genres


def _ids(ids: IdTable) -> list[str]:
    return [ids.text(row) for row in range(len(ids))]
