"""What the rankers see: named columns, finite whatever happens, and comparable between users of different years."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.arrays import Floats
from domain.candidates import Candidates
from domain.catalogue import History
from domain.user import Freshness, UserFeatures
from features.contract import CONTRACT, GENRE_SLOTS
from features.encode import PAIRS, candidate_columns, encode_candidates, user_row

SOURCES = ("one", "two")
NAMES = candidate_columns(SOURCES)
ITEMS = 6


def catalogue() -> tuple[Floats, np.ndarray]:
    features = np.tile(CONTRACT.item.defaults, (ITEMS, 1))
    features[:, CONTRACT.item.slices["item_age_years"].start] = [10, 20, 30, 40, 50, 60]
    features[:, CONTRACT.item.slices["item_events_total_count"].start] = [0, 9, 99, 999, 9999, 99_999]
    genres = np.zeros((ITEMS, GENRE_SLOTS), np.bool_)
    genres[np.arange(ITEMS), np.arange(ITEMS)] = True
    return features, genres


def user(*rows: int, numeric: Floats | None = None) -> UserFeatures:
    h = len(rows)
    history = History(np.array(rows, np.int32), np.full(h, 4, np.float32), np.arange(h, dtype=np.float64))
    values = CONTRACT.numeric.defaults.copy() if numeric is None else numeric
    return UserFeatures(0, values, np.zeros(4, np.int32), history, 0.0, Freshness.FRESH)


def candidates(scores: list[list[float]], ranks: list[list[float]]) -> Candidates:
    n = len(scores)
    return Candidates(
        np.arange(n, dtype=np.int32), np.zeros(n, np.float32), np.array(scores, np.float32), np.array(ranks, np.float32)
    )


def column(table: Floats, name: str) -> list[float]:
    return table[:, NAMES.index(name)].tolist()


def test_each_source_gives_its_score_its_share_of_the_best_and_its_rank() -> None:
    nan = np.nan
    table = encode_candidates(
        user(), candidates([[4, nan], [2, 7], [nan, nan]], [[0, nan], [60, 0], [nan, nan]]), *catalogue()
    )
    assert table.shape == (3, len(NAMES))
    assert column(table, "one_score") == [4, 2, 0]
    assert column(table, "one_score_ratio") == [1, 0.5, 0]
    assert column(table, "one_reciprocal_rank") == [1, 0.5, 0]
    assert column(table, "two_score") == [0, 7, 0]


def test_items_are_compared_with_the_items_of_the_history() -> None:
    table = encode_candidates(user(1, 3), candidates([[1, 1]] * 3, [[0, 0]] * 3), *catalogue())
    assert column(table, "pair_age_distance_years") == [20, 10, 0]
    assert column(table, "pair_newer_than_known_years") == [10, 0, 0]
    mean = (np.log(10) + np.log(1000)) / 2
    expected = [-mean, np.log(10) - mean, np.log(100) - mean]
    np.testing.assert_allclose(column(table, "pair_popularity_distance_log_count"), expected, rtol=1e-5)


def test_the_recent_distance_looks_at_the_latest_events_only() -> None:
    table = encode_candidates(user(*[5] * 30, *[0] * 10), candidates([[1, 1]], [[0, 0]]), *catalogue())
    assert column(table, "pair_age_recent_distance_years") == [0]
    assert column(table, "pair_age_distance_years") == [37.5]


def test_genre_columns_are_the_users_share_of_the_items_genres() -> None:
    numeric = CONTRACT.numeric.defaults.copy()
    taste = CONTRACT.numeric.slices["user_genre_taste_ratio"]
    numeric[taste.start : taste.start + 2] = [0.75, 0.25]
    table = encode_candidates(user(numeric=numeric), candidates([[1, 1]] * 3, [[0, 0]] * 3), *catalogue())
    assert column(table, "pair_genre_taste_ratio") == [0.75, 0.25, 0]


def test_a_user_without_history_is_at_no_distance_in_age_and_otherwise_at_the_defaults() -> None:
    table = encode_candidates(user(), candidates([[1, 1]] * 3, [[0, 0]] * 3), *catalogue())
    ages = NAMES.index("pair_age_distance_years")
    assert (table[:, ages : ages + 3] == 0).all()
    assert len(PAIRS) == len(NAMES) - NAMES.index("pair_genre_taste_ratio")


def test_popularity_sets_items_apart_for_a_user_without_history_as_for_anybody() -> None:
    """Within a request the column is popularity less a constant; so is what a ranker has learned of it."""
    offered = candidates([[1, 1]] * 3, [[0, 0]] * 3)
    stranger, somebody = (encode_candidates(who, offered, *catalogue()) for who in (user(), user(1, 3)))
    for name in PAIRS[-3:]:
        one, other = (np.diff(column(table, name)) for table in (stranger, somebody))
        np.testing.assert_allclose(one, other, rtol=1e-5)


def test_no_candidates_have_the_same_columns() -> None:
    assert encode_candidates(user(1), Candidates.none(2), *catalogue()).shape == (0, len(NAMES))


@given(st.lists(st.tuples(*[st.floats(width=32)] * 4), min_size=1, max_size=ITEMS))
def test_every_value_is_finite_whatever_a_source_says(values: list[tuple[float, float, float, float]]) -> None:
    with np.errstate(all="ignore"):
        table = encode_candidates(
            user(1, 2), candidates([list(v[:2]) for v in values], [list(v[2:]) for v in values]), *catalogue()
        )
    assert table.dtype == np.float32
    assert np.isfinite(table).all()


def sources_by_formula(scores: Floats, ranks: Floats) -> Floats:
    score = np.where(np.isnan(ranks), np.float32(0), scores)
    best = np.maximum(np.abs(score).max(axis=0, initial=0), np.float32(1e-6))
    reciprocal = np.float32(60) / (np.float32(60) + np.where(np.isnan(ranks), np.float32(np.inf), ranks))
    return np.nan_to_num(np.concatenate([score, score / best, reciprocal], axis=1), nan=0, posinf=0, neginf=0)


@given(st.lists(st.tuples(*[st.floats(width=32)] * 4), max_size=ITEMS))
def test_the_columns_of_the_sources_are_their_formulas_to_the_bit(values: list[tuple[float, ...]]) -> None:
    table = np.array(values, np.float32).reshape(-1, 4)
    offered = candidates([list(v[:2]) for v in values], [list(v[2:]) for v in values]) if values else Candidates.none(2)
    with np.errstate(all="ignore"):
        expected = sources_by_formula(table[:, :2], table[:, 2:])
    assert encode_candidates(user(), offered, *catalogue())[:, :6].tobytes() == expected.tobytes()


@pytest.mark.parametrize("h", [1, 7, 8, 9, 10, 11, 127, 128, 129, 200, 250])
def test_the_distances_are_numpys_to_the_bit_however_long_the_history(h: int) -> None:
    features, genres = catalogue()
    rng = np.random.default_rng(h)
    features = rng.uniform(0, 100, features.shape).astype(np.float32)
    rows = rng.integers(0, ITEMS, h)
    offered = candidates([[1, 1]] * 3, [[0, 0]] * 3)
    table = encode_candidates(user(*rows.tolist()), offered, features, genres)
    age, count, stars = (
        features[:, CONTRACT.item.slices[f"item_{name}"].start]
        for name in ("age_years", "events_total_count", "rating_mean_stars")
    )
    ages, counts, last = age[rows[-200:]], np.log1p(count[rows[-200:]]), slice(-10, None)
    expected = [
        np.abs(age - ages.mean()),
        np.abs(age - ages[last].mean()),
        np.maximum(ages.min() - age, 0),
        np.log1p(count) - counts.mean(),
        np.log1p(count) - counts[last].mean(),
        stars - stars[rows[-200:]].mean(),
    ]
    np.testing.assert_array_equal(table[:, -6:], np.column_stack(expected)[:3])


def test_counts_are_seen_on_a_log_scale() -> None:
    numeric = CONTRACT.numeric.defaults.copy()
    numeric[CONTRACT.numeric.slices["user_events_total_count"]] = 99
    assert user_row(user(numeric=numeric))[0] == pytest.approx(np.log(100))
