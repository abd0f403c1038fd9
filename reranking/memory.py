"""What the user was just shown gives way to what they were not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Rows, Seconds
from domain.compiled import column, compiled, float64, int32, int64, written
from domain.slate import Positions, Slate


@dataclass(frozen=True, slots=True)
class Memory:
    """An item falls by up to ``slates`` lengths of the slate, half as many ``half_life_minutes`` after it was shown.

    With two lengths a refresh begins where the last slate ended, and after one half-life the two take turns. Of several
    times shown the last one counts. Nothing else changes its order.
    """

    slates: float = 2.0
    half_life_minutes: float = 10.0
    name: str = "memory"

    def __post_init__(self) -> None:
        if not (0.0 <= self.slates <= 10.0 and self.half_life_minutes > 0.0):
            raise ValueError("slates must be from 0 to 10, half_life_minutes more than 0")

    def apply(self, slate: Slate) -> Slate:
        shown = slate.context.shown
        if not len(shown.item_row):
            return slate
        known = 0.5 ** (np.maximum(shown.age_seconds, 0.0) / (60.0 * self.half_life_minutes))
        item_row, deepest = slate.candidates.item_row, self.slates * slate.limit
        return slate.ordered(
            _fallen(item_row, slate.free, shown.item_row, known, deepest).argsort(kind="stable"), self.name
        )


@compiled(written(float64), column(int32), column(int64), column(int32), column(float64), float64)
def _fallen(item_row: Rows, free: Positions, shown: Rows, known: Seconds, deepest: float) -> NDArray[np.float64]:
    """``(free,)``: the place that each free candidate falls to, ``known`` being 1 for what was shown this moment."""
    rows, most = np.empty(len(free), np.int32), np.zeros(len(free), np.float32)
    for at in range(len(free)):
        rows[at] = item_row[free[at]]
    for one in range(len(shown)):
        row, still = shown[one], np.float32(known[one])
        for at in range(len(rows)):  # no branches: several at a time
            most[at] = still if rows[at] == row and (still > most[at] or np.isnan(still)) else most[at]
    place = np.empty(len(free), np.float64)
    for at in range(len(free)):
        place[at] = at + np.float64(np.float32(deepest) * most[at])
    return place
