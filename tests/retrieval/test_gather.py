import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

import numpy as np
import pytest

from app.guard import Guard
from domain.candidates import Candidates
from domain.deadline import Deadline
from domain.errors import BadAnswer, DependencyError, Late, Unreachable
from domain.request import Context, Request
from domain.stages import Source
from domain.user import UserFeatures
from fallbacks.breakers import Breaker, BreakerPolicy
from retrieval.computed import Impersonal, Personal
from retrieval.executor import BoundedExecutor
from retrieval.gather import gather

T = TypeVar("T")
REQUEST = Request("1", 0, 20, Context(), 0.0)


async def attempt(name: str, work: Callable[[], Awaitable[T]], deadline: Deadline) -> T:
    try:
        async with deadline.timeout():
            return await work()
    except TimeoutError as error:
        raise Late(name) from error


def compute(name: str, work: Callable[[], T]) -> T:
    del name
    return work()


class Says:
    def __init__(self, name: str, *rows: int) -> None:
        self.name, self.rows = name, rows

    async def retrieve(self, request, user, deadline) -> Candidates:
        return Candidates.proposed(np.array(self.rows, np.int32), np.ones(len(self.rows), np.float32))


class Hangs(Says):
    async def retrieve(self, request, user, deadline) -> Candidates:
        await asyncio.shield(user)
        await asyncio.Event().wait()
        raise AssertionError


class Fails(Says):
    def __init__(self, name: str, error: Exception) -> None:
        super().__init__(name)
        self.error = error

    async def retrieve(self, request, user, deadline) -> Candidates:
        raise self.error


async def ask(*sources: Source, seconds: float = 0.02):
    async def read() -> UserFeatures:
        return None  # type: ignore[return-value]  # these sources only wait for it

    user = asyncio.create_task(read())
    found = await gather(sources, attempt, compute, REQUEST, user, Deadline.after(seconds))
    return found, user


async def test_a_slow_source_is_left_behind() -> None:
    found, _ = await ask(Says("a", 1, 2), Hangs("b"), Says("c", 3))
    assert [(f.source, f.candidates.item_row.tolist(), f.cause) for f in found] == [
        ("a", [1, 2], None),
        ("b", [], "timeout"),
        ("c", [3], None),
    ]


async def test_a_source_that_is_cut_off_does_not_cancel_the_users_read() -> None:
    read_may_end = asyncio.Event()

    async def read() -> str:
        await read_may_end.wait()
        return "the user"

    user = asyncio.create_task(read())
    await gather([Hangs("a")], attempt, compute, REQUEST, user, Deadline.after(0.005))  # type: ignore[arg-type]
    read_may_end.set()
    assert await user == "the user"


class Knows(Personal):
    """Answers once the user is known, and writes down that it was asked."""

    def __init__(self, name: str, row: int, asked: list[str]) -> None:
        self.name, self.row, self.asked = name, row, asked

    def propose(self, request, user) -> Candidates:
        self.asked.append(self.name)
        return Candidates.proposed(np.array([self.row], np.int32), np.ones(1, np.float32))


class SaysAtOnce(Impersonal):
    def __init__(self, name: str, *rows: int) -> None:
        self.name, self.rows = name, rows

    def propose(self, request) -> Candidates:
        return Candidates.proposed(np.array(self.rows, np.int32), np.ones(len(self.rows), np.float32))


async def test_sources_that_compute_are_asked_one_after_the_other_and_answer_in_the_given_order() -> None:
    asked: list[str] = []
    found, _ = await ask(Knows("a", 1, asked), Says("b", 2), Knows("c", 3, asked), SaysAtOnce("d", 4))
    assert [(f.source, f.candidates.item_row.tolist()) for f in found] == [
        ("a", [1]),
        ("b", [2]),
        ("c", [3]),
        ("d", [4]),
    ]
    assert asked == ["a", "c"]


async def test_a_source_that_needs_no_user_answers_when_the_users_read_hangs() -> None:
    async def never() -> UserFeatures:
        await asyncio.Event().wait()
        raise AssertionError

    user, asked = asyncio.create_task(never()), list[str]()
    sources: list[Source] = [Knows("a", 1, asked), Knows("b", 2, asked), SaysAtOnce("c", 3)]
    found = await gather(sources, attempt, compute, REQUEST, user, Deadline.after(0.01))
    assert [(f.source, f.cause) for f in found] == [("a", "timeout"), ("b", "timeout"), ("c", None)]
    assert not user.done()
    user.cancel()


async def test_waiting_for_the_user_is_no_time_of_a_source() -> None:
    now, asked, took = [0.0], list[str](), list[float]()

    async def read() -> UserFeatures:
        await asyncio.sleep(0)
        now[0] += 0.036  # what Redis and a busy loop took
        return None  # type: ignore[return-value]  # nobody looks at it

    breaker = Breaker("a", BreakerPolicy(minimum_calls=1, slow_seconds=0.035), clock=lambda: now[0])
    guard = Guard({"a": breaker}, {"a": 0.04}, lambda *told: took.append(told[2]), clock=lambda: now[0])
    for _ in range(3):
        user = asyncio.create_task(read())
        found = await gather([Knows("a", 1, asked)], attempt, guard.compute, REQUEST, user, Deadline.after(5))
        assert found[0].cause is None
    assert (breaker.state, took) == ("closed", [0.0, 0.0, 0.0])


async def test_a_source_that_computes_fails_alone_and_is_left_alone_once_its_breaker_is_open() -> None:
    class Broken(Knows):
        def propose(self, request, user) -> Candidates:
            super().propose(request, user)
            raise BadAnswer(self.name)

    asked: list[str] = []
    guard = Guard({name: Breaker(name, BreakerPolicy(minimum_calls=2)) for name in "ab"}, {}, lambda *_: None)

    async def read() -> UserFeatures:
        return None  # type: ignore[return-value]  # nobody looks at it

    causes = []
    for _ in range(3):
        user, sources = asyncio.create_task(read()), [Broken("a", 1, asked), Knows("b", 2, asked)]
        found = await gather(sources, guard.attempt, guard.compute, REQUEST, user, Deadline.after(5))
        causes.append([answer.cause for answer in found])
    assert causes == [["bad_answer", None], ["bad_answer", None], ["open", None]]
    assert asked == ["a", "b", "a", "b", "b"]


async def test_a_source_that_hangs_holds_up_none_that_computes() -> None:
    asked: list[str] = []
    found, _ = await ask(Hangs("a"), Knows("b", 1, asked))
    assert [(f.source, f.cause) for f in found] == [("a", "timeout"), ("b", None)]


@pytest.mark.parametrize(("error", "cause"), [(Unreachable("x"), "unavailable"), (DependencyError("x"), "error")])
async def test_a_failing_source_becomes_a_reason(error: Exception, cause: str) -> None:
    found, _ = await ask(Fails("a", error), Says("b", 1))
    assert [f.cause for f in found] == [cause, None]


async def test_a_bug_in_a_source_is_not_taken_for_a_failure() -> None:
    with pytest.raises(ExceptionGroup) as bug:
        await ask(Fails("a", ZeroDivisionError()), Hangs("b"), seconds=5)
    assert bug.group_contains(ZeroDivisionError)


async def test_a_full_executor_is_a_late_source() -> None:
    import threading

    gate = threading.Event()
    executor = BoundedExecutor(threads=1, waiting=1)
    loop = asyncio.get_running_loop()
    try:
        waiting = [loop.run_in_executor(executor, gate.wait) for _ in range(2)]
        with pytest.raises(Late):
            loop.run_in_executor(executor, gate.wait)
        gate.set()
        assert await asyncio.gather(*waiting) == [True, True]
        assert await loop.run_in_executor(executor, gate.wait) is True
    finally:
        executor.shutdown()
