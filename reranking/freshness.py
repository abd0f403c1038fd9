"""What is new moves up a little."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.slate import Slate

DAY = 86_400.0


@dataclass(frozen=True, slots=True)
class Freshness:
    """An item rises by up to ``lift`` places, half as many ``half_life_days`` after it was published, and so on.

    Nothing rises or falls by more than ``lift`` places. Items without ``published_at``, or from the future, stay.
    """

    lift: float = 3.0
    half_life_days: float = 14.0
    name: str = "freshness"

    def __post_init__(self) -> None:
        if not (0.0 <= self.lift <= 100.0 and self.half_life_days > 0.0):
            raise ValueError("lift must be from 0 to 100, half_life_days more than 0")

    def apply(self, slate: Slate) -> Slate:
        facets, context = slate.context.facets, slate.context
        if facets is None or not len(slate.candidates):
            return slate
        free = slate.free
        rows = slate.candidates.item_row[free]
        age = ((context.now if context.moment is None else context.moment) - facets.published_at[rows]) / DAY
        fresh = np.where(age >= 0, 0.5 ** (np.maximum(age, 0.0) / self.half_life_days), 0.0)  # NaN compares as false
        order = np.argsort(np.arange(len(free)) - self.lift * fresh, kind="stable")
        return slate.ordered(order, self.name)
