"""What the user was just shown gives way to what they were not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.arrays import Floats, Rows
from domain.slate import Slate
from domain.user import Shown


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
        free = slate.free
        rows = slate.candidates.item_row[free]
        fall = self.slates * slate.limit * self._still_known(slate.context.shown, rows)
        order = np.argsort(np.arange(len(rows)) + fall, kind="stable")
        up = order[order > np.arange(len(order))]
        return slate.arranged(free[order], self.name, rows[up]) if len(up) else slate

    def _still_known(self, shown: Shown, rows: Rows) -> Floats:
        """``(n,)``: 1 for what was shown this moment, 0 for what was not."""
        if not len(shown.item_row) or not len(rows):
            return np.zeros(len(rows), np.float32)
        fresh = 0.5 ** (np.maximum(shown.age_seconds, 0.0) / (60.0 * self.half_life_minutes))
        place = np.argsort(rows)
        at = np.minimum(np.searchsorted(rows, shown.item_row, sorter=place), len(rows) - 1)
        there = rows[place[at]] == shown.item_row
        known = np.zeros(len(rows), np.float32)
        np.maximum.at(known, place[at[there]], fresh[there].astype(np.float32))
        return known
