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
from domain.request import Request
from domain.user import UserFeatures
from features.definitions import positive
from retrieval.computed import Personal
from retrieval.ordering import best_first

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
        liked = history.only(positive(history, self.positive_stars)).latest(MAX_HISTORY)
        if not len(liked):
            return Candidates.none()
        likes = genre_shares(self.genres[liked.item_row]).sum(axis=0)
        score = self.tables.given_genre @ posterior(self.tables, likes)
        met = np.zeros(len(self.genres), np.bool_)
        met[history.item_row] = True
        score[met[self.tables.item_row]] = 0.0
        order = best_first(score, k=self.depth)
        order = order[score[order] > 0]
        return Candidates.proposed(self.tables.item_row[order], score[order])
