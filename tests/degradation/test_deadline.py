"""The answer leaves by the deadline, whatever hangs."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace

import pytest

from app.pipeline import Budget, Pipeline
from app.recommend import recommend
from app.wiring import Process
from domain.deadline import Deadline
from domain.degradation import DegradationLevel as Level
from domain.request import Query
from retrieval.executor import BoundedExecutor, Threaded
from retrieval.two_tower import TwoTower
from tests.app.fake_stages import Ranker, Source, Store, with_store

QUERY = Query("user-3", limit=5)
SLACK = 2.0  # of a machine that does other things as well; what hangs here hangs for ever


class HangingStore(Store):
    async def read(self, user_id):
        await asyncio.Event().wait()


class HangingRanker(Ranker):
    async def score(self, user, candidates, deadline):
        await asyncio.Event().wait()


class HangingSource(Source):
    async def retrieve(self, request, user, deadline):
        await asyncio.Event().wait()


class Deaf(Ranker):
    """Does not heed a cancellation, until it is let go."""

    def __init__(self) -> None:
        super().__init__()
        self.let_go = asyncio.Event()

    async def score(self, user, candidates, deadline):
        while not self.let_go.is_set():
            with suppress(asyncio.CancelledError):
                await self.let_go.wait()
        raise ZeroDivisionError


def hung(pipeline: Pipeline) -> Pipeline:
    sources = tuple(HangingSource(source.name, []) for source in pipeline.sources)
    return with_store(replace(pipeline, sources=sources, ranker=HangingRanker(), budget=Budget()), HangingStore())


async def within(seconds: float, pipeline: Pipeline, query: Query = QUERY):
    async with asyncio.timeout(max(0.0, seconds) + SLACK):
        return await recommend(pipeline, query, Deadline.after(seconds))


@pytest.mark.parametrize("milliseconds", [-10, 0, 1, 5, 15, 20, 21, 25, 30, 50, 150, 500])
async def test_with_everything_hanging_and_any_deadline_there_is_an_answer(
    pipeline: Pipeline, milliseconds: int
) -> None:
    answer = await within(milliseconds / 1000, hung(pipeline))
    assert answer.level is Level.BATCH_LIST
    assert len(answer.items) == 5


@pytest.mark.parametrize("what", ["store", "ranker"])
async def test_one_hanging_dependency_costs_its_own_level_and_no_more(pipeline: Pipeline, what: str) -> None:
    short = replace(pipeline, budget=replace(pipeline.budget, features=0.03, ranking=0.03))
    if what == "store":
        answer, level = await within(20, with_store(short, HangingStore())), Level.STALE_FEATURES
    else:
        answer, level = await within(20, replace(short, ranker=HangingRanker())), Level.SIMPLE_RANKING
    assert answer.level is level


async def test_what_does_not_heed_its_cancellation_is_left_behind(pipeline: Pipeline) -> None:
    deaf = Deaf()
    answer = await within(0.1, replace(pipeline, ranker=deaf))
    assert (answer.level, answer.reasons[-1]) == (Level.BATCH_LIST, "deadline.near")
    assert len(answer.items) == 5
    deaf.let_go.set()
    await asyncio.sleep(0)  # its own end, a bug at that, is nobody's business


async def test_a_caller_who_leaves_takes_the_work_along(pipeline: Pipeline) -> None:
    ended = asyncio.Event()
    begun = asyncio.Event()

    class Watched(Ranker):
        async def score(self, user, candidates, deadline):
            begun.set()
            try:
                await asyncio.Event().wait()
            finally:
                ended.set()

    asking = asyncio.create_task(recommend(replace(pipeline, ranker=Watched()), QUERY, Deadline.after(60)))
    await asyncio.wait_for(begun.wait(), 10)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking
    await asyncio.wait_for(ended.wait(), 10)


@pytest.fixture
async def stuck() -> AsyncIterator[BoundedExecutor]:
    """An executor whose only thread does not come back, and whose only waiting place is taken."""
    release = threading.Event()
    executor = BoundedExecutor(1, 1)
    for _ in range(2):
        executor.submit(release.wait)
    yield executor
    release.set()
    executor.shutdown()


def searching_in(executor: BoundedExecutor, pipeline: Pipeline) -> Pipeline:
    (two_tower,) = [source for source in pipeline.sources if isinstance(source, TwoTower)]
    others = tuple(source for source in pipeline.sources if source is not two_tower)
    return replace(pipeline, sources=(Threaded(two_tower, executor), *others))


async def test_a_full_executor_is_a_late_source(pipeline: Pipeline, stuck: BoundedExecutor) -> None:
    answer = await within(20, searching_in(stuck, pipeline))
    assert (answer.level, answer.reasons) == (Level.PARTIAL_RETRIEVAL, ("two_tower.timeout",))


async def test_a_search_that_never_returns_is_discarded_and_its_place_bounded(
    pipeline: Pipeline, free_executor: Callable[[], BoundedExecutor]
) -> None:
    executor = free_executor()
    short = replace(searching_in(executor, pipeline), budget=replace(pipeline.budget, retrieval=0.1))
    for _ in range(3):
        answer = await within(20, short)
        assert answer.level is Level.PARTIAL_RETRIEVAL
        assert "two_tower.timeout" in answer.reasons


@pytest.fixture
def free_executor(process: Process):
    """Makes an executor whose searches hang once they run."""
    release, made = threading.Event(), list[BoundedExecutor]()

    class Hanging(BoundedExecutor):
        def submit(self, fn, /, *args, **kwargs):
            return super().submit(release.wait)

    def make() -> BoundedExecutor:
        made.append(Hanging(1, 1))
        return made[-1]

    yield make
    release.set()
    for executor in made:
        executor.shutdown()
