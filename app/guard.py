"""What wraps every call to a dependency: breaker, deadline, timer and counter, in one place."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Protocol, TypeVar

from domain.deadline import Deadline
from domain.errors import BreakerOpen, DependencyError, Late
from fallbacks.breakers import Breaker

T = TypeVar("T")


class Observer(Protocol):
    """Told of every guarded call: the dependency, how it ended (``ok`` or a cause) and the seconds it took."""

    def __call__(self, name: str, outcome: str, seconds: float) -> None: ...


class Guard:
    """One breaker a dependency; ``attempt`` is the only way to call one.

    The timeout lies inside the breaker, so that lateness counts against the dependency. A caller's cancellation counts
    as nothing and keeps its type. A call granted less than half of the dependency's ``fair_seconds`` says nothing about
    it either, when late: the time was spent before it.
    """

    def __init__(
        self,
        breakers: Mapping[str, Breaker],
        fair_seconds: Mapping[str, float],
        observe: Observer,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.breakers = breakers
        self.held: frozenset[str] = frozenset()  # by an operator's order: not asked, whatever the breaker says
        self._fair_seconds = fair_seconds
        self._observe = observe
        self._clock = clock

    def hold(self, names: frozenset[str]) -> None:
        """Ask these no more, and the others again."""
        self.held = names

    async def attempt(self, name: str, work: Callable[[], Awaitable[T]], deadline: Deadline) -> T:
        """What ``work()`` returns, by ``deadline``; raises ``DependencyError``, or whatever bug ``work`` has."""
        breaker = self.breakers[name]
        if name in self.held:
            self._observe(name, BreakerOpen.cause, 0.0)
            raise BreakerOpen(name)
        try:
            probe = breaker.admit()
        except BreakerOpen as error:
            self._observe(name, error.cause, 0.0)
            raise
        started, granted = self._clock(), deadline.remaining
        outcome = "bug"
        try:
            answer = await self._timed(name, work, deadline)
        except Late:
            outcome = Late.cause
            fair = granted >= self._fair_seconds[name] / 2
            breaker.fail(probe=probe) if fair else breaker.forget(probe=probe)
            raise
        except DependencyError as error:
            outcome = error.cause
            breaker.fail(probe=probe) if error.is_fault else breaker.forget(probe=probe)
            raise
        except BaseException as error:
            outcome = "cancelled" if isinstance(error, asyncio.CancelledError) else outcome
            breaker.forget(probe=probe)
            raise
        else:
            outcome = "ok"
            breaker.succeed(self._clock() - started, probe=probe)
            return answer
        finally:
            self._observe(name, outcome, self._clock() - started)

    @staticmethod
    async def _timed(name: str, work: Callable[[], Awaitable[T]], deadline: Deadline) -> T:
        try:
            async with deadline.timeout():
                return await work()
        except TimeoutError as error:
            raise Late(name) from error
