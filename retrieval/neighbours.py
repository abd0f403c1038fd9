"""Item-to-item neighbours as CSR: what collaborative and content retrieval both stand on.

Row ``i`` lists the items that ``i`` speaks for, with a weight each. A user's scores are the weighted sum of the rows of
their history, which costs the length of those rows and not the size of the catalogue.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Floats, Rows
from domain.candidates import Candidates
from domain.compiled import column, compiled, float32, float64, int32, int64, written
from retrieval.ordering import best_of_keys

DENSE_SHARE = 8
"""Up to so many items for each entry it is cheaper to add up in a column of all items than in a hash table."""


@dataclass(frozen=True, slots=True, eq=False)
class Neighbours:
    """CSR over ``n`` items; row ``i`` is ``item_row[indptr[i]:indptr[i + 1]]`` with ``weight`` aligned."""

    indptr: NDArray[np.int64]  # (n + 1,)
    item_row: Rows  # (nnz,)
    weight: Floats  # (nnz,)

    def __len__(self) -> int:
        return len(self.indptr) - 1

    def of(self, row: int) -> tuple[Rows, Floats]:
        """The items that ``row`` speaks for and their weights."""
        span = slice(int(self.indptr[row]), int(self.indptr[row + 1]))
        return self.item_row[span], self.weight[span]

    def speak(self, rows: Rows, weight: Floats) -> Floats:
        """``(n,)``: the sum over ``rows`` of their neighbours' weights, each row counted with its own ``weight``."""
        return _sums(self.indptr, self.item_row, self.weight, rows, weight).astype(np.float32)

    def proposed(self, rows: Rows, weight: Floats, without: Rows, k: int) -> Candidates:
        """The ``k`` items that ``rows`` speak for most, ``without`` some; as ``best(speak(...))``.

        In a large catalogue most items are spoken for by nobody, and are not looked at.
        """
        keys = _keys(self.indptr, self.item_row, self.weight, rows, weight, without)
        return Candidates.proposed(*best_of_keys(keys, k))


def best(scores: Floats, k: int) -> Candidates:
    """The ``k`` best positive scores of ``(n,)`` dense item scores, best first; ties go to the lower row."""
    return Candidates.proposed(*best_of_keys(_keys_of_all(scores), k))


_TABLE = (column(int64), column(int32), column(float32), column(int32), column(float32))


@compiled(written(float64), *_TABLE)
def _sums(indptr: NDArray[np.int64], item_row: Rows, weight: Floats, rows: Rows, said: Floats) -> NDArray[np.float64]:
    """``(n,)``: what the entries of all ``rows`` add up to, each times what its row has ``said``."""
    sums = np.zeros(len(indptr) - 1)
    for at in range(len(rows)):
        row, times = rows[at], said[at]
        for entry in range(indptr[row], indptr[row + 1]):
            sums[item_row[entry]] += weight[entry] * times
    return sums


@compiled(written(int64), column(float32))
def _keys_of_all(scores: Floats) -> NDArray[np.int64]:
    """The keys that ``best_of_keys`` sorts, of the positive ones among the ``(n,)`` scores of all items."""
    bits, keys, found = scores.view(np.int32), np.empty(len(scores), np.int64), 0
    for row in range(len(scores)):
        keys[found] = (0x7FFF_FFFF - np.int64(bits[row])) << 32 | row
        found += scores[row] > 0  # no branch, which half of the items would take
    return keys[:found]


@compiled(int64, column(int32), int64)
def _place(held: Rows, row: int) -> int:
    """Where ``row`` lies or may lie in a hash table with room: a power of two of places, -1 in those that are free."""
    place = (row * 0x9E37_79B1 & 0xFFFF_FFFF) * len(held) >> 32  # the golden ratio spreads rows in any steps
    while held[place] != row and held[place] >= 0:
        place = (place + 1) & (len(held) - 1)
    return place


@compiled(written(int64), *_TABLE, column(int32), int64)
def _keys_of_few(
    indptr: NDArray[np.int64], item_row: Rows, weight: Floats, rows: Rows, said: Floats, without: Rows, entries: int
) -> NDArray[np.int64]:
    """The same, with the sums in a hash table in place of a column of all items."""
    places = 2
    while places < 2 * entries:
        places *= 2
    held, sums = np.full(places, -1, np.int32), np.zeros(places)
    for at in range(len(rows)):
        row, times = rows[at], said[at]
        for entry in range(indptr[row], indptr[row + 1]):
            place = _place(held, item_row[entry])
            held[place] = item_row[entry]
            sums[place] += weight[entry] * times
    for row in without:
        sums[_place(held, row)] = 0.0  # the place of an item nobody speaks for is free, and holds nothing
    keys = _keys_of_all(sums.astype(np.float32))
    for at in range(len(keys)):
        keys[at] += held[keys[at] & 0xFFFF_FFFF] - (keys[at] & 0xFFFF_FFFF)
    return keys


@compiled(written(int64), *_TABLE, column(int32))
def _keys(
    indptr: NDArray[np.int64], item_row: Rows, weight: Floats, rows: Rows, said: Floats, without: Rows
) -> NDArray[np.int64]:
    """``_keys_of_all`` of the ``_sums`` ``without`` some items."""
    entries = 0
    for row in rows:
        entries += indptr[row + 1] - indptr[row]
    if len(indptr) - 1 >= DENSE_SHARE * entries:
        return _keys_of_few(indptr, item_row, weight, rows, said, without, entries)
    sums = _sums(indptr, item_row, weight, rows, said)
    for row in without:
        sums[row] = 0.0
    return _keys_of_all(sums.astype(np.float32))
