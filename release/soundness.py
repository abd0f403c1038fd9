"""Whether the tables of a bundle fit together: lengths, and rows that exist.

A checksum says that nothing changed since the bundle was written, not that it was written well. What goes over the
tables during a request is compiled and checks no index (``domain.compiled``), so they are checked here, once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Rows
from features.contract import CONTRACT

if TYPE_CHECKING:
    from release.bundle import Tables


def problems(tables: Tables) -> list[str]:
    """What is wrong, a phrase each."""
    return [*_lengths(tables), *_spans(tables), *_rows(tables)]


def _lengths(tables: Tables) -> list[str]:
    items, users, preference = tables.items, tables.users, tables.preference
    n, liked = len(items), len(preference.item_row)
    slots = CONTRACT.user.slices["user_genre_taste_ratio"]
    expectations: dict[str, tuple[object, object]] = {
        "items.genres": (items.genres.shape, (n, slots.stop - slots.start)),
        "items.year": (len(items.year), n),
        "items.removed": (len(items.removed), n),
        "items.features": (items.features.shape, (n, CONTRACT.item.width)),
        "items.titles": (len(items.titles.offsets), n + 1),
        "users.features": (users.features.shape, (len(users), CONTRACT.user.width)),
        "users.history": (len(users.indptr), len(users) + 1),
        "user_tower.embedding": (len(tables.user_tower.embedding), n),
        "collaborative": (len(tables.collaborative), n),
        "content": (len(tables.content), n),
        "batch_lists": (len(tables.batch_lists.indptr), len(users) + 1),
        "popularity.score": (len(tables.popularity.score), len(tables.popularity.item_row)),
        "preference.given_genre": (preference.given_genre.shape, (liked, len(preference.prior))),
        "preference.prior": (len(preference.prior), items.genres.shape[1] + 1),
    }
    if items.facets is not None:
        for name in ("creator", "language", "age_rating", "regions", "published_at"):
            expectations[f"items.facets.{name}"] = (len(getattr(items.facets, name)), n)
    return [f"{part} is {found}, not {wanted}" for part, (found, wanted) in expectations.items() if found != wanted]


def _spans(tables: Tables) -> list[str]:
    """Each table of rows of different lengths: the spans follow each other, and end where every column ends."""
    titles, users, lists = tables.items.titles, tables.users, tables.batch_lists
    spans: dict[str, tuple[NDArray[np.int64], tuple[NDArray[np.generic], ...]]] = {
        "items.titles": (titles.offsets, (titles.utf8,)),
        "users.history": (users.indptr, (users.item_row, users.rating, users.timestamp)),
        "collaborative": (tables.collaborative.indptr, (tables.collaborative.item_row, tables.collaborative.weight)),
        "content": (tables.content.indptr, (tables.content.item_row, tables.content.weight)),
        "batch_lists": (lists.indptr, (lists.item_row, lists.score)),
    }
    return [
        f"{part}: its spans do not cover its columns"
        for part, (starts, columns) in spans.items()
        if not len(starts)
        or starts[0] != 0
        or (np.diff(starts) < 0).any()
        or any(len(column) != starts[-1] for column in columns)
    ]


def _rows(tables: Tables) -> list[str]:
    n = len(tables.items)
    rows: dict[str, Rows] = {
        "users.history": tables.users.item_row,
        "collaborative": tables.collaborative.item_row,
        "content": tables.content.item_row,
        "batch_lists": tables.batch_lists.item_row,
        "popularity": tables.popularity.item_row,
        "preference": tables.preference.item_row,
    }
    return [
        f"{part} names items that are not there"
        for part, named in rows.items()
        if len(named) and not (named.min() >= 0 and named.max() < n)
    ]
