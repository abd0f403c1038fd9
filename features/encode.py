"""From what is known to what the rankers see: one function for training and serving, one for both rankers.

A ranker's input is the user row ``(U,)``, the context codes ``(K,)``, the item rows ``(n,)`` and the candidate columns
``(n, C)`` made here. The item features live with the ranker.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from domain.arrays import Floats, Mask
from domain.candidates import Candidates
from domain.catalogue import History
from domain.user import UserFeatures
from features.contract import CONTRACT

PAIRS = (
    "pair_genre_taste_ratio",
    "pair_genre_recent_ratio",
    "pair_age_distance_years",
    "pair_age_recent_distance_years",
    "pair_newer_than_known_years",
    "pair_popularity_distance_log_count",
    "pair_popularity_recent_distance_log_count",
    "pair_rating_distance_stars",
)
RANK_SCALE = 60.0
RECENT_EVENTS = 10
KNOWN_EVENTS = 200
USUAL_STARS = CONTRACT.item.defaults[CONTRACT.item.slices["item_rating_mean_stars"]]


def candidate_columns(sources: Sequence[str]) -> tuple[str, ...]:
    """The names of the ``C`` candidate columns, in order, for these sources."""
    per_source = [f"{source}_{column}" for column in ("score", "score_ratio", "reciprocal_rank") for source in sources]
    return (*per_source, *PAIRS)


def user_row(user: UserFeatures) -> Floats:
    """``(U,)`` the user's numeric features as the models see them."""
    return CONTRACT.numeric.scaled(user.numeric)


def encode_candidates(user: UserFeatures, candidates: Candidates, item_features: Floats, genres: Mask) -> Floats:
    """``(n, C)``, columns as named by ``candidate_columns``; every value finite.

    For each source its score, its score over the best score it gave in this request, and ``60 / (60 + rank)``; zero
    where it did not propose the item. Then how the item meets the user.
    """
    proposed = candidates.proposed_by
    score = np.where(proposed, candidates.source_scores, 0.0).astype(np.float32)
    best = np.maximum(np.abs(score).max(axis=0, initial=0.0), 1e-6)
    rank = np.where(proposed, candidates.source_ranks, np.inf)
    pairs = _pairs(user, candidates, item_features, genres)
    columns = np.concatenate([score, score / best, RANK_SCALE / (RANK_SCALE + rank), pairs], axis=1)
    if not np.isfinite(columns).all():
        np.nan_to_num(columns, copy=False, nan=0.0, posinf=0.0, neginf=0.0)
    return columns.astype(np.float32, copy=False)


def _pairs(user: UserFeatures, candidates: Candidates, item_features: Floats, genres: Mask) -> Floats:
    """``(n, len(PAIRS))``: shared genres, and how far the item lies from the items of the user's history in age,
    popularity and rating.

    Items are compared with items, both as of the bundle, so that it does not matter when the user was here. A user
    without history is at no distance in age from anything, and in popularity and rating at the contract's defaults:
    were these columns flat, what a ranker has learned of popularity would be partly silent for just this user.
    """
    spans, item = CONTRACT.numeric.slices, CONTRACT.item.slices
    wears = genres[candidates.item_row].astype(np.float32)
    taste = wears @ user.numeric[spans["user_genre_taste_ratio"]]
    lately = wears @ user.numeric[spans["user_genre_recent_ratio"]]

    def of(rows: np.ndarray[tuple[int], np.dtype[np.int32]], feature: str) -> Floats:
        return item_features[rows, item[feature].start]

    age, count = of(candidates.item_row, "item_age_years"), of(candidates.item_row, "item_events_total_count")
    stars = of(candidates.item_row, "item_rating_mean_stars")
    popularity = np.log1p(count)
    known, recent = _rows(user.history, KNOWN_EVENTS), _rows(user.history, RECENT_EVENTS)
    if not len(known):
        nothing = np.zeros(len(candidates), np.float32)
        usual = CONTRACT.numeric.defaults[spans["user_item_popularity_mean_log_count"]]
        return np.column_stack([taste, lately, *[nothing] * 3, *[popularity - usual] * 2, stars - USUAL_STARS])
    ages, counts = of(known, "item_age_years"), np.log1p(of(known, "item_events_total_count"))
    last = slice(-len(recent), None)
    return np.column_stack(
        [
            taste,
            lately,
            np.abs(age - ages.mean()),
            np.abs(age - ages[last].mean()),
            np.maximum(ages.min() - age, 0.0),
            popularity - counts.mean(),
            popularity - counts[last].mean(),
            stars - of(known, "item_rating_mean_stars").mean(),
        ]
    )


def _rows(history: History, k: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return history.latest(k).item_row
