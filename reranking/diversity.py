"""No long runs of one genre: a sliding window over the slate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.slate import Slate


@dataclass(frozen=True, slots=True)
class GenreWindow:
    """In any ``window`` neighbouring places at most ``most`` items share a genre.

    Greedy: each place takes the best candidate left that keeps the window, looking at the ``reach`` next ones; when
    none does, the best one goes there anyway, so the slate is never short. Genres that over half of the candidates have
    (drama, for most users) tell nothing apart and do not count.
    """

    window: int = 5
    most: int = 3
    reach: int = 60
    name: str = "diversity"

    def apply(self, slate: Slate) -> Slate:
        rows = slate.candidates.item_row
        pool = min(len(rows), slate.limit + self.reach)
        genres = slate.context.genres[rows[:pool]].astype(np.int16)
        genres[:, genres.sum(axis=0) * 2 > pool] = 0
        order = self._order(genres, min(slate.limit, pool))
        rest = np.setdiff1d(np.arange(len(rows)), order)
        moved_up = order[order > np.arange(len(order))]
        return slate.reordered(np.concatenate([order, rest]), self.name, rows[moved_up])

    def _order(
        self, genres: np.ndarray[tuple[int, int], np.dtype[np.int16]], limit: int
    ) -> np.ndarray[tuple[int], np.dtype[np.intp]]:
        """Positions of the first ``limit`` places, chosen among the rows of ``genres`` ``(pool, G)``."""
        left = np.arange(len(genres))
        chosen: list[int] = []
        for _ in range(limit):
            recent = genres[chosen[-(self.window - 1) :]].sum(axis=0) if chosen else np.zeros(genres.shape[1], np.int16)
            crowded = recent >= self.most
            fits = ~(genres[left] & crowded).any(axis=1) if crowded.any() else np.ones(len(left), np.bool_)
            at = int(np.argmax(fits))  # the first that fits; the first of all when none does
            chosen.append(int(left[at]))
            left = np.delete(left, at)
        return np.array(chosen, np.intp)
