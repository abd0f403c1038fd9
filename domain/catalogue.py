"""The items and users a bundle knows, as memory-mapped columns.

Row ``i`` of every item column is the same item. External ids appear only here and at the door.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

from domain.arrays import NO_ROWS, Codes, Floats, Mask, Rows, Seconds
from domain.compiled import bool_, column, compiled, float32, float64, int32, int64, pair, uint8, written

Bytes: TypeAlias = NDArray[np.uint8]


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
        if not ids:
            return NO_ROWS
        text = b"%b\0" % "\0".join(ids).encode("utf-8", "surrogatepass")
        flat = np.frombuffer(text, np.uint8)
        if text.count(0) == len(ids):
            (ends,) = (flat == 0).nonzero()
        else:  # there is a NUL within an id
            ends = np.cumsum([len(each.encode("utf-8", "surrogatepass")) + 1 for each in ids]) - 1
        return _found(flat, ends, self.ids.view(np.uint8).reshape(len(self.ids), self.ids.itemsize))

    def row(self, external_id: str) -> int:
        """The row, or -1."""
        return int(self.rows([external_id])[0])

    def text(self, row: int) -> str:
        """The external id of a row."""
        return bytes(self.ids[row]).decode()

    def texts(self, rows: Rows) -> list[str]:
        """The external ids of ``rows``."""
        return [raw.decode() for raw in self.ids[rows].tolist()]


@compiled(int64, column(uint8), int64, int64, column(uint8))
def _compared(text: Bytes, start: int, end: int, row: Bytes) -> int:
    """Below zero, zero or above: the id ``text[start:end]`` comes before that of the row, is it, comes after it."""
    for at in range(len(row)):
        byte = text[start + at] if start + at < end else 0
        if byte != row[at]:
            return -1 if byte < row[at] else 1
    return 0


@compiled(written(int32), column(uint8), column(int64), column(uint8, 2))
def _found(text: Bytes, ends: NDArray[np.int64], table: Bytes) -> Rows:
    """``(len(ends),)`` rows of the ids that lie in ``text`` with a byte after each; -1 where one is unknown.

    ``table`` ``(n, width)`` is in ascending order, filled up with NULs; so an id that ends in one is nobody's.
    """
    rows = np.full(len(ends), -1, np.int32)
    start = 0
    for at, end in enumerate(ends):
        low, high = 0, len(table)
        if end - start > table.shape[1] or (end > start and text[end - 1] == 0):
            high = 0
        while low < high:
            middle = (low + high) // 2
            order = _compared(text, start, end, table[middle])
            if order == 0:
                rows[at] = middle
                break
            low, high = (low, middle) if order < 0 else (middle + 1, high)
        start = end + 1
    return rows


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
        item_row, rating, timestamp, in_order = _followed(
            self.item_row, self.rating, self.timestamp, later.item_row, later.rating, later.timestamp
        )
        if in_order:
            return History(item_row, rating, timestamp)
        order = timestamp.argsort(kind="stable")
        return History(item_row[order], rating[order], timestamp[order])


@compiled(
    pair(written(int32), written(float32), written(float64), bool_),
    *[column(int32), column(float32), column(float64)] * 2,
)
def _followed(
    rows: Rows, ratings: Floats, times: Seconds, later_rows: Rows, later_ratings: Floats, later_times: Seconds
) -> tuple[Rows, Floats, Seconds, bool]:
    """A history, then those of ``r`` later events, at least one, that it does not hold; and whether all are in order.

    Few events of a history are as late as the first of the later ones, so each of these is looked for among them.
    """
    h, r = len(rows), len(later_rows)
    item_row, rating, timestamp = np.empty(h + r, np.int32), np.empty(h + r, np.float32), np.empty(h + r)
    item_row[:h], rating[:h], timestamp[:h] = rows, ratings, times
    late = np.flatnonzero(times >= later_times[0])
    n = h
    for at in range(r):
        known = False
        for held in late:
            if rows[held] == later_rows[at] and times[held] == later_times[at]:
                known = True
                break
        if not known:
            item_row[n], rating[n], timestamp[n] = later_rows[at], later_ratings[at], later_times[at]
            n += 1
    in_order = True
    for i in range(1, n):
        in_order &= timestamp[i - 1] <= timestamp[i]
    return item_row[:n], rating[:n], timestamp[:n], in_order


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
