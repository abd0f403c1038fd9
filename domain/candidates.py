"""Candidates are columns, never a list of objects.

On 500 candidates, re-score + sort + top 20 takes 25 us on columns and 1.7 ms on objects.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from domain.arrays import Floats, Mask, Rows


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
        return Candidates(
            self.item_row[positions], self.score[positions], self.source_scores[positions], self.source_ranks[positions]
        )

    def scored(self, score: Floats) -> Candidates:
        """The same candidates, in the same order, under new scores ``(n,)``."""
        return replace(self, score=score)

    def top(self, k: int) -> Candidates:
        """The ``k`` best by score, best first.

        A score that is not finite sorts last: this is the one place that decides so. Ties keep their order.
        """
        finite = np.where(np.isfinite(self.score), self.score, -np.inf)
        return self.take(np.argsort(-finite, kind="stable")[:k])

    @property
    def proposed_by(self) -> Mask:
        """``(n, S)``: which sources proposed which item."""
        return ~np.isnan(self.source_ranks)

    def __iter__(self) -> Iterator[None]:
        raise TypeError("candidates are columns; there is no loop over them on the request path")
