"""Not too much of one creator: a cap over the whole slate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.arrays import Codes, Mask
from domain.slate import Slate


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
        free, places = slate.free, slate.open_places
        pins = [place for place in slate.pinned if place < slate.limit]
        codes = facets.creator[np.concatenate([rows[pins], rows[free]])]
        under = (how_manieth(codes) < self.most)[len(pins) :] | (codes[len(pins) :] < 0)
        shown: Mask = np.zeros(len(free), np.bool_)
        shown[np.concatenate([np.flatnonzero(under), np.flatnonzero(~under)])[:places]] = True
        order = np.concatenate([np.flatnonzero(shown), np.flatnonzero(~shown)])
        up = order[order > np.arange(len(order))]
        return slate.arranged(free[order], self.name, rows[free[up]]) if len(up) else slate


def how_manieth(codes: Codes) -> Codes:
    """``(n,)``: how many equal codes stand before each."""
    order = np.argsort(codes, kind="stable")
    ordered = codes[order]
    starts = np.flatnonzero(np.concatenate(([True], ordered[1:] != ordered[:-1]))) if len(codes) else np.empty(0, int)
    run = np.repeat(starts, np.diff(np.append(starts, len(codes))))
    counted = np.empty(len(codes), np.int32)
    counted[order] = np.arange(len(codes)) - run
    return counted
