"""A model without memory, and a model that gives nonsense."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace

import numpy as np
import pytest

from app import metrics
from app.pipeline import Pipeline
from app.recommend import recommend
from app.wiring import Process, build
from domain.deadline import Deadline
from domain.degradation import DegradationLevel as Level
from domain.errors import OutOfMemory
from domain.request import Query
from fallbacks.model_mark import PROBE_SECONDS, PROBES, ModelMark
from release.bundle import Bundle
from tests.alert_rules import selectors
from tests.app.fake_stages import Ranker

QUERY = Query("user-3", limit=5)


class Small(Ranker):
    """Has memory for so many candidates."""

    def __init__(self, room: int) -> None:
        super().__init__()
        self.room = room
        self.asked: list[int] = []

    async def score(self, user, candidates, deadline):
        self.asked.append(len(candidates))
        if len(candidates) > self.room:
            raise OutOfMemory("CUDA out of memory")
        return await super().score(user, candidates, deadline)


async def ask(pipeline: Pipeline):
    return await recommend(pipeline, QUERY, Deadline.after(30))


async def test_out_of_memory_is_tried_once_more_with_half_of_the_candidates(pipeline: Pipeline) -> None:
    whole = (await ask(pipeline)).ranked
    ranker = Small(whole - 1)
    answer = await ask(replace(pipeline, ranker=ranker))
    assert (answer.level, answer.reasons) == (Level.PARTIAL_RETRIEVAL, ("narrowed", "ranking.out_of_memory"))
    assert ranker.asked == [whole, (whole + 1) // 2]
    assert answer.ranked == (whole + 1) // 2
    assert len(answer.items) == 5


async def test_and_if_that_is_too_much_the_simple_ranker_ranks_them_all(pipeline: Pipeline) -> None:
    ranker = Small(1)
    answer = await ask(replace(pipeline, ranker=ranker))
    assert (answer.level, answer.reasons) == (Level.SIMPLE_RANKING, ("ranking.out_of_memory",))
    assert len(ranker.asked) == 2
    assert answer.ranked == ranker.asked[0]


@pytest.mark.parametrize("fits", ["half", "nothing"])
async def test_either_way_it_is_counted_where_its_alert_looks(pipeline: Pipeline, fits: str) -> None:
    whole = (await ask(pipeline)).ranked

    def counted() -> list[float]:
        return [selector.total() for selector in selectors("RankerAnswersBadly")]

    before = counted()
    metrics.answered(await ask(replace(pipeline, ranker=Small(whole - 1 if fits == "half" else 1))))
    assert any(now > then for now, then in zip(counted(), before, strict=True))


async def test_a_retry_that_works_leaves_the_breaker_closed(pipeline: Pipeline, process: Process) -> None:
    small = replace(pipeline, ranker=Small((await ask(pipeline)).ranked - 1))
    for _ in range(30):
        assert (await ask(small)).level is Level.PARTIAL_RETRIEVAL
    assert process.guard.breakers["ranking"].state == "closed"


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def watched(pipeline: Pipeline, process: Process, clock: Clock) -> AsyncIterator[Pipeline]:
    """The pipeline with its shadow running and a mark on a clock of the test's own."""
    running = asyncio.create_task(process.shadow.run())
    yield replace(pipeline, mark=ModelMark(clock=clock))
    running.cancel()


NONSENSE = {
    "not a number": lambda c: np.full(len(c), np.nan, np.float32),
    "infinite": lambda c: np.full(len(c), np.inf, np.float32),
    "one not a number": lambda c: np.where(np.arange(len(c)) == 3, np.nan, 0.5).astype(np.float32),
    "one too few": lambda c: np.linspace(1, 0, len(c) - 1, dtype=np.float32),
    "all the same": lambda c: np.full(len(c), 0.5, np.float32),
}


@pytest.mark.parametrize("nonsense", NONSENSE)
async def test_nonsense_decides_no_order_and_marks_the_model(watched: Pipeline, nonsense: str) -> None:
    sane = await ask(watched)
    broken = replace(watched, ranker=Ranker(NONSENSE[nonsense]))
    first, second = await ask(broken), await ask(replace(broken, ranker=Ranker()))
    assert (first.level, first.reasons) == (Level.SIMPLE_RANKING, ("ranking.bad_answer",))
    assert (second.level, second.reasons) == (Level.SIMPLE_RANKING, ("ranking.bad_model",))
    assert first.items == second.items != sane.items
    assert watched.mark.bad


async def test_a_model_that_is_good_again_ranks_after_several_good_probes(
    watched: Pipeline, process: Process, clock: Clock
) -> None:
    await ask(replace(watched, ranker=Ranker(NONSENSE["all the same"])))
    levels = []
    for _ in range(PROBES + 1):
        clock.now += PROBE_SECONDS
        levels.append((await ask(watched)).level)
        await process.shadow.drained()
    assert levels == [Level.SIMPLE_RANKING] * PROBES + [Level.FULL]


async def test_a_model_that_stays_bad_never_decides_again(watched: Pipeline, process: Process, clock: Clock) -> None:
    broken = replace(watched, ranker=Ranker(NONSENSE["infinite"]))
    for _ in range(10):
        assert (await ask(broken)).level is Level.SIMPLE_RANKING
        clock.now += PROBE_SECONDS
        await process.shadow.drained()
    assert watched.mark.bad


async def test_a_new_bundle_begins_trusted(pipeline: Pipeline, process: Process, bundle: Bundle) -> None:
    pipeline.mark.spoil("all the same")
    assert not build(bundle, process).mark.bad
