"""A flat index answers the same whether it keeps the best itself or gives all its scores."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
import pytest

from domain.arrays import Floats
from retrieval.flat import FLAT_SHARE, search

D, N = 8, 1000


def flat(vectors: Floats) -> Any:
    faiss.omp_set_num_threads(1)
    index = faiss.IndexFlatIP(D)
    index.add(vectors)
    return index


def drawn(*shape: int) -> Floats:
    return np.random.default_rng(0).normal(size=shape).astype(np.float32)


@pytest.mark.parametrize("k", [1, N // FLAT_SHARE, N // FLAT_SHARE + 1, 150, N, N + 5])
@pytest.mark.parametrize("queries", [1, 3])
def test_the_answer_is_that_of_the_index(k: int, queries: int) -> None:
    index, x = flat(drawn(N, D)), drawn(queries, D)
    (scores, rows), (wanted_scores, wanted_rows) = search(index, x, k), index.search(x, k)
    assert (scores.dtype, rows.dtype) == (wanted_scores.dtype, wanted_rows.dtype)
    assert scores.tolist() == wanted_scores.tolist()
    assert rows.tolist() == wanted_rows.tolist()


def test_equal_scores_come_in_the_order_of_the_index() -> None:
    index, x = flat(drawn(N // 4, D).repeat(4, axis=0)), drawn(1, D)  # 400 of them are 100 quadruples
    assert search(index, x, 400)[1].tolist() == index.search(x, 400)[1].tolist()


def test_of_equal_scores_for_too_few_places_all_are_the_best_there_are() -> None:
    scores, rows = search(flat(np.zeros((N, D), np.float32)), drawn(1, D), 100)
    assert not scores.any()
    assert len(set(rows[0].tolist())) == 100


def test_a_query_that_is_no_number_finds_nothing() -> None:
    _, rows = search(flat(drawn(N, D)), np.full((1, D), np.nan, np.float32), 100)
    assert not (rows >= 0).any()


def test_a_query_of_another_width_is_refused() -> None:
    with pytest.raises(AssertionError):
        search(flat(drawn(N, D)), drawn(1, D + 1), 100)
