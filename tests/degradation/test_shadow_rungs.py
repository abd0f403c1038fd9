"""Every rung of the ladder is run beside a live request, and gives something."""

from __future__ import annotations

import asyncio
from dataclasses import replace

from app.beside.shadow import Shadow
from app.pipeline import Pipeline
from app.recommend import recommend
from domain.deadline import Deadline
from domain.degradation import DegradationLevel as Level
from domain.request import Query
from features.contract import CONTRACT


async def shadowed(pipeline: Pipeline, query: Query) -> dict[str, tuple[str, int]]:
    seen: dict[str, tuple[str, int]] = {}

    def observe(rung: str, outcome: str, seconds: float, size: int) -> None:
        seen[rung] = (outcome, size)

    shadow = Shadow(1.0, observe)
    answer = await recommend(replace(pipeline, shadow=shadow), query, Deadline.after(30))
    assert answer.level is Level.FULL
    assert seen == {}  # nothing of it on the path of the request
    running = asyncio.create_task(shadow.run())
    await shadow.drained()
    running.cancel()
    return seen


async def test_a_known_users_request_tries_every_rung(pipeline: Pipeline) -> None:
    seen = await shadowed(pipeline, Query("user-3", limit=5))
    assert {rung: outcome for rung, (outcome, _) in seen.items()} == dict.fromkeys(
        ["STALE_FEATURES", "SIMPLE_RANKING", "BATCH_LIST", "POPULAR"], "ok"
    )
    assert seen["STALE_FEATURES"][1] == CONTRACT.numeric.width
    assert (seen["BATCH_LIST"][1], seen["POPULAR"][1]) == (5, 5)


async def test_a_stranger_has_no_list_of_their_own_to_try(pipeline: Pipeline) -> None:
    assert "BATCH_LIST" not in await shadowed(pipeline, Query("stranger", limit=5))


async def test_most_requests_have_nothing_beside_them(pipeline: Pipeline) -> None:
    seen: list[str] = []
    shadow = Shadow(0.01, lambda rung, *_: seen.append(rung), draw=lambda: 0.5)
    await recommend(replace(pipeline, shadow=shadow), Query("user-3"), Deadline.after(30))
    await shadow.drained()
    assert seen == []
