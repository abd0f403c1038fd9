"""A dataset: the columns of its folder, in the order in which everything downstream expects them.

``validate`` tells everything it finds about a folder in plain words; ``read`` refuses one with problems.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from domain.arrays import Floats, Mask, Rows, Seconds
from domain.catalogue import Facets, History, IdTable, TextTable
from domain.errors import DatasetError
from features import batch
from features.contract import GENRE_SLOTS
from training.checks import validate
from training.facets import facets_of
from training.folder import (
    EVENTS,
    ITEMS,
    RATINGS,
    SETTINGS,
    USERS,
    Report,
    Settings,
    genres_by_frequency,
    log_of,
    open_tables,
    read_settings,
    seconds_of,
    texts,
)

__all__ = ["Dataset", "Report", "ordered", "read", "validate"]

NOT_POSITIVE = np.float32(0.0)
"""The rating given to an event whose word is not among the positive ones; a positive one carries no rating (NaN)."""


@dataclass(frozen=True, eq=False)
class Dataset:
    """A validated dataset as columns.

    Items and users are in the order of their id tables. Events are CSR over users, each user's ordered by time; equal
    timestamps are ordered by the hex digits of ``sha256("user:item")``, which no file order or id can influence.
    """

    settings: Settings
    item_ids: IdTable
    titles: TextTable
    genres: Mask  # (n, GENRE_SLOTS)
    genre_names: tuple[str, ...]
    year: Floats  # (n,), NaN where unknown
    user_ids: IdTable
    indptr: NDArray[np.int64]  # (users + 1,)
    item_row: Rows  # (events,)
    rating: Floats  # (events,), NaN where an event carries none
    timestamp: Seconds  # (events,)
    untrained: tuple[str, ...]
    sha256: str
    facets: Facets | None = None

    @cached_property
    def user_row(self) -> Rows:
        """``(events,)``: whose event it is."""
        return np.repeat(np.arange(len(self.user_ids), dtype=np.int32), np.diff(self.indptr))

    @cached_property
    def ended_at(self) -> float:
        """UTC seconds of the last event of all."""
        return float(self.timestamp.max())

    @cached_property
    def neutral_stars(self) -> float:
        """The mean rating; the positive threshold where there are no ratings."""
        rated = self.rating[~np.isnan(self.rating)]
        return float(rated.mean(dtype=np.float64)) if len(rated) else self.settings.positive_stars

    def event_table(self) -> pa.Table:
        """``features.batch.EVENTS``: all events, as the batch step takes them."""
        ids = np.array([self.user_ids.text(row) for row in range(len(self.user_ids))], np.object_)
        columns = {
            "user_id": ids[self.user_row],
            "position": np.arange(len(self.item_row)),
            "item_row": self.item_row,
            "rating": pa.array(self.rating, pa.float32(), from_pandas=True),
            "timestamp": self.timestamp,
        }
        return pa.table(columns, schema=batch.EVENTS)

    def history(self, user: int) -> History:
        """All events of a user, oldest first."""
        span = slice(int(self.indptr[user]), int(self.indptr[user + 1]))
        return History(self.item_row[span], self.rating[span], self.timestamp[span])


def read(folder: Path) -> Dataset:
    """The dataset in the folder; raises ``DatasetError`` with every problem found."""
    report = validate(folder)
    if report.problems:
        raise DatasetError(report.problems)
    again = Report(str(folder))
    settings, tables = read_settings(folder, again), open_tables(folder, again)
    log = log_of(tables)
    if settings is None or log is None or again.problems:
        raise DatasetError([*again.problems, "the folder changed while it was being read"])
    items = tables[ITEMS]
    log = log.filter(pc.is_in(log["item_id"], items["item_id"]))
    item_ids = IdTable.of(texts(items["item_id"]))
    at = item_ids.rows(texts(items["item_id"]))  # file position -> row
    order = np.argsort(at)
    user_ids = IdTable.of({*texts(log["user_id"]), *(texts(tables[USERS]["user_id"]) if USERS in tables else ())})
    genres, genre_names = _genres(items, order)
    indptr, item_row, rating, timestamp = _events(log, settings, item_ids, user_ids)
    return Dataset(
        settings,
        item_ids,
        TextTable.of(items["title"].take(order).fill_null("").to_pylist()),
        genres,
        genre_names,
        _years(items, order),
        user_ids,
        indptr,
        item_row,
        rating,
        timestamp,
        tuple(report.untrained),
        _digest(folder),
        facets_of(items, order),
    )


def _genres(items: pa.Table, order: NDArray[np.intp]) -> tuple[Mask, tuple[str, ...]]:
    """``(n, GENRE_SLOTS)`` flags in row order, and the slots' names in the order of the alphabet."""
    flags = np.zeros((len(items), GENRE_SLOTS), np.bool_)
    if "genres" not in items.column_names:
        return flags, ()
    names = tuple(sorted(genres_by_frequency(items)[:GENRE_SLOTS]))
    slots = {name: slot for slot, name in enumerate(names)}
    for row, worn in enumerate(items["genres"].take(order).to_pylist()):
        flags[row, [slots[name] for name in worn or () if name in slots]] = True
    return flags, names


def _years(items: pa.Table, order: NDArray[np.intp]) -> Floats:
    if "year" not in items.column_names:
        return np.full(len(items), np.nan, np.float32)
    years: Floats = items["year"].take(order).cast(pa.float32()).to_numpy()
    return years.astype(np.float32)


def _events(
    log: pa.Table, settings: Settings, item_ids: IdTable, user_ids: IdTable
) -> tuple[NDArray[np.int64], Rows, Floats, Seconds]:
    """The events as CSR over users: indptr, item_row, rating, timestamp."""
    users, items = texts(log["user_id"]), texts(log["item_id"])
    user_row, item_row, timestamp = user_ids.rows(users), item_ids.rows(items), seconds_of(log["timestamp"])
    if "rating" in log.column_names:
        rating: Floats = log["rating"].cast(pa.float32()).to_numpy().astype(np.float32)
    else:
        liked = np.isin(np.array(log["event"].fill_null("").to_pylist()), settings.positive_events)
        rating = np.where(liked, np.float32(np.nan), NOT_POSITIVE).astype(np.float32)
    order = ordered(user_row, timestamp, users, items)
    user_row, item_row, timestamp, rating = user_row[order], item_row[order], timestamp[order], rating[order]
    first = np.ones(len(order), np.bool_)  # equal events have equal digests, so they stand next to each other
    first[1:] = (np.diff(user_row) != 0) | (np.diff(item_row) != 0) | (np.diff(timestamp) != 0)
    indptr = np.zeros(len(user_ids) + 1, np.int64)
    np.cumsum(np.bincount(user_row[first], minlength=len(user_ids)), out=indptr[1:])
    return indptr, item_row[first], rating[first], timestamp[first]


def ordered(user_row: Rows, timestamp: Seconds, users: list[str], items: list[str]) -> NDArray[np.intp]:
    """``(events,)`` positions by user, then time, then the hex digits of ``sha256("user:item")``."""
    order = np.lexsort((timestamp, user_row))
    equal = (np.diff(user_row[order]) == 0) & (np.diff(timestamp[order]) == 0)
    tied = order[np.concatenate((equal, [False])) | np.concatenate(([False], equal))] if len(order) else order
    digest = np.zeros(len(order), "S64")  # only where it decides: it costs a microsecond an event
    for position in tied.tolist():
        digest[position] = hashlib.sha256(f"{users[position]}:{items[position]}".encode()).hexdigest().encode()
    return np.lexsort((digest, timestamp, user_row))


def _digest(folder: Path) -> str:
    """One digest over the names and contents of the folder's data files."""
    whole = hashlib.sha256()
    for path in sorted(folder / name for name in (SETTINGS, ITEMS, USERS, RATINGS, EVENTS)):
        if path.exists():
            whole.update(path.name.encode())
            with path.open("rb") as file:
                whole.update(hashlib.file_digest(file, "sha256").digest())
    return whole.hexdigest()
