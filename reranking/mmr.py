"""Maximal marginal relevance: each place weighs how good an item is against how alike it is to those above.

J. Carbonell and J. Goldstein, "The Use of MMR, Diversity-Based Reranking for Reordering Documents and Producing
Summaries", SIGIR 1998.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.slate import Slate
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
        worst = np.zeros(len(pool), np.float32)
        chosen: list[int] = []
        for _ in range(pool.places):
            at = int((gain - worst).argmax())
            chosen.append(at)
            gain[at] = -np.inf
            np.maximum(worst, alike[at], out=worst)
        return pool.arranged(chosen, self.name)
