"""Maximal marginal relevance: each place weighs how good an item is against how alike it is to those above.

J. Carbonell and J. Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing
Summaries", SIGIR 1998.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.arrays import Floats
from domain.compiled import column, compiled, float32, int64, written
from domain.slate import Positions, Slate
from reranking.reach import Reach


@dataclass(frozen=True, slots=True)
class Mmr:
    """Each place takes the largest ``relevance_weight * relevance - (1 - relevance_weight) * likeness``.

    Likeness is the largest cosine of item vectors with anything chosen before, at least 0. Without vectors the rule
    does nothing. Pinned places are not compared with.
    """

    relevance_weight: float = 0.8
    reach: int = 60
    name: str = "mmr"

    def __post_init__(self) -> None:
        if not (0.0 <= self.relevance_weight <= 1.0 and self.reach >= 0):
            raise ValueError("relevance_weight must be from 0 to 1, reach at least 0")

    def apply(self, slate: Slate) -> Slate:
        pool = Reach.of(slate, self.reach)
        if slate.context.vectors is None or not pool.places:
            return slate
        gain = self.relevance_weight * pool.relevance
        alike = (1.0 - self.relevance_weight) * pool.likeness(slate.context.vectors)
        return slate.ordered(_chosen(gain, alike, pool.places), self.name)


@compiled(written(int64), column(float32), column(float32, 2), int64)
def _chosen(gain: Floats, alike: Floats, places: int) -> Positions:
    """``(places,)`` positions in ``gain``, best first; ``alike`` ``(pool, pool)`` is what each costs the others."""
    chosen = np.empty(places, np.int64)
    left, worst = np.ones(len(gain), np.bool_), np.zeros(len(gain), np.float32)
    for place in range(places):
        best, most = -1, np.float32(0.0)
        for at in range(len(gain)):
            if left[at] and (best < 0 or gain[at] - worst[at] > most):
                best, most = at, gain[at] - worst[at]
        left[best] = False
        chosen[place] = best
        for at in range(len(gain)):
            worst[at] = max(worst[at], alike[best, at])
    return chosen
