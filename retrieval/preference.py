"""A Bayesian preference model for short histories: Dirichlet-multinomial over genres.

A user draws a genre from their own mixture, then an item from what is liked in that genre. The prior over mixtures is
the population's and weighs as much as ``strength`` likes: with no like the posterior is everybody's mixture and the
order that of popularity. So three to five likes give a personal order that is still a sensible one, before the models
that learn from co-occurrence have enough to go by.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Floats, Mask, Rows
from domain.candidates import Candidates
from domain.compiled import bool_, column, compiled, float32, int32, int64, written
from domain.request import Request
from domain.user import UserFeatures
from retrieval.computed import Personal
from retrieval.likes import latest_likes
from retrieval.ordering import best_of_keys

MAX_HISTORY = 200
KEPT = 10_000  # items; more is never asked for


@dataclass(frozen=True, slots=True, eq=False)
class PreferenceTables:
    """``G`` genre slots and one more for items without a genre; ``m`` items that somebody liked, most liked first."""

    item_row: Rows  # (m,)
    given_genre: Floats  # (m, G + 1): the probability of the item where the genre is given
    prior: Floats  # (G + 1,): the population's mixture, summing to one
    strength: Floats  # (1,): how many likes the prior is worth

    @classmethod
    def of(cls, counts: NDArray[np.number], genres: Mask, strength: float) -> PreferenceTables:
        """From how often each item was liked, ``(n,)``, and its genres, ``(n, G)``; of the most liked ``KEPT``."""
        shares = genre_shares(genres)
        of_genre = counts @ shares
        order = np.argsort(-counts, kind="stable")[:KEPT]
        order = order[counts[order] > 0]
        given_genre = counts[order, None] * shares[order] / np.maximum(of_genre, 1.0)
        prior = of_genre / of_genre.sum() if of_genre.any() else np.full(len(of_genre), 1.0 / len(of_genre))
        return cls(
            order.astype(np.int32),
            given_genre.astype(np.float32),
            prior.astype(np.float32),
            np.array([strength], np.float32),
        )


def genre_shares(genres: Mask) -> Floats:
    """``(n, G + 1)``: each item's unit of likes spread evenly over its genres, or over none in the last column."""
    without = ~genres.any(axis=1, keepdims=True)
    wears = np.concatenate([genres, without], axis=1).astype(np.float32)
    return (wears / wears.sum(axis=1, keepdims=True)).astype(np.float32)


def posterior(tables: PreferenceTables, likes: Floats) -> Floats:
    """``(G + 1,)``: the posterior mean of a user's mixture after ``likes`` ``(G + 1,)`` of each genre."""
    counts = tables.strength[0] * tables.prior + likes
    return (counts / counts.sum()).astype(np.float32)


@dataclass(frozen=True, slots=True)
class Preference(Personal):
    """The ``depth`` items that are likeliest to be liked next, by what the user's likes say of their genres.

    Nothing for a user who has liked nothing: that is what popularity is for.
    """

    tables: PreferenceTables
    genres: Mask  # (n, G)
    positive_stars: float
    depth: int
    name: str = "preference"

    def propose(self, request: Request, user: UserFeatures) -> Candidates:
        del request
        history = user.history
        liked = latest_likes(history, self.positive_stars, MAX_HISTORY)
        if not len(liked):
            return Candidates.none()
        score = self.tables.given_genre @ posterior(self.tables, genre_likes(self.genres, liked))
        keys = _keys(score, self.tables.item_row, history.item_row, len(self.genres))
        place, found = best_of_keys(keys, self.depth)
        return Candidates.proposed(self.tables.item_row.take(place), found)


@compiled(written(float32), column(bool_, 2), column(int32))
def genre_likes(genres: Mask, liked: Rows) -> Floats:
    """``(G + 1,)``: the ``genre_shares`` of the items ``liked``, added up in their order."""
    none = genres.shape[1]
    likes = np.zeros(none + 1, np.float32)
    for row in liked:
        wears = genres[row].sum()
        share = np.float32(1.0) / np.float32(wears)
        for genre in range(none):
            if genres[row, genre]:
                likes[genre] += share
        if not wears:
            likes[none] += np.float32(1.0)
    return likes


@compiled(written(int64), column(float32), column(int32), column(int32), int64)
def _keys(score: Floats, item_row: Rows, met: Rows, items: int) -> NDArray[np.int64]:
    """What ``best_of_keys`` sorts, of the tables' ``(m,)`` positive scores, without those ``met`` of so many items.

    In a key stands the place in the tables, not the row: of equal scores the item more liked comes first.
    """
    known = np.zeros(items, np.bool_)
    for row in met:
        known[row] = True
    bits, keys, found = score.view(np.int32), np.empty(len(score), np.int64), 0
    for at in range(len(score)):
        keys[found] = (0x7FFF_FFFF - np.int64(bits[at])) << 32 | at
        found += (score[at] > 0) & ~known[item_row[at]]
    return keys[:found]
