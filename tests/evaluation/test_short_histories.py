"""Whoever has done three to five things gets a slate of their own, by the whole request path and the trained models."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from pathlib import Path

import pytest

from app.pipeline import Pipeline
from app.recommend import recommend
from app.settings import Settings
from app.wiring import Process, build
from domain.answer import Answer
from domain.deadline import Deadline
from domain.degradation import DegradationLevel
from domain.request import Query
from evaluation.served import GraphRanker
from release.bundle import Bundle, Publication
from tests.evaluation.conftest import ITEMS

SEA, TOWN = range(ITEMS // 2), range(ITEMS // 2, ITEMS)


@pytest.fixture
async def pipeline(trained: Bundle, tmp_path: Path, free_port: Callable[[], int]) -> AsyncIterator[Pipeline]:
    """The trained bundle wired, its graph in this process and nobody in a hurry.

    Without rules: those of diversity would mix the only two genres that there are.
    """
    process = Process.of(Settings(home=tmp_path, redis_port=free_port()))
    published = Bundle(trained.path, trained.manifest, trained.tables, Publication(1, 0.0))
    wired = replace(build(published, process), ranker=GraphRanker(trained.model_path, trained.tables.items), rules=())
    yield replace(wired, budget=replace(wired.budget, features=5, retrieval=5, ranking=5, reranking=5))
    await process.close()


async def ask(pipeline: Pipeline, *recent: str) -> Answer:
    answer = await recommend(pipeline, Query(None, limit=10, recent_item_ids=recent), Deadline.after(20))
    assert (answer.level, len(answer.items)) == (DegradationLevel.FULL, 10)
    return answer


@pytest.mark.parametrize("events", [3, 4, 5])
@pytest.mark.parametrize("taste", [SEA, TOWN], ids=["sea", "town"])
async def test_a_few_events_make_the_slate_personal(pipeline: Pipeline, taste: range, events: int) -> None:
    own = {f"i{row:03d}" for row in taste}
    popular = [item.item_id for item in (await ask(pipeline)).items]
    slate = [item.item_id for item in (await ask(pipeline, *sorted(own)[:events])).items]
    assert slate != popular
    assert len(own & set(slate)) >= 8  # of either taste: no one order for all could do both
