"""Rungs in shadow: bounded, beside the request, and never in its way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from app.beside.shadow import WAITING, Shadow
from domain.errors import BadAnswer


class Seen(list[tuple[str, str, int]]):
    def __call__(self, rung: str, outcome: str, seconds: float, size: int) -> None:
        self.append((rung, outcome, size))


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
async def shadow(seen: Seen) -> AsyncIterator[Shadow]:
    shadow = Shadow(1.0, seen)
    running = asyncio.create_task(shadow.run())
    yield shadow
    running.cancel()


async def give(size: int) -> int:
    return size


async def fail(error: Exception) -> int:
    raise error


async def test_each_run_tells_how_it_ended_and_what_it_made(shadow: Shadow, seen: Seen) -> None:
    shadow.offer("POPULAR", lambda: give(20))
    shadow.offer("BATCH_LIST", lambda: give(0))
    shadow.offer("SIMPLE_RANKING", lambda: fail(BadAnswer("all the same")))
    await shadow.drained()
    assert seen == [("POPULAR", "ok", 20), ("BATCH_LIST", "empty", 0), ("SIMPLE_RANKING", "bad_answer", 0)]


async def test_a_bug_is_counted_and_the_next_one_runs(shadow: Shadow, seen: Seen) -> None:
    shadow.offer("POPULAR", lambda: fail(ZeroDivisionError()))
    shadow.offer("POPULAR", lambda: give(1))
    await shadow.drained()
    assert [outcome for _, outcome, _ in seen] == ["bug", "ok"]


async def test_what_does_not_fit_is_dropped_and_counted(shadow: Shadow, seen: Seen) -> None:
    for _ in range(WAITING + 5):
        shadow.offer("POPULAR", lambda: give(1))
    assert seen == [("POPULAR", "dropped", 0)] * 5
    await shadow.drained()
    assert len(seen) == WAITING + 5


def test_only_the_share_is_chosen() -> None:
    draws = iter([0.005, 0.01, 0.5])
    shadow = Shadow(0.01, draw=lambda: next(draws))
    assert [shadow.chosen() for _ in range(3)] == [True, False, False]
