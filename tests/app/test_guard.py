import asyncio
import functools
from collections.abc import Callable

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


class HalfOpen:
    """A guard whose breaker for ``redis`` has just become half open, and a call that waits at a gate."""

    def __init__(self) -> None:
        self.asked, self.gate, self.seen = 0, asyncio.Event(), Seen()
        now = [0.0]
        policy = BreakerPolicy(minimum_calls=2, probes=3)
        self.breaker = Breaker("redis", policy, clock=lambda: now[0], jitter=lambda: 0.5)
        self.guard = Guard({"redis": self.breaker}, {"redis": 0.01}, self.seen)
        for _ in range(2):
            self.breaker.fail(probe=0)
        now[0] += policy.open_seconds * 1.01

    async def wait(self) -> int:
        self.asked += 1
        await self.gate.wait()
        return 42

    async def until(self, come: Callable[[], bool]) -> None:
        async with asyncio.timeout(10):
            while not come():  # noqa: ASYNC110 - states have no event
                await asyncio.sleep(0.001)


async def test_half_open_lets_three_of_200_concurrent_callers_through_and_makes_none_of_them_wait() -> None:
    half = HalfOpen()
    callers = [half.guard.attempt("redis", half.wait, Deadline.after(60)) for _ in range(200)]
    told = await asyncio.gather(*callers, return_exceptions=True)
    assert sum(isinstance(one, BreakerOpen) for one in told) == 200
    await asyncio.sleep(0)
    assert (half.asked, half.breaker.state) == (3, "half-open")
    half.gate.set()
    await half.until(lambda: half.breaker.state == "closed")
    assert await half.guard.attempt("redis", answer, Deadline.after(1)) == 42
    assert half.seen == [("redis", "open")] * 200 + [("redis", "ok")] * 4


async def test_a_probe_that_hangs_costs_its_request_nothing_and_opens_the_breaker_again() -> None:
    half = HalfOpen()
    with pytest.raises(BreakerOpen):
        await half.guard.attempt("redis", hang, Deadline.after(0.02))
    await half.until(lambda: half.breaker.state == "open")
    assert half.seen == [("redis", "open"), ("redis", "timeout")]


async def test_a_probe_outlives_the_request_that_brought_it() -> None:
    half = HalfOpen()
    asking = asyncio.create_task(half.guard.attempt("redis", half.wait, Deadline.after(60)))
    await asyncio.wait({asking})
    half.gate.set()
    await half.until(lambda: half.seen[-1] == ("redis", "ok"))
    assert half.breaker.state == "half-open"


async def test_a_bug_in_a_probe_is_told_and_gives_its_place_back(caplog: pytest.LogCaptureFixture) -> None:
    async def bug() -> int:
        raise ZeroDivisionError

    half = HalfOpen()
    for _ in range(10):
        with pytest.raises(BreakerOpen):
            await half.guard.attempt("redis", bug, Deadline.after(1))
        await asyncio.sleep(0)
    assert caplog.messages.count("a probe of redis failed by itself") == 10


async def test_a_dependency_that_is_slow_half_of_the_time_is_left_alone() -> None:
    now = [0.0]
    policy = BreakerPolicy(minimum_calls=4, slow_seconds=0.07)
    breaker = Breaker("ranking", policy, clock=lambda: now[0])
    guard = Guard({"ranking": breaker}, {"ranking": 0.08}, Seen(), clock=lambda: now[0])

    async def take(seconds: float) -> float:
        now[0] += seconds
        return seconds

    for seconds in (0.01, 0.075, 0.01):
        await guard.attempt("ranking", functools.partial(take, seconds), Deadline.after(60))
    assert breaker.state == "closed"
    await guard.attempt("ranking", lambda: take(0.075), Deadline.after(60))
    assert breaker.state == "open"


@pytest.mark.parametrize(("standing", "state"), [(0.002, "open"), (0.003, "closed")])
async def test_what_is_late_or_slow_while_the_loop_is_behind_says_nothing(standing: float, state: str) -> None:
    breaker = Breaker("redis", BreakerPolicy(minimum_calls=4, slow_seconds=0.001))
    guard = Guard({"redis": breaker}, {"redis": 0.01}, Seen(), standing=lambda: standing)

    async def slow() -> None:
        await asyncio.sleep(0.005)

    for _ in range(2):
        with pytest.raises(Late):
            await guard.attempt("redis", hang, Deadline.after(0.05))
        await guard.attempt("redis", slow, Deadline.after(60))
    assert breaker.state == state
