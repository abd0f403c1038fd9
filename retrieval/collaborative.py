"""Collaborative filtering: an item-item model (EASE) shipped as each item's top-K neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.arrays import Floats
from domain.candidates import Candidates
from domain.catalogue import History
from domain.request import Request
from domain.user import UserFeatures
from retrieval.computed import Personal
from retrieval.neighbours import Neighbours

MAX_HISTORY = 300
"""The latest events that speak; with recency the earlier ones are no longer heard."""
STARS_ABOVE_POSITIVE = (-1.0, -0.5, 0.0, 1.0)
HEARD = (0.1, 0.3, 0.9, 1.2)
"""How loud an event is, by how far its rating lies above the least positive one: what a user did not care for says
little of what they will like, though it does tell what they come across."""
FORGETTING = 0.4


def history_weights(history: History, positive_stars: float) -> Floats:
    """``(h,)``: how much each event says, the history being oldest first; one without a rating is positive.

    The ``b``-th event before the latest is heard ``(1 + b) ** -FORGETTING`` as loud.
    """
    before_latest = np.arange(len(history) - 1, -1, -1, dtype=np.float32)
    above = np.nan_to_num(history.rating - positive_stars, nan=0.0)
    return (np.interp(above, STARS_ABOVE_POSITIVE, HEARD) * (1.0 + before_latest) ** -FORGETTING).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Collaborative(Personal):
    """The ``depth`` items that the user's latest events speak for most."""

    neighbours: Neighbours
    positive_stars: float
    depth: int
    name: str = "collaborative"

    def propose(self, request: Request, user: UserFeatures) -> Candidates:
        del request
        history = user.history.latest(MAX_HISTORY)
        if not len(history):
            return Candidates.none()
        weights = history_weights(history, self.positive_stars)
        return self.neighbours.proposed(history.item_row, weights, history.item_row, self.depth)
