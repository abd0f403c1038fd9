"""What the greedy rules share: the part of the slate that they look at.

Nothing comes up from beyond ``limit + reach``, and nothing goes down by more than ``limit`` places.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.arrays import Floats, Rows
from domain.slate import Positions, Slate


@dataclass(frozen=True, slots=True, eq=False)
class Reach:
    """The free candidates that compete for the open places."""

    slate: Slate
    free: Positions
    rows: Rows  # (pool,)
    places: int

    @classmethod
    def of(cls, slate: Slate, reach: int) -> Reach:
        """The open places and the ``reach`` free candidates behind them."""
        free, places = slate.free, slate.open_places
        return cls(slate, free, slate.candidates.item_row[free[: places + reach]], places)

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def relevance(self) -> Floats:
        """``(pool,)`` from 1 for the best score to 0 for the worst; a score that is not finite counts as the worst."""
        return relevance_of(self.slate.candidates.score[self.free[: len(self)]])

    def likeness(self, vectors: Floats) -> Floats:
        """``(pool, pool)``: the cosine of any two; of an item without a vector 0."""
        of_pool = np.asarray(vectors[self.rows], np.float32)
        length = np.sqrt(np.einsum("ij,ij->i", of_pool, of_pool))[:, None]
        unit = of_pool / np.maximum(length, 1e-12)
        return np.asarray(unit @ unit.T, np.float32)


def relevance_of(score: Floats) -> Floats:
    """``(n,)`` from 1 for the best score to 0 for the worst, on any scale; what is not finite counts as the worst."""
    finite = np.isfinite(score)
    if not finite.any():
        return np.zeros(len(score), np.float32)
    low, high = score[finite].min(), score[finite].max()
    return np.where(finite, (score - low) / max(float(high - low), 1e-12), 0.0).astype(np.float32)
