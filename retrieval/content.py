"""Content: items alike in genre, year and title, as each item's nearest neighbours.

It is the only source that can propose an item nobody has touched yet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.candidates import Candidates
from domain.request import Request
from domain.user import UserFeatures
from features.definitions import positive
from retrieval.computed import Personal
from retrieval.neighbours import Neighbours

MAX_HISTORY = 50
"""Taste in content is told by the latest likes; older ones only blur it."""


@dataclass(frozen=True, slots=True)
class Content(Personal):
    """The ``depth`` items most alike to the user's latest likes."""

    neighbours: Neighbours
    positive_stars: float
    depth: int
    name: str = "content"

    def propose(self, request: Request, user: UserFeatures) -> Candidates:
        del request
        history = user.history
        liked = history.only(positive(history, self.positive_stars)).latest(MAX_HISTORY)
        if not len(liked):
            return Candidates.none()
        alike = np.ones(len(liked), np.float32)
        return self.neighbours.proposed(liked.item_row, alike, history.item_row, self.depth)
