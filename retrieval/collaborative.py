"""Collaborative filtering: an item-item model (EASE) shipped as each item's top-K neighbours."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.arrays import Floats
from domain.candidates import Candidates
from domain.catalogue import History
from domain.compiled import column, compiled, float32, float64, written
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


_LOUDNESS: Floats = (1.0 + np.arange(MAX_HISTORY, dtype=np.float32)) ** -FORGETTING
"""Of the ``b``-th event before the latest."""


def history_weights(history: History, positive_stars: float) -> Floats:
    """``(h,)``: how much each event says, of ``MAX_HISTORY`` at most, oldest first; one without a rating is positive.

    The ``b``-th event before the latest is heard ``(1 + b) ** -FORGETTING`` as loud.
    """
    return _weights(history.rating, positive_stars, _LOUDNESS)


@compiled(float64, float64)
def _heard(above: float) -> float:
    """``HEARD`` at ``STARS_ABOVE_POSITIVE``, with straight lines between; NaN, which is no rating, is heard as 0 is."""
    if np.isnan(above):
        above = 0.0
    if above <= STARS_ABOVE_POSITIVE[0]:
        return HEARD[0]
    for at in range(len(HEARD) - 1):
        low, high = STARS_ABOVE_POSITIVE[at], STARS_ABOVE_POSITIVE[at + 1]
        if above < high:
            return (HEARD[at + 1] - HEARD[at]) / (high - low) * (above - low) + HEARD[at]
    return HEARD[-1]


@compiled(written(float32), column(float32), float32, column(float32))
def _weights(rating: Floats, positive_stars: float, loudness: Floats) -> Floats:
    weights = np.empty(len(rating), np.float32)
    for at in range(len(rating)):
        weights[at] = _heard(rating[at] - positive_stars) * loudness[len(rating) - 1 - at]
    return weights


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
