"""A trained bundle renewed from its dataset folder as that is later: no model is trained again."""

from __future__ import annotations

import tomllib
from pathlib import Path

import numpy as np
import onnx
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from domain.errors import DatasetError
from release.bundle import Bundle
from release.graph import read_table
from release.refresh import Move, renew
from tests.training.conftest import MakeFolder
from training.catalogue import catalogue
from training.train import train


@pytest.fixture
def folder(make_random_folder: MakeFolder) -> Path:
    return make_random_folder(users=10)


@pytest.fixture
def bundle(folder: Path, tmp_path: Path) -> Bundle:
    return train(folder, tmp_path / "bundle", echo=lambda _: None)


def test_the_catalogue_of_later(folder: Path, bundle: Bundle, tmp_path: Path) -> None:
    # Nothing new: the same catalogue, and a graph that holds the same numbers.
    same = renew(bundle, catalogue(folder, bundle), tmp_path / "same")
    before, after = (read_table(onnx.load(made.model_path)) for made in (bundle, same))
    np.testing.assert_allclose(after, before, atol=1e-5)
    np.testing.assert_allclose(same.tables.parity.score, bundle.tables.parity.score, atol=1e-5)
    np.testing.assert_array_equal(same.tables.batch_lists.item_row, bundle.tables.batch_lists.item_row)
    np.testing.assert_array_equal(same.tables.popularity.item_row, bundle.tables.popularity.item_row)

    # Then a series appears that everybody watches, and an item leaves.
    change(folder, new="new-series", gone="i003")
    later = renew(bundle, catalogue(folder, bundle), tmp_path / "later")
    items = later.tables.items
    series, left = items.ids.row("new-series"), items.ids.row("i003")
    assert items.titles.text(series) == "Story of the sea, the series"
    assert later.tables.popularity.item_row[0] == series
    assert items.removed[left]
    assert not items.removed[series]
    assert items.titles.text(left).startswith("Story of")
    near, _ = later.tables.content.of(series)
    assert len(near)
    assert later.manifest.lineage.parameters["refreshed_from"] == bundle.version
    assert np.isfinite(later.tables.parity.score).all()
    to = Move.between(bundle.tables.items, items).to
    assert (later.tables.users.item_row == to[bundle.tables.users.item_row]).all()
    assert items.genre_names == bundle.tables.items.genre_names
    assert (items.genres[to] == bundle.tables.items.genres).all()

    # And what is of another dataset is refused.
    settings = folder / "dataset.toml"
    settings.write_text(settings.read_text().replace(tomllib.loads(settings.read_text())["name"], "another"))
    with pytest.raises(DatasetError, match="another"):
        catalogue(folder, bundle)


def change(folder: Path, new: str, gone: str) -> None:
    """Every user watches the new item a day after everything else; a genre appears before the others' names."""
    items, ratings = (pq.read_table(folder / f"{name}.parquet") for name in ("items", "ratings"))
    kept = items.filter(pa.compute.not_equal(items["item_id"], gone))
    row = {
        "item_id": [new],
        "title": ["Story of the sea, the series"],
        "year": pa.array([2016], pa.int16()),
        "genres": [["Adventure", "Sea"]],
    }
    pq.write_table(pa.concat_tables([kept, pa.table(row, schema=kept.schema)]), folder / "items.parquet")
    users = sorted(set(ratings["user_id"].to_pylist()))
    watched = {
        "user_id": users * 3,
        "item_id": [new] * len(users) * 3,
        "rating": [5.0] * len(users) * 3,
        "timestamp": [2_000_000 + at for at in range(len(users) * 3)],
    }
    more = pa.table(watched).select(ratings.schema.names).cast(ratings.schema)
    pq.write_table(pa.concat_tables([ratings, more]), folder / "ratings.parquet")
