"""More requests at once than can be ranked in time: some get less, and no breaker opens."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.pipeline import Pipeline
from app.serving import Serving
from app.settings import Settings
from app.wiring import Process
from domain.answer import Answer
from domain.deadline import Deadline
from domain.degradation import DegradationLevel as Level
from domain.request import Query
from release.bundle import Bundle
from tests.app.fake_stages import Ranker

BURST = 50
SECONDS = 0.02  # a ranking; one at a time


class OneAtATime(Ranker):
    """A server with one instance: whoever comes waits for those before."""

    def __init__(self) -> None:
        super().__init__()
        self._turn = asyncio.Lock()

    async def score(self, user, candidates, deadline):
        async with self._turn:
            await asyncio.sleep(SECONDS)
        return await super().score(user, candidates, deadline)


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Process]:
    """Four times as patient as by default, as the ranker is four times as slow as Triton on a small machine."""
    settings = Settings(
        home=tmp_path, deadline_seconds=0.6, ranking_seconds=0.32, slow_ranking_seconds=0.28, shadow_ratio=0.0
    )
    process = Process.of(settings)
    yield process
    await process.close()


async def test_bursts_open_no_breaker(pipeline: Pipeline, process: Process, bundle: Bundle) -> None:
    """Without admission the last of a burst would wait a second, and the ceiling is a third of that."""
    slow = replace(pipeline, ranker=OneAtATime(), budget=replace(pipeline.budget, ranking=0.32))
    serving = Serving(process, bundle, slow, lambda _: None)
    answers = list[Answer]()
    for _ in range(4):
        asking = [serving.recommend(Query("user-3", limit=5), Deadline.after(20)) for _ in range(BURST)]
        answers += await asyncio.gather(*asking)
    assert process.guard.breakers["ranking"].state == "closed"
    assert all(len(answer.items) == 5 for answer in answers)
    levels = Counter(answer.level for answer in answers)
    assert levels[Level.FULL] + levels[Level.PARTIAL_RETRIEVAL] >= 4 * process.admission.policy.limit.least
    assert levels[Level.BATCH_LIST] >= 2 * BURST
    assert {answer.reasons for answer in answers if answer.level is Level.BATCH_LIST} == {("admission.shed",)}
