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
        starts, ends = self.indptr[rows], self.indptr[rows + 1]
        lengths = ends - starts
        # positions of all entries of all rows, without a Python loop: a ramp per row, shifted to its start
        shift = np.repeat(starts - np.concatenate(([0], np.cumsum(lengths)[:-1])), lengths)
        positions = np.arange(int(lengths.sum())) + shift
        weights = self.weight[positions] * np.repeat(weight, lengths)
        return np.bincount(self.item_row[positions], weights, minlength=len(self)).astype(np.float32)


def best(scores: Floats, k: int) -> Candidates:
    """The ``k`` best positive scores of ``(n,)`` dense item scores, best first; ties go to the lower row."""
    rows = np.flatnonzero(scores > 0)
    if len(rows) > k:
        cut = np.partition(scores[rows], len(rows) - k)[len(rows) - k]
        rows = rows[scores[rows] >= cut]
    order = rows[np.argsort(-scores[rows], kind="stable")][:k]
    return Candidates.proposed(order.astype(np.int32), scores[order])
