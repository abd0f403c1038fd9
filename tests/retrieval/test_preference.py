"""The Dirichlet-multinomial: what a few likes of a genre do to the order."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.candidates import Candidates
from domain.catalogue import History
from domain.deadline import Deadline
from domain.request import Context, Request
from domain.user import Freshness, UserFeatures
from features.contract import CONTRACT
from retrieval.preference import Preference, PreferenceTables, genre_likes, genre_shares, posterior

# Six items: 0 to 2 are of genre 0, 3 and 4 of genre 1, 5 of none. Genre 0 is liked twice as much as genre 1.
GENRES = np.array([[1, 0], [1, 0], [1, 0], [0, 1], [0, 1], [0, 0]], np.bool_)
GIVEN = np.array([[0.6, 0, 0], [0.3, 0, 0], [0.1, 0, 0], [0, 0.7, 0], [0, 0.3, 0]], np.float32)
TABLES = PreferenceTables(
    np.arange(5, dtype=np.int32), GIVEN, np.array([2 / 3, 1 / 3, 0.0], np.float32), np.array([3.0], np.float32)
)


def ask(rows: list[int], stars: list[float], depth: int = 10) -> Candidates:
    history = History(np.array(rows, np.int32), np.array(stars, np.float32), np.arange(len(rows), dtype=np.float64))
    codes = np.zeros(len(CONTRACT.context), np.int32)
    user = UserFeatures(0, CONTRACT.numeric.defaults, codes, history, 0.0, Freshness.FRESH)

    async def run() -> Candidates:
        async def read() -> UserFeatures:
            return user

        source = Preference(TABLES, GENRES, 4.0, depth)
        task = asyncio.create_task(read())
        return await source.retrieve(Request("u", 0, 5, Context(), 0.0), task, Deadline.after(5))

    return asyncio.run(run())


def test_the_posterior_is_the_case_worked_out_by_hand() -> None:
    # (3 x 2/3 + 0, 3 x 1/3 + 3) / 6
    after = posterior(TABLES, np.array([0.0, 3.0, 0.0], np.float32))
    np.testing.assert_allclose(after, [2 / 6, 4 / 6, 0.0], atol=1e-6)


def test_without_a_like_the_posterior_is_the_population() -> None:
    np.testing.assert_allclose(posterior(TABLES, np.zeros(3, np.float32)), TABLES.prior)


def test_likes_of_a_genre_bring_its_other_items_forward() -> None:
    assert ask([2], [5.0]).item_row.tolist()[:2] == [0, 1]
    assert ask([4], [5.0]).item_row.tolist()[0] == 3


def test_what_was_met_is_not_proposed() -> None:
    assert set(ask([4, 0], [5.0, 1.0]).item_row.tolist()) == {1, 2, 3}


@pytest.mark.parametrize(("rows", "stars"), [([], []), ([1, 2], [1.0, 2.0])], ids=["no event", "no like"])
def test_a_user_without_a_like_gets_nothing(rows: list[int], stars: list[float]) -> None:
    assert len(ask(rows, stars)) == 0


def test_it_proposes_no_deeper_than_asked() -> None:
    assert len(ask([4], [5.0], depth=2)) == 2


def test_an_item_spreads_over_its_genres_or_counts_as_without() -> None:
    both = np.array([[1, 1], [0, 0]], np.bool_)
    np.testing.assert_allclose(genre_shares(both), [[0.5, 0.5, 0.0], [0.0, 0.0, 1.0]])


def test_of_equal_scores_the_item_more_liked_comes_first_and_what_scores_nothing_is_not_proposed() -> None:
    order = np.array([4, 1, 3, 0], np.int32)
    given_genre = np.array([[0.2, 0.2, 0.2], [0.2, 0.2, 0.2], [0, 0, 0], [0.2, 0.2, 0.2]], np.float32)
    source = Preference(PreferenceTables(order, given_genre, TABLES.prior, TABLES.strength), GENRES, 4.0, 10)
    history = History(np.array([2], np.int32), np.array([5.0], np.float32), np.zeros(1))
    user = UserFeatures(0, CONTRACT.numeric.defaults, np.zeros(1, np.int32), history, 0.0, Freshness.FRESH)
    assert source.propose(Request("u", 0, 5, Context(), 0.0), user).item_row.tolist() == [4, 1, 0]


@given(st.integers(0, 2**32), st.integers(0, 9), st.integers(0, 30))
def test_likes_add_up_as_the_shares_of_their_genres_do(seed: int, slots: int, n: int) -> None:
    random = np.random.default_rng(seed)
    genres, liked = random.random((12, slots)) < 0.3, random.integers(0, 12, n).astype(np.int32)
    assert genre_likes(genres, liked).tolist() == genre_shares(genres[liked]).sum(axis=0).tolist()
