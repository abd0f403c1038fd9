"""Not too much of one creator: a cap over the whole slate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.arrays import Codes, Rows
from domain.compiled import column, compiled, int32, int64, written
from domain.slate import Positions, Slate


@dataclass(frozen=True, slots=True)
class CreatorCap:
    """At most ``most`` places a creator, pinned places among them; items of unknown creators are not counted.

    The places go to the best candidates under the cap, wherever they stand; if there are fewer of those than places,
    the best of the others fill up, so the slate is never short. Nothing goes down by more than ``limit`` places.
    """

    most: int = 3
    name: str = "creators"

    def __post_init__(self) -> None:
        if self.most < 1:
            raise ValueError("most must be at least 1")

    def apply(self, slate: Slate) -> Slate:
        facets, rows = slate.context.facets, slate.candidates.item_row
        if facets is None:
            return slate
        pins = facets.creator[rows[[place for place in slate.pinned if place < slate.limit]]]
        return slate.ordered(_capped(facets.creator, pins, rows[slate.free], slate.open_places, self.most), self.name)


@compiled(written(int64), column(int32), column(int32), column(int32), int64, int64)
def _capped(creator: Codes, pins: Codes, rows: Rows, places: int, most: int) -> Positions:
    """``(places,)`` positions in ``rows``, ascending: the first under the cap, then the first others."""
    shown, n = np.zeros(len(rows), np.bool_), len(pins)
    codes = np.empty(n + places, np.int32)  # of those that have a place
    for at in range(n):
        codes[at] = pins[at]
    for at in range(len(rows)):
        if n == len(codes):
            break
        code, same = creator[rows[at]], 0
        for other in range(n):
            same += codes[other] == code
        if code < 0 or same < most:
            shown[at] = True
            codes[n] = code
            n += 1
    for at in range(len(rows)):
        if n == len(codes):
            break
        if not shown[at]:
            shown[at] = True
            n += 1
    return np.flatnonzero(shown)
