"""The order of a stable argsort, by the way of a sort."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrieval.neighbours import Neighbours, best
from retrieval.ordering import best_first, sorted_positions

scores = st.lists(st.floats(0, 2**100, width=32), max_size=50)


@given(st.lists(st.integers(0, 2**39 - 1), max_size=50))
def test_positions_are_those_of_a_stable_sort(keys: list[int]) -> None:
    key = np.array(keys, np.int64)
    order, ordered = sorted_positions(key)
    assert order.tolist() == np.argsort(key, kind="stable").tolist()
    assert ordered.tolist() == sorted(keys)


@given(scores)
def test_the_highest_score_comes_first_and_ties_keep_their_order(values: list[float]) -> None:
    score = np.array(values, np.float32)
    assert best_first(score).tolist() == np.argsort(-score, kind="stable").tolist()


@given(scores, st.randoms(use_true_random=False))
def test_who_is_sure_comes_before_all_others(values: list[float], random: np.random.Generator) -> None:
    score = np.array(values, np.float32)
    sure = np.array([random.choice([True, False]) for _ in values], np.bool_)
    assert best_first(score, sure).tolist() == np.lexsort((-score, ~sure)).tolist()


@given(scores, st.integers(0, 60), st.booleans())
def test_the_first_k_are_the_beginning_of_the_whole_order(values: list[float], k: int, alike: bool) -> None:
    score = np.array([round(value / 2**99) if alike else value for value in values], np.float32)
    assert best_first(score, k=k).tolist() == best_first(score)[:k].tolist()


@given(st.integers(0, 2**32), st.sampled_from([30, 20_000]), st.integers(1, 40))
def test_what_many_items_speak_for_is_the_same_in_a_small_and_a_large_catalogue(seed: int, items: int, k: int) -> None:
    random = np.random.default_rng(seed)
    heard = random.integers(0, 5, items) * (np.arange(items) < 30)
    item_row = random.integers(0, items, int(heard.sum())).astype(np.int32)
    indptr = np.concatenate(([0], np.cumsum(heard)))
    neighbours = Neighbours(indptr, item_row, random.random(len(item_row)).astype(np.float32))
    rows, without = random.integers(0, 30, (2, 4)).astype(np.int32)
    weight = random.random(4).astype(np.float32)
    dense = neighbours.speak(rows, weight)
    dense[without] = 0.0
    wanted, found = best(dense, k), neighbours.proposed(rows, weight, without, k)
    assert found.item_row.tolist() == wanted.item_row.tolist()
    assert np.allclose(found.score, wanted.score, rtol=1e-6)
