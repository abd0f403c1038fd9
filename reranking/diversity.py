"""No long runs of one genre or creator: a sliding window over the slate."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.arrays import NO_ROWS, Codes, Mask, Rows
from domain.compiled import bool_, column, compiled, int32, int64, pair, written
from domain.slate import Positions, Slate


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
        context, free, places = slate.context, slate.free, slate.open_places
        rows = slate.candidates.item_row[free[: places + self.reach]]
        creator = NO_ROWS if context.facets is None else context.facets.creator
        window = self.window, self.most, self.most_of_creator
        return slate.ordered(_chosen(context.genres, creator, rows, places, *window), self.name)


@compiled(pair(written(bool_, 2), written(int32)), column(bool_, 2), column(int32), column(int32))
def _labels(genres: Mask, creator: Codes, rows: Rows) -> tuple[Mask, Codes]:
    """``(pool, G)``: the genres that count; ``(pool,)``: the creator of each, -1 where unknown."""
    n = len(rows)
    worn, codes = np.empty((n, genres.shape[1]), np.bool_), np.full(n, -1, np.int32)
    count = np.zeros(genres.shape[1], np.int64)
    for at in range(n):
        for genre in range(genres.shape[1]):
            worn[at, genre] = genres[rows[at], genre]
            count[genre] += worn[at, genre]
        if len(creator):
            codes[at] = creator[rows[at]]
    for genre in range(len(count)):
        if count[genre] * 2 > n:
            worn[:, genre] = False
    return worn, codes


@compiled(bool_, int64, column(bool_, 2), column(int64), column(int32), column(int64), int64)
def _fits(at: int, worn: Mask, crowded: Positions, codes: Codes, recent: Positions, most_of_creator: int) -> bool:
    for genre in crowded:
        if worn[at, genre]:
            return False
    same = 0
    for other in recent:
        same += codes[other] == codes[at]
    return codes[at] < 0 or same < most_of_creator


@compiled(written(int64), column(bool_, 2), column(int32), column(int32), int64, int64, int64, int64)
def _chosen(
    genres: Mask, creator: Codes, rows: Rows, places: int, window: int, most: int, most_of_creator: int
) -> Positions:
    """``(places,)`` positions in ``rows`` ``(pool,)``; ``creator`` is empty where nothing is known of any."""
    worn, codes = _labels(genres, creator, rows)
    chosen, left = np.empty(places, np.int64), np.ones(len(rows), np.bool_)
    count, crowded = np.zeros(worn.shape[1], np.int64), np.empty(worn.shape[1], np.int64)
    best = 0  # the best candidate left
    for place in range(places):
        full = 0
        for genre in range(len(count)):
            if place >= window:
                count[genre] -= worn[chosen[place - window], genre]
            if count[genre] >= most:
                crowded[full] = genre
                full += 1
        while not left[best]:
            best += 1
        recent, at = chosen[max(0, place - window + 1) : place], best
        while at < len(rows) and not (left[at] and _fits(at, worn, crowded[:full], codes, recent, most_of_creator)):
            at += 1
        chosen[place] = at = at if at < len(rows) else best
        left[at] = False
        for genre in range(len(count)):
            count[genre] += worn[at, genre]
    return chosen
