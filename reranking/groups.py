"""Which group an item belongs to, for minimum exposure and for the ledger of what was shown."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from domain.arrays import Codes, Floats
from domain.catalogue import Items
from domain.errors import StartError
from domain.slate import ExposureQuota
from features.contract import CONTRACT

COLUMNS = ("creator", "language", "genre", "decade")
NEW = "new"
NEW_BELOW_EVENTS = 3


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """A partition of the items by some of their columns, or by being new."""

    code: Codes  # (items,), -1: its columns are unknown
    names: tuple[str, ...]

    @property
    def sizes(self) -> Floats:
        """``(groups,)``: how many items each has."""
        return np.bincount(self.code[self.code >= 0], minlength=len(self.names)).astype(np.float32)


def new_items(items: Items) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
    """``(items,)``: those with hardly an event yet."""
    return np.asarray(items.features[:, CONTRACT.item.slices["item_events_total_count"].start] < NEW_BELOW_EVENTS)


def grouped(items: Items, columns: Sequence[str], new: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Groups:
    """The items by ``columns``, joined as in ``drama x 1990s``; ``new`` ones are a group of their own.

    Raises ``StartError`` on a column that there is none of.
    """
    parts = [_column(items, name) for name in columns]
    whole = np.zeros(len(items), np.int64)
    known = np.ones(len(items), np.bool_)
    for code, names in parts:
        whole = whole * max(1, len(names)) + np.maximum(code, 0)
        known &= code >= 0
    distinct, at = np.unique(whole[known & ~new], return_inverse=True)
    codes = np.full(len(items), -1, np.int32)
    codes[known & ~new] = at
    codes[new] = len(distinct)
    return Groups(codes, (*(_label(value, parts) for value in distinct.tolist()), NEW))


def first_quota(groups: Groups, share: float) -> ExposureQuota:
    """Before anything is known of what was shown, new items alone are owed."""
    owed = np.zeros(len(groups.names), np.float32)
    owed[-1] = 1.0
    return ExposureQuota(share, groups.code, owed)


def _label(value: int, parts: list[tuple[Codes, tuple[str, ...]]]) -> str:
    words = []
    for _, names in reversed(parts):
        value, at = divmod(value, max(1, len(names)))
        words.append(names[at])
    return " x ".join(reversed(words))


def _column(items: Items, name: str) -> tuple[Codes, tuple[str, ...]]:
    """Codes and names of one column; all -1 where the dataset does not have it."""
    nothing: tuple[Codes, tuple[str, ...]] = (np.full(len(items), -1, np.int32), ())
    if name == "creator":
        return (items.facets.creator, items.facets.creator_names) if items.facets else nothing
    if name == "language":
        return (items.facets.language, items.facets.language_names) if items.facets else nothing
    if name == "genre":
        return _rarest_genre(items), items.genre_names
    if name == "decade":
        return _decade(items)
    raise StartError(f"items cannot be grouped by {name!r}; the columns are {', '.join(COLUMNS)}")


def _rarest_genre(items: Items) -> Codes:
    """What says most about an item: of its genres the one that the fewest items have."""
    frequency = items.genres.sum(axis=0).astype(np.float64)
    worn = np.where(items.genres, frequency, np.inf)
    return np.where(items.genres.any(axis=1), worn.argmin(axis=1), -1).astype(np.int32)


def _decade(items: Items) -> tuple[Codes, tuple[str, ...]]:
    known = ~np.isnan(items.year)
    decades, code = np.unique((items.year[known] // 10).astype(np.int32), return_inverse=True)
    codes = np.full(len(items), -1, np.int32)
    codes[known] = code
    return codes, tuple(f"{decade}0s" for decade in decades.tolist())
