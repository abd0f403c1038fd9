"""The best first is the order of a stable argsort."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrieval.neighbours import Neighbours, best

scores = st.lists(st.floats(0, 2**100, width=32), max_size=50)


@given(scores, st.integers(0, 60), st.booleans())
def test_the_highest_score_comes_first_and_ties_by_row(values: list[float], k: int, alike: bool) -> None:
    score = np.array([round(value / 2**99) if alike else value for value in values], np.float32)
    found, wanted = best(score, k), np.argsort(-score, kind="stable")[:k]
    wanted = wanted[score[wanted] > 0]
    assert (found.item_row.tolist(), found.score.tolist()) == (wanted.tolist(), score[wanted].tolist())


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
