"""Candidates are columns, never a list of objects.

On 500 candidates, re-score + sort + top 20 takes 25 us on columns and 1.7 ms on objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Floats, Mask, Rows
from domain.compiled import column, compiled, float32, int64, written

_POSITION = (1 << 31) - 1


@compiled(written(int64), column(float32))
def _best_first(score: Floats) -> NDArray[np.int64]:
    """``(n,)`` keys that ascend from the best score to the worst, with the position in the low bits."""
    worse = np.empty(len(score), np.float32)
    for at in range(len(score)):
        worse[at] = np.float32(0.0) - score[at] if np.isfinite(score[at]) else np.inf  # and no zero has a sign
    bits = worse.view(np.int32)
    key = np.empty(len(score), np.int64)
    for at in range(len(score)):
        # The bits of floats order as the floats do where these are positive, and the other way round where negative.
        key[at] = np.int64(bits[at] if bits[at] >= 0 else bits[at] ^ _POSITION) << 31 | at
    return key


@dataclass(frozen=True, slots=True, eq=False)
class Candidates:
    """``n`` items and what is known of each, aligned by position; ``S`` sources.

    ``source_scores`` and ``source_ranks`` are NaN where a source did not propose the item, so attribution is a mask.
    A source's own answer is ordered best first and has ``S = 0``: ranks are given by the merge.
    """

    item_row: Rows  # (n,)
    score: Floats  # (n,)
    source_scores: Floats  # (n, S)
    source_ranks: Floats  # (n, S), 0 is the source's best

    @classmethod
    def proposed(cls, item_row: Rows, score: Floats) -> Candidates:
        """One source's answer, best first: ``(n,)`` rows and scores."""
        nothing = np.empty((len(item_row), 0), np.float32)
        return cls(item_row.astype(np.int32, copy=False), score.astype(np.float32, copy=False), nothing, nothing)

    @classmethod
    def none(cls, sources: int = 0) -> Candidates:
        """No candidates, with the columns of ``sources`` sources."""
        empty = np.empty((0, sources), np.float32)
        return cls(np.empty(0, np.int32), np.empty(0, np.float32), empty, empty)

    def __len__(self) -> int:
        return len(self.item_row)

    def take(self, positions: np.ndarray[tuple[int], np.dtype[np.intp]] | Mask | slice) -> Candidates:
        """The candidates at ``positions`` (indices, a mask or a slice), in that order."""
        if isinstance(positions, slice):
            part = positions
            return Candidates(self.item_row[part], self.score[part], self.source_scores[part], self.source_ranks[part])
        at = positions.nonzero()[0] if positions.dtype == np.bool_ else positions
        return Candidates(
            self.item_row.take(at),  # twice as fast as fancy indexing
            self.score.take(at),
            self.source_scores.take(at, axis=0),
            self.source_ranks.take(at, axis=0),
        )

    def scored(self, score: Floats) -> Candidates:
        """The same candidates, in the same order, under new scores ``(n,)``."""
        return Candidates(self.item_row, score, self.source_scores, self.source_ranks)

    def top(self, k: int) -> Candidates:
        """The ``k`` best by score, best first.

        A score that is not finite sorts last: this is the one place that decides so. Ties keep their order.
        """
        key = _best_first(np.ascontiguousarray(self.score, np.float32))
        key.sort()
        return self.take(key[:k] & _POSITION)

    @property
    def proposed_by(self) -> Mask:
        """``(n, S)``: which sources proposed which item."""
        return ~np.isnan(self.source_ranks)

    def __iter__(self) -> Iterator[None]:
        raise TypeError("candidates are columns; there is no loop over them on the request path")
