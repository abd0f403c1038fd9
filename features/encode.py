"""From what is known to what the rankers see: one function for training and serving, one for both rankers.

A ranker's input is the user row ``(U,)``, the context codes ``(K,)``, the item rows ``(n,)`` and the candidate columns
``(n, C)`` made here. The item features live with the ranker.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Floats, Mask, Rows
from domain.candidates import Candidates
from domain.compiled import bool_, column, compiled, float32, int32, int64, pair, written
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

_ITEM, _USER = CONTRACT.item, CONTRACT.numeric
_COMPARED = np.array(
    [_ITEM.slices[name].start for name in ("item_age_years", "item_events_total_count", "item_rating_mean_stars")]
)
_TASTE, _LATELY = _USER.slices["user_genre_taste_ratio"], _USER.slices["user_genre_recent_ratio"]
_USUAL = np.concatenate(
    [
        _USER.defaults[_USER.slices["user_item_popularity_mean_log_count"]],
        _ITEM.defaults[_ITEM.slices["item_rating_mean_stars"]],
    ]
)


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
    where it did not propose the item. Then how the item meets the user: shared genres, and how far it lies from the
    items of the user's history in age, popularity and rating.

    Items are compared with items, both as of the bundle, so that it does not matter when the user was here. A user
    without history is at no distance in age from anything, and in popularity and rating at the contract's defaults:
    were these columns flat, what a ranker has learned of popularity would be partly silent for just this user.
    """
    n, known = len(candidates), user.history.latest(KNOWN_EVENTS).item_row
    whole = np.ascontiguousarray  # as the compiled loops want them, and as they nearly always are
    facts, wears = _looked_up(candidates.item_row, known, whole(item_features), whole(genres), _COMPARED)
    np.log1p(facts[1], out=facts[1])  # numpy's: another log1p may differ in the last bit
    return _with_pairs(
        _of_sources(whole(candidates.source_scores), whole(candidates.source_ranks)),
        wears @ user.numeric[_TASTE],
        wears @ user.numeric[_LATELY],
        facts,
        np.add.reduce(facts[:, n:], axis=1),
        np.add.reduce(facts[:, n + max(0, len(known) - RECENT_EVENTS) :], axis=1),
        _USUAL,
    )


@compiled(
    pair(written(float32, 2), written(float32, 2)),
    *[column(int32)] * 2, column(float32, 2), column(bool_, 2), column(int64),
)  # fmt: skip
def _looked_up(
    rows: Rows, known: Rows, item_features: Floats, genres: Mask, compared: NDArray[np.int64]
) -> tuple[Floats, Floats]:
    """``(3, n + h)`` the ``compared`` features of ``n`` items, then of ``h`` known ones; ``(n, G)`` genres."""
    n = len(rows)
    facts = np.empty((len(compared), n + len(known)), np.float32)
    wears = np.empty((n, genres.shape[1]), np.float32)
    for i in range(facts.shape[1]):
        row = rows[i] if i < n else known[i - n]
        for fact in range(len(compared)):
            facts[fact, i] = item_features[row, compared[fact]]
        if i < n:
            for slot in range(genres.shape[1]):
                wears[i, slot] = genres[row, slot]
    return facts, wears


@compiled(float32, float32)
def _finite(value: float) -> float:
    return value if np.isfinite(value) else 0.0


@compiled(written(float32, 2), column(float32, 2), column(float32, 2))
def _of_sources(scores: Floats, ranks: Floats) -> Floats:
    """``(n, C)`` columns, those of the sources filled in from ``(n, S)`` scores and ranks.

    What a source did not propose is scattered over both and not to be guessed, so no branch depends on it.
    """
    n, sources = scores.shape
    score, reciprocal_rank = np.empty((n, sources), np.float32), np.empty((n, sources), np.float32)
    given, rank, kept, reciprocal = scores.ravel(), ranks.ravel(), score.ravel(), reciprocal_rank.ravel()
    scale = np.float32(RANK_SCALE)
    for k in range(n * sources):
        kept[k] = np.float32(0) if np.isnan(rank[k]) else given[k]
        reciprocal[k] = _finite(scale / (scale + rank[k]))
    best = np.full(sources, 1e-6, np.float32)
    for i in range(n):
        for source in range(sources):
            size = abs(score[i, source])
            best[source] = best[source] if size <= best[source] or np.isnan(best[source]) else size
    columns = np.empty((n, 3 * sources + len(PAIRS)), np.float32)
    for i in range(n):
        for source in range(sources):
            columns[i, source] = _finite(score[i, source])
            columns[i, sources + source] = _finite(score[i, source] / best[source])
            columns[i, 2 * sources + source] = reciprocal_rank[i, source]
    return columns


@compiled(*[written(float32, 2)] * 2, *[column(float32)] * 2, column(float32, 2), *[column(float32)] * 3)
def _with_pairs(
    columns: Floats, taste: Floats, lately: Floats, facts: Floats, total: Floats, recent: Floats, usual: Floats
) -> Floats:
    """The same columns, the last of them filled in from ``(n,)`` shared genres and ``facts`` ``(3, n + h)``.

    The facts are ages, log counts and stars; ``total`` and ``recent`` ``(3,)`` are their sums over all known items and
    over the latest of them.
    """
    n, h = len(taste), facts.shape[1] - len(taste)
    age, popularity, stars = total / np.float32(h)
    recent_age, recent_popularity, _ = recent / np.float32(min(h, RECENT_EVENTS))
    youngest = np.float32(np.inf)
    for i in range(n, n + h):
        youngest = min(youngest, facts[0, i])
    if not h:
        popularity, recent_popularity, stars = usual[0], usual[0], usual[1]
    for i in range(n):
        pairs = columns[i, columns.shape[1] - len(PAIRS) :]
        pairs[0], pairs[1] = _finite(taste[i]), _finite(lately[i])
        pairs[2] = _finite(abs(facts[0, i] - age)) if h else 0.0
        pairs[3] = _finite(abs(facts[0, i] - recent_age)) if h else 0.0
        pairs[4] = _finite(max(youngest - facts[0, i], np.float32(0))) if h else 0.0
        pairs[5] = _finite(facts[1, i] - popularity)
        pairs[6] = _finite(facts[1, i] - recent_popularity)
        pairs[7] = _finite(facts[2, i] - stars)
    return columns
