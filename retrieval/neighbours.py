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
from retrieval.ordering import best_first, sorted_positions

DENSE_SHARE = 8
"""Up to so many items for each entry it is cheaper to add up in a column of all items than to sort the entries."""


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
        item_row, weights = self._spoken(rows, weight)
        return np.bincount(item_row, weights, minlength=len(self)).astype(np.float32)

    def proposed(self, rows: Rows, weight: Floats, without: Rows, k: int) -> Candidates:
        """The ``k`` items that ``rows`` speak for most, ``without`` some; as ``best(speak(...))``.

        In a large catalogue most items are spoken for by nobody, and are not looked at.
        """
        item_row, weights = self._spoken(rows, weight)
        if len(self) < DENSE_SHARE * len(item_row):
            scores = np.bincount(item_row, weights, minlength=len(self)).astype(np.float32)
            scores[without] = 0.0
            return best(scores, k)
        if not len(item_row):
            return Candidates.none()
        order, by_item = sorted_positions(item_row.astype(np.int64))
        begins = np.flatnonzero(np.concatenate(([True], by_item[1:] != by_item[:-1])))
        items = by_item[begins]
        scores = np.add.reduceat(weights[order], begins, dtype=np.float64).astype(np.float32)
        scores[np.isin(items, without)] = 0.0
        found = best(scores, k)
        return Candidates.proposed(items[found.item_row].astype(np.int32), found.score)

    def _spoken(self, rows: Rows, weight: Floats) -> tuple[Rows, Floats]:
        """All entries of all ``rows``, end to end: items, and their weights times that of their row."""
        starts = self.indptr[rows]
        lengths = self.indptr[rows + 1] - starts
        width = int(lengths[0]) if len(lengths) else 0
        if width and (lengths == width).all() and not (starts % width).any():  # so many whole rows of a table
            whole, at = len(self.item_row) // width * width, starts // width
            weights = self.weight[:whole].reshape(-1, width)[at] * weight[:, None]
            return self.item_row[:whole].reshape(-1, width)[at].reshape(-1), weights.reshape(-1)
        # positions of all entries of all rows, without a Python loop: a ramp per row, shifted to its start
        ends = np.cumsum(lengths)
        positions = np.arange(int(ends[-1]) if len(ends) else 0) + np.repeat(starts - (ends - lengths), lengths)
        return self.item_row[positions], self.weight[positions] * np.repeat(weight, lengths)


def best(scores: Floats, k: int) -> Candidates:
    """The ``k`` best positive scores of ``(n,)`` dense item scores, best first; ties go to the lower row."""
    rows = np.flatnonzero(scores > 0)
    found = scores[rows]
    order = best_first(found, k=k)
    return Candidates.proposed(rows[order].astype(np.int32), found[order])
