"""The Dirichlet-multinomial's tables: what is liked in each genre, and the population's prior.

The prior's mean is the population's mixture. Its strength is that under which every user's next like is most probable
after the likes before it (empirical Bayes on the prediction itself, because an item of several genres counts in parts,
and parts are less scattered than a multinomial says). Only first likes are asked: that is what the model is for.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from domain.arrays import Floats
from features.definitions import positive
from retrieval.preference import PreferenceTables, genre_shares
from training.split import Cut

STRENGTHS = (1.0, 2.0, 3.0, 5.0, 7.0, 10.0, 15.0, 20.0, 30.0, 50.0, 100.0)
FIRST_LIKES = 10


def fit(cut: Cut) -> PreferenceTables:
    """From the likes before the cut."""
    dataset, known = cut.dataset, cut.known
    stars = dataset.rating[known]
    liked = np.isnan(stars) | (stars >= dataset.settings.positive_stars)
    counts = np.bincount(dataset.item_row[known][liked], minlength=len(dataset.item_ids))
    tables = PreferenceTables.of(counts, dataset.genres, 1.0)
    shares = genre_shares(dataset.genres)
    strength = best_strength(cut, shares, counts @ shares, tables.prior)
    return replace(tables, strength=np.array([strength], np.float32))


def best_strength(cut: Cut, shares: Floats, of_genre: Floats, prior: Floats) -> float:
    """The strength under which each of a user's first likes is most probable after those before it."""
    stars = cut.dataset.settings.positive_stars
    before: list[Floats] = []
    after: list[Floats] = []
    for user in range(len(cut.length)):
        history = cut.history(user)
        likes = shares[history.item_row[positive(history, stars)][: FIRST_LIKES + 1]]
        before.append(np.cumsum(likes, axis=0, dtype=np.float32)[:-1])
        after.append((likes[1:] / np.maximum(of_genre, 1.0)).astype(np.float32))
    known, following = np.concatenate(before), np.concatenate(after)
    return max(STRENGTHS, key=lambda strength: log_likelihood(known, following, strength * prior))


def log_likelihood(known: Floats, following: Floats, alpha: Floats) -> float:
    """Of what followed ``known`` likes ``(e, G + 1)``: ``following`` ``(e, G + 1)`` is its chance in each genre."""
    mixture = (known + alpha) / (known + alpha).sum(axis=1, keepdims=True)
    return float(np.log(np.maximum((mixture * following).sum(axis=1), 1e-12)).sum())
