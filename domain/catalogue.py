"""The items and users a bundle knows, as memory-mapped columns.

Row ``i`` of every item column is the same item. External ids appear only here and at the door.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from domain.arrays import NO_ROWS, Codes, Floats, Mask, Rows, Seconds


@dataclass(frozen=True, slots=True, eq=False)
class IdTable:
    """External ids in ascending byte order, so that a row is found by binary search in a memory-mapped column.

    A dict over a million ids costs every worker 150 MB; this costs none of them anything.
    """

    ids: NDArray[np.bytes_]  # (n,) UTF-8, sorted, unique, fixed width

    @classmethod
    def of(cls, ids: Iterable[str]) -> IdTable:
        """The table of these ids; raises ``ValueError`` on a repeated or unusable one."""
        encoded = sorted(text.encode() for text in ids)
        table = np.array(encoded, dtype=np.bytes_) if encoded else np.empty(0, "S1")
        if any(not text or text.endswith(b"\0") for text in encoded):
            raise ValueError("an id is empty or ends in NUL")
        if len(table) > 1 and bool((table[1:] == table[:-1]).any()):
            raise ValueError("an id appears twice")
        return cls(table)

    def __len__(self) -> int:
        return len(self.ids)

    def rows(self, ids: Sequence[str]) -> Rows:
        """``(len(ids),)`` rows, -1 where an id is unknown."""
        if not ids or not len(self.ids):
            return np.full(len(ids), -1, np.int32)
        width = self.ids.dtype.itemsize
        encoded = [text.encode("utf-8", "surrogatepass") for text in ids]
        wanted = np.array(encoded, dtype=self.ids.dtype)  # cut to the width; those cut are refused below
        found = np.minimum(np.searchsorted(self.ids, wanted), len(self.ids) - 1)
        known = self.ids[found] == wanted
        if max(map(len, encoded)) > width or b"\0" in b"".join(encoded):  # numpy drops final NULs
            known &= [len(text) <= width and not text.endswith(b"\0") for text in encoded]
        return np.where(known, found, -1).astype(np.int32)

    def row(self, external_id: str) -> int:
        """The row, or -1."""
        return int(self.rows([external_id])[0])

    def text(self, row: int) -> str:
        """The external id of a row."""
        return bytes(self.ids[row]).decode()

    def texts(self, rows: Rows) -> list[str]:
        """The external ids of ``rows``."""
        return [raw.decode() for raw in self.ids[rows].tolist()]


@dataclass(frozen=True, slots=True, eq=False)
class TextTable:
    """``n`` texts of any length: text ``i`` is ``utf8[offsets[i]:offsets[i + 1]]``."""

    offsets: NDArray[np.int64]  # (n + 1,)
    utf8: NDArray[np.uint8]

    @classmethod
    def of(cls, texts: Iterable[str]) -> TextTable:
        encoded = [text.encode("utf-8", "replace") for text in texts]
        offsets = np.zeros(len(encoded) + 1, np.int64)
        np.cumsum([len(text) for text in encoded], out=offsets[1:])
        return cls(offsets, np.frombuffer(b"".join(encoded), np.uint8))

    def text(self, row: int) -> str:
        return self.utf8[self.offsets[row] : self.offsets[row + 1]].tobytes().decode()

    def texts(self, rows: Rows) -> list[str]:
        """The texts of ``rows``."""
        spans = zip(self.offsets[rows].tolist(), self.offsets[rows + 1].tolist(), strict=True)
        return [self.utf8[start:end].tobytes().decode() for start, end in spans]


@dataclass(frozen=True, slots=True, eq=False)
class Facets:
    """What a dataset may say of its ``n`` items beyond title, genres and year. An absent column is all unknown."""

    creator: Codes  # (n,), index into ``creator_names``; -1 unknown
    creator_names: tuple[str, ...]
    language: Codes  # (n,), index into ``language_names``; -1 unknown
    language_names: tuple[str, ...]
    age_rating: Floats  # (n,): years from which on it may be seen; NaN unknown
    rated: bool  # whether any age rating is known
    regions: Mask  # (n, R): where it may be shown; an item without any may be shown everywhere
    region_names: tuple[str, ...]
    published_at: Seconds  # (n,): UTC seconds; NaN unknown

    def ordered(self, rows: Rows) -> Facets:
        """The facets of the items at ``rows``, in that order; -1 is an item of which nothing is known."""
        known = rows >= 0
        return replace(
            self,
            creator=np.where(known, self.creator[rows], -1).astype(np.int32),
            language=np.where(known, self.language[rows], -1).astype(np.int32),
            age_rating=np.where(known, self.age_rating[rows], np.nan).astype(np.float32),
            regions=self.regions[rows] & known[:, None],
            published_at=np.where(known, self.published_at[rows], np.nan),
        )


@dataclass(frozen=True, slots=True, eq=False)
class Items:
    """The item table: ``n`` items, ``G`` genre slots, ``I`` static features in the contract's order."""

    ids: IdTable
    titles: TextTable
    genres: Mask  # (n, G): which genres an item has; slot names in ``genre_names``
    genre_names: tuple[str, ...]
    year: Floats  # (n,), NaN where unknown
    features: Floats  # (n, I), finite
    removed: Mask  # (n,): no longer offered, still known
    facets: Facets | None = None  # None: the dataset has none of these columns

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def eligible(self) -> Mask:
        """``(n,)``: what may be recommended at all."""
        return ~self.removed


@dataclass(frozen=True, slots=True, eq=False)
class History:
    """One user's events, oldest first, aligned: ``(h,)``."""

    item_row: Rows
    rating: Floats  # stars; NaN where an event carried none
    timestamp: Seconds  # UTC seconds

    def __len__(self) -> int:
        return len(self.item_row)

    @classmethod
    def none(cls) -> History:
        return cls(NO_ROWS, np.empty(0, np.float32), np.empty(0, np.float64))

    @property
    def last_event(self) -> float | None:
        """UTC seconds of the latest event."""
        return float(self.timestamp[-1]) if len(self) else None

    def only(self, mask: Mask) -> History:
        """The events where ``mask`` ``(h,)`` holds."""
        return History(self.item_row[mask], self.rating[mask], self.timestamp[mask])

    def latest(self, k: int) -> History:
        """The last ``k`` events."""
        return self if len(self) <= k else History(self.item_row[-k:], self.rating[-k:], self.timestamp[-k:])

    def then(self, later: History) -> History:
        """This history followed by ``later``; an event that both hold (same item and second) is kept once."""
        if not len(later):
            return self
        if len(self):
            span = self.timestamp >= later.timestamp[0]
            known = set(zip(self.item_row[span].tolist(), self.timestamp[span].tolist(), strict=True))
            pairs = zip(later.item_row.tolist(), later.timestamp.tolist(), strict=True)
            new = np.array([pair not in known for pair in pairs], np.bool_)
            later = History(later.item_row[new], later.rating[new], later.timestamp[new])
        both = History(
            np.concatenate([self.item_row, later.item_row]),
            np.concatenate([self.rating, later.rating]),
            np.concatenate([self.timestamp, later.timestamp]),
        )
        order = np.argsort(both.timestamp, kind="stable")
        return History(both.item_row[order], both.rating[order], both.timestamp[order])


@dataclass(frozen=True, slots=True, eq=False)
class Users:
    """The users of a bundle: batch features ``(n, U)`` in the contract's order, history as CSR ordered by time."""

    ids: IdTable
    features: Floats  # (n, U) raw values of the contract's user features
    indptr: NDArray[np.int64]  # (n + 1,)
    item_row: Rows  # (events,)
    rating: Floats  # (events,)
    timestamp: Seconds  # (events,)
    as_of: float  # the watermark of the features, UTC seconds

    def __len__(self) -> int:
        return len(self.ids)

    def history(self, row: int) -> History:
        """What user ``row`` did, oldest first; nothing for row -1."""
        if row < 0:
            return History.none()
        span = slice(int(self.indptr[row]), int(self.indptr[row + 1]))
        return History(self.item_row[span], self.rating[span], self.timestamp[span])
