"""A determinantal point process over a window: sets of good items that span much.

L. Chen, G. Zhang and E. Zhou, "Fast Greedy MAP Inference for Determinantal Point Process to Improve Recommendation
Diversity", NeurIPS 2018: the greedy choice with an incremental Cholesky factor, and its window over the last items.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from domain.slate import Slate
from reranking.reach import Reach

EPSILON = 1e-6  # a gain below this is numerically none: the item lies in the span of those chosen


@dataclass(frozen=True, slots=True)
class Dpp:
    """Each place takes the item that adds most to the determinant of the kernel over the last ``window`` items.

    The kernel is ``q_i * cosine_ij * q_j`` with ``q = exp(relevance_weight * relevance)``. Where nothing adds to the
    determinant any more, the best candidate left takes the place. Without vectors the rule does nothing.
    """

    relevance_weight: float = 3.0
    window: int = 8
    reach: int = 60
    name: str = "dpp"

    def __post_init__(self) -> None:
        if not (0.0 <= self.relevance_weight <= 20.0 and self.window >= 2 and self.reach >= 0):
            raise ValueError("relevance_weight must be from 0 to 20, window at least 2, reach at least 0")

    def apply(self, slate: Slate) -> Slate:
        pool = Reach.of(slate, self.reach)
        if slate.context.vectors is None or not pool.places:
            return slate
        quality = np.exp(self.relevance_weight * pool.relevance.astype(np.float64))
        likeness = pool.likeness(slate.context.vectors).astype(np.float64)
        np.fill_diagonal(likeness, 1.0)
        kernel = _Kernel(quality[:, None] * likeness * quality, self.window)
        chosen: list[int] = []
        left = np.ones(len(pool), np.bool_)
        for _ in range(pool.places):
            at = int(np.where(left, kernel.gain, -1.0).argmax())
            if kernel.gain[at] <= EPSILON:
                at = int(left.argmax())
            left[at] = False
            chosen.append(at)
            kernel.choose(chosen)
        return slate.ordered(np.array(chosen, np.intp), self.name)


class _Kernel:
    """The gain of every item given the last ``window - 1`` chosen ones, kept by the rows of a Cholesky factor."""

    def __init__(self, of_pool: np.ndarray[tuple[int, int], np.dtype[np.float64]], window: int) -> None:
        self.of_pool, self.window = of_pool, window
        self._rows = np.empty((window, len(of_pool)))
        self._begin()

    def _begin(self) -> None:
        self._held = 0
        self.gain = self.of_pool.diagonal().copy()

    def choose(self, chosen: list[int]) -> None:
        """Take note of the last one ``chosen``; a full window is factored anew without its oldest item."""
        if self._held < self.window - 1:
            self._absorb(chosen[-1])
            return
        self._begin()
        for at in chosen[-(self.window - 1) :]:
            self._absorb(at)

    def _absorb(self, at: int) -> None:
        if self.gain[at] <= EPSILON:  # adds nothing, so there is nothing to condition on
            return
        rows = self._rows[: self._held]
        row = (self.of_pool[at] - rows[:, at] @ rows) / math.sqrt(self.gain[at])
        self._rows[self._held] = row
        self._held += 1
        self.gain -= row * row
