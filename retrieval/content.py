"""Content: items alike in genre, year and title, as each item's nearest neighbours.

It is the only source that can propose an item nobody has touched yet.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.arrays import Floats
from domain.candidates import Candidates
from domain.request import Request
from domain.user import UserFeatures
from retrieval.computed import Personal
from retrieval.likes import latest_likes
from retrieval.neighbours import Neighbours

MAX_HISTORY = 50
"""Taste in content is told by the latest likes; older ones only blur it."""
_ALIKE: Floats = np.ones(MAX_HISTORY, np.float32)


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
        liked = latest_likes(history, self.positive_stars, MAX_HISTORY)
        if not len(liked):
            return Candidates.none()
        return self.neighbours.proposed(liked, _ALIKE[: len(liked)], history.item_row, self.depth)
