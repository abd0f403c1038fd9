"""The optional columns of ``items.parquet`` that only re-ranking looks at."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from domain.arrays import Codes, Mask, Seconds
from domain.catalogue import Facets
from training.folder import FACETS, seconds_of


def facets_of(items: pa.Table, order: NDArray[np.intp]) -> Facets | None:
    """The facets in row order, or None if the table has none of the columns; ``order`` is file positions by row."""
    if not FACETS.keys() & set(items.column_names):
        return None
    creator, creator_names = _codes(items, "creator_id", order)
    language, language_names = _codes(items, "language", order)
    regions, region_names = _regions(items, order)
    rating = _numbers(items, "age_rating", order)
    return Facets(
        creator,
        creator_names,
        language,
        language_names,
        rating.astype(np.float32),
        bool((~np.isnan(rating)).any()),
        regions,
        region_names,
        _numbers(items, "published_at", order),
    )


def _codes(items: pa.Table, name: str, order: NDArray[np.intp]) -> tuple[Codes, tuple[str, ...]]:
    if name not in items.column_names:
        return np.full(len(items), -1, np.int32), ()
    values = items[name].take(order).to_pylist()
    names = tuple(sorted({value for value in values if value}))
    at = {value: code for code, value in enumerate(names)}
    return np.array([at.get(value, -1) for value in values], np.int32), names


def _regions(items: pa.Table, order: NDArray[np.intp]) -> tuple[Mask, tuple[str, ...]]:
    if "regions" not in items.column_names:
        return np.zeros((len(items), 0), np.bool_), ()
    values = [value or () for value in items["regions"].take(order).to_pylist()]
    names = tuple(sorted({region for regions in values for region in regions if region}))
    flags = np.array([[name in regions for name in names] for regions in values], np.bool_)
    return flags.reshape(len(items), len(names)), names


def _numbers(items: pa.Table, name: str, order: NDArray[np.intp]) -> Seconds:
    """NaN where unknown."""
    if name not in items.column_names:
        return np.full(len(items), np.nan)
    column = items[name].take(order)
    known = column.is_valid().to_numpy()
    numbers: NDArray[np.float64] = np.full(len(items), np.nan)
    present = column.filter(pa.array(known))
    numbers[known] = seconds_of(present)
    return numbers
