"""Collaborative filtering: an item-item model (EASE) shipped as each item's top-K neighbours."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

import numpy as np

from domain.arrays import Floats
from domain.candidates import Candidates
from domain.catalogue import History
from domain.deadline import Deadline
from domain.request import Request
from domain.user import UserFeatures
from retrieval.neighbours import Neighbours, best

MAX_HISTORY = 300
"""The latest events that speak; with recency the earlier ones are no longer heard."""
OTHERS_WEIGHT = 0.5
"""An event that is not to the user's liking still tells what they come across; it counts half."""


def history_weights(history: History, neutral_stars: float) -> Floats:
    """``(h,)``: how much each event says, the history being oldest first.

    An event without a rating, or rated above neutral, counts one, any other ``OTHERS_WEIGHT``; the ``b``-th event
    before the latest is heard ``1 / sqrt(1 + b)`` as loud.
    """
    before_latest = np.arange(len(history) - 1, -1, -1, dtype=np.float32)
    liked = np.isnan(history.rating) | (history.rating > neutral_stars)
    return (np.where(liked, 1.0, OTHERS_WEIGHT) / np.sqrt(1.0 + before_latest)).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Collaborative:
    """The ``depth`` items that the user's latest events speak for most."""

    neighbours: Neighbours
    neutral_stars: float
    depth: int
    name: str = "collaborative"

    async def retrieve(self, request: Request, user: asyncio.Task[UserFeatures], deadline: Deadline) -> Candidates:
        del request, deadline
        history = (await asyncio.shield(user)).history.latest(MAX_HISTORY)
        if not len(history):
            return Candidates.none()
        scores = self.neighbours.speak(history.item_row, history_weights(history, self.neutral_stars))
        scores[history.item_row] = 0.0
        return best(scores, self.depth)
