"""The share of the truth that an index finds: exact for an exact index, less for one that looks into too few lists."""

from __future__ import annotations

import asyncio
import math
from typing import Any

import faiss
import numpy as np
import pytest

from app.beside.recall_watch import RecallWatch
from app.metrics import INDEX_RECALL
from retrieval.shadow import KEPT_QUERIES, SampledIndex, exact_rows

D, N, LISTS = 8, 2000, 32


@pytest.fixture(scope="module")
def vectors():
    random = np.random.default_rng(0)
    made = random.normal(size=(N, D)).astype(np.float32)
    return made / np.linalg.norm(made, axis=1, keepdims=True)


def inverted(vectors, probes: int) -> Any:
    faiss.omp_set_num_threads(1)
    index: Any = faiss.index_factory(D, f"IVF{LISTS},Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors)
    index.add(vectors)
    index.nprobe = probes
    return index


def flat(vectors):
    index = faiss.IndexFlatIP(D)
    index.add(vectors)
    return index


@pytest.mark.parametrize("make", [flat, lambda vectors: inverted(vectors, 2)])
def test_the_exact_answer_is_that_of_all_inner_products(vectors, make) -> None:
    queries = vectors[:5]
    exact = exact_rows(make(vectors), queries, 10)
    assert [set(rows) for rows in exact.tolist()] == [
        set(np.argsort(-(vectors @ query), kind="stable")[:10].tolist()) for query in queries
    ]


def test_an_index_that_looks_into_too_few_lists_is_found_out(vectors) -> None:
    for probes, low, high in ((1, 0.05, 0.8), (LISTS, 1.0, 1.0)):
        watched = SampledIndex(inverted(vectors, probes))
        for query in vectors[:8]:
            watched.search(query[None], 20)
        assert low <= watched.recall(20) <= high


def test_nobody_asked_is_not_a_number_and_only_the_last_queries_are_kept(vectors) -> None:
    watched = SampledIndex(flat(vectors))
    assert math.isnan(watched.recall(5))
    for query in vectors[: KEPT_QUERIES * 2]:
        watched.search(query[None], 5)
    assert len(watched.queries) == KEPT_QUERIES
    assert np.array_equal(watched.queries[-1], vectors[KEPT_QUERIES * 2 - 1])


async def test_the_worker_tells_the_recall_of_the_index_in_use(vectors) -> None:
    watch, looked = RecallWatch(), asyncio.Semaphore(0)

    async def sleep(_: float) -> None:
        looked.release()
        await asyncio.sleep(0)

    watch.index = SampledIndex(flat(vectors))
    watch.index.search(vectors[:1], 20)
    keeping = asyncio.create_task(watch.keep(sleep))
    for _ in range(2):  # the second sleep begins after the first look was told
        await looked.acquire()
    keeping.cancel()
    assert INDEX_RECALL._value.get() == 1.0
    INDEX_RECALL.set(math.inf)


async def test_a_search_that_fails_is_a_failing_source_not_a_bug(vectors) -> None:
    from concurrent.futures import ThreadPoolExecutor

    from domain.catalogue import History
    from domain.deadline import Deadline
    from domain.errors import BadAnswer
    from domain.user import Freshness, UserFeatures
    from features.contract import CONTRACT
    from retrieval.executor import Threaded
    from retrieval.two_tower import TwoTower, UserTower

    width, other = CONTRACT.numeric.width, D + 1  # a tower that is not this index's
    tower = UserTower(
        np.ones((N, 4), np.float32), np.zeros(width, np.float32), np.ones(width, np.float32),
        np.ones((6, 4 + width), np.float32), np.zeros(6, np.float32), np.ones((other, 6), np.float32),
        np.zeros(other, np.float32),
    )  # fmt: skip
    history = History(np.array([1], np.int32), np.array([5.0], np.float32), np.array([1.0]))
    user = UserFeatures(0, np.ones(width, np.float32), np.zeros(4, np.int32), history, 0.0, Freshness.FRESH)

    async def known() -> UserFeatures:
        return user

    asked: Any = None  # the source does not look at the request
    with ThreadPoolExecutor(1) as pool:
        source = TwoTower(tower, flat(vectors), 4.0, 5)
        for asking in (source, Threaded(source, pool)):
            with pytest.raises(BadAnswer, match="FAISS"):
                await asking.retrieve(asked, asyncio.create_task(known()), Deadline.after(5))
