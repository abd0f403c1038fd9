import asyncio

import pytest

from app.guard import Guard
from domain.deadline import Deadline
from domain.errors import BreakerOpen, Late, Unreachable
from fallbacks.breakers import Breaker, BreakerPolicy


class Seen(list):
    def __call__(self, name: str, outcome: str, seconds: float) -> None:
        self.append((name, outcome))


@pytest.fixture
def seen() -> Seen:
    return Seen()


@pytest.fixture
def guard(seen: Seen) -> Guard:
    return Guard({"redis": Breaker("redis", BreakerPolicy(minimum_calls=2))}, {"redis": 0.01}, seen)


async def answer() -> int:
    return 42


async def hang() -> int:
    await asyncio.Event().wait()
    raise AssertionError


async def refuse() -> int:
    raise Unreachable("redis")


async def test_an_answer_passes_and_is_counted(guard: Guard, seen: Seen) -> None:
    assert await guard.attempt("redis", answer, Deadline.after(1)) == 42
    assert seen == [("redis", "ok")]


async def test_lateness_counts_against_the_dependency(guard: Guard, seen: Seen) -> None:
    for _ in range(2):
        with pytest.raises(Late):
            await guard.attempt("redis", hang, Deadline.after(0.01))
    with pytest.raises(BreakerOpen):
        await guard.attempt("redis", answer, Deadline.after(1))
    assert [outcome for _, outcome in seen] == ["timeout", "timeout", "open"]


async def test_lateness_does_not_count_when_there_was_no_time_to_begin_with(guard: Guard) -> None:
    for _ in range(5):
        with pytest.raises(Late):
            await guard.attempt("redis", hang, Deadline.after(0.001))
    assert guard.breakers["redis"].state == "closed"


async def test_failures_trip_the_breaker_and_keep_their_type(guard: Guard) -> None:
    for _ in range(2):
        with pytest.raises(Unreachable):
            await guard.attempt("redis", refuse, Deadline.after(1))
    assert guard.breakers["redis"].state == "open"


async def test_a_cancelled_caller_counts_as_nothing_and_stays_a_cancellation(guard: Guard, seen: Seen) -> None:
    for _ in range(5):
        task = asyncio.create_task(guard.attempt("redis", hang, Deadline.after(1)))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    assert guard.breakers["redis"].state == "closed"
    assert {outcome for _, outcome in seen} == {"cancelled"}


async def test_a_bug_passes_through_and_says_nothing_of_the_dependency(guard: Guard) -> None:
    async def bug() -> int:
        raise ZeroDivisionError

    for _ in range(5):
        with pytest.raises(ZeroDivisionError):
            await guard.attempt("redis", bug, Deadline.after(1))
    assert guard.breakers["redis"].state == "closed"
