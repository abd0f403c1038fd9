"""No long runs of one genre or creator: a sliding window over the slate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Floats
from domain.slate import Slate
from reranking.reach import Reach


@dataclass(frozen=True, slots=True)
class GenreWindow:
    """In any ``window`` neighbouring places at most ``most`` items share a genre, and ``most_of_creator`` a creator.

    Greedy: each place takes the best candidate left that keeps the window, looking at the ``reach`` next ones; when
    none does, the best one goes there anyway, so the slate is never short. Genres that over half of the candidates have
    (drama, for most users) tell nothing apart and do not count. Pinned places are not counted.
    """

    window: int = 5
    most: int = 3
    most_of_creator: int = 2
    reach: int = 60
    name: str = "diversity"

    def __post_init__(self) -> None:
        if not (self.window >= 1 and self.most >= 1 and self.most_of_creator >= 1 and self.reach >= 0):
            raise ValueError("window, most and most_of_creator must be at least 1, reach at least 0")

    def apply(self, slate: Slate) -> Slate:
        pool = Reach.of(slate, self.reach)
        labels, most = self._labels(pool)
        chosen: list[int] = []
        recent = np.zeros(labels.shape[1], np.float32)
        left = np.ones(len(pool), np.bool_)
        for place in range(pool.places):
            if place >= self.window:
                recent -= labels[chosen[place - self.window]]
            crowded = recent >= most
            fits = left & (labels @ crowded.astype(np.float32) == 0) if crowded.any() else left
            at = int(fits.argmax())
            if not fits[at]:
                at = int(left.argmax())
            left[at] = False
            chosen.append(at)
            recent += labels[at]
        return pool.arranged(chosen, self.name)

    def _labels(self, pool: Reach) -> tuple[Floats, Floats]:
        """``(pool, L)``: 1 where a candidate wears a label; ``(L,)``: how many in a window may."""
        context = pool.slate.context
        genres = context.genres[pool.rows].astype(np.float32)
        genres[:, genres.sum(axis=0) * 2 > len(pool)] = 0
        most = np.full(genres.shape[1], self.most, np.float32)
        if context.facets is None:
            return genres, most
        creators = _one_hot(context.facets.creator[pool.rows])
        return np.hstack([genres, creators]), np.append(most, np.full(creators.shape[1], self.most_of_creator)).astype(
            np.float32
        )


def _one_hot(codes: NDArray[np.int32]) -> Floats:
    """``(n, distinct codes)``; a code of -1, unknown, is none."""
    distinct = np.unique(codes)
    return (codes[:, None] == distinct[distinct >= 0]).astype(np.float32)
