"""What wraps every call to a dependency: breaker, deadline, timer and counter, in one place."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from typing import Protocol, TypeVar

from domain.deadline import Deadline
from domain.errors import BreakerOpen, DependencyError, Late
from fallbacks.breakers import Breaker

T = TypeVar("T")

STANDING_SHARE = 0.25  # of the time a dependency is given: with the loop so late, what is late may be the loop's doing

_log = logging.getLogger("streamrec.guard")


class Observer(Protocol):
    """Told of every guarded call: the dependency, how it ended (``ok`` or a cause) and the seconds it took."""

    def __call__(self, name: str, outcome: str, seconds: float) -> None: ...


class Guard:
    """One breaker a dependency; ``attempt`` is the only way to call one, ``compute`` for what waits for nobody.

    The timeout lies inside the breaker, so that lateness counts against the dependency. A caller's cancellation counts
    as nothing and keeps its type. A call granted less than half of the dependency's ``fair_seconds`` says nothing about
    it either, when late: the time was spent before it. Nor does one that is late or slow while this process has not the
    CPU to look at its answer: ``standing()`` is the delay of its event loop, in seconds.

    A probe of a half-open breaker runs beside the request that brought it, which is told at once that the breaker is
    open: nobody waits for what was broken a moment ago, and may still hang. What computes in line is its own probe.
    """

    def __init__(
        self,
        breakers: Mapping[str, Breaker],
        fair_seconds: Mapping[str, float],
        observe: Observer,
        *,
        clock: Callable[[], float] = time.monotonic,
        standing: Callable[[], float] = lambda: 0.0,
    ) -> None:
        self.breakers = breakers
        self.held: frozenset[str] = frozenset()  # by an operator's order: not asked, whatever the breaker says
        self._fair_seconds = fair_seconds
        self.observe = observe
        self.clock = clock
        self._standing = standing
        self._probes: set[asyncio.Task[None]] = set()

    def hold(self, names: frozenset[str]) -> None:
        """Ask these no more, and the others again."""
        self.held = names

    def behind(self, name: str) -> bool:
        """Whether what seems slow about a dependency may be this process's own delay."""
        return self._standing() > self._fair_seconds[name] * STANDING_SHARE

    def admitted(self, name: str) -> int:
        """Take a place, or raise ``BreakerOpen``. The round of the probe that this call is; 0 if it is none."""
        if name in self.held:
            raise BreakerOpen(name)
        return self.breakers[name].admit()

    async def attempt(self, name: str, work: Callable[[], Awaitable[T]], deadline: Deadline) -> T:
        """What ``work()`` returns, by ``deadline``; raises ``DependencyError``, or whatever bug ``work`` has."""
        call = _Call(self, name, fair=deadline.remaining >= self._fair_seconds[name] / 2)
        call.admit()
        if not call.probe:
            return await _made(call, work, deadline)
        beside = asyncio.create_task(_probed(call, work, deadline))
        self._probes.add(beside)  # the loop holds its tasks weakly
        beside.add_done_callback(self._probes.discard)
        self.observe(name, BreakerOpen.cause, 0.0)
        raise BreakerOpen(name)

    def compute(self, name: str, work: Callable[[], T]) -> T:
        """The same for what computes in line: nothing interrupts it, so it has no timer. It may be slow, never late."""
        call = _Call(self, name, fair=False)
        call.admit()
        with call:
            return work()


@dataclass(slots=True, eq=False)
class _Call:
    """One call: asks the breaker before it, tells it and the observer after it. Whatever is raised passes."""

    guard: Guard
    name: str
    fair: bool  # whether the time granted was enough to blame the dependency for lateness
    probe: int = 0
    started: float = 0.0

    def admit(self) -> None:
        """Before ``with``: take a place, or raise ``BreakerOpen``."""
        try:
            self.probe = self.guard.admitted(self.name)
        except BreakerOpen as error:
            self.guard.observe(self.name, error.cause, 0.0)
            raise

    def __enter__(self) -> None:
        self.started = self.guard.clock()

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        breaker, seconds = self.guard.breakers[self.name], self.guard.clock() - self.started
        if error is None and not (breaker.slow(seconds) and self.guard.behind(self.name)):
            breaker.succeed(seconds, probe=self.probe)
        elif isinstance(error, DependencyError) and self._blames(error):
            breaker.fail(probe=self.probe)
        else:
            breaker.forget(probe=self.probe)
        self.guard.observe(self.name, _outcome(error), seconds)

    def _blames(self, error: DependencyError) -> bool:
        return self.fair and not self.guard.behind(self.name) if isinstance(error, Late) else error.is_fault


async def _made(call: _Call, work: Callable[[], Awaitable[T]], deadline: Deadline) -> T:
    with call:
        try:
            async with deadline.timeout():
                return await work()
        except TimeoutError as error:
            raise Late(call.name) from error


async def _probed(call: _Call, work: Callable[[], Awaitable[object]], deadline: Deadline) -> None:
    """Only the breaker wants to know how it ended."""
    try:
        await _made(call, work, deadline)
    except DependencyError:
        return
    except Exception:  # noqa: BLE001  # no request hears of it
        _log.exception("a probe of %s failed by itself", call.name)


def _outcome(error: BaseException | None) -> str:
    if isinstance(error, DependencyError):
        return error.cause
    if error is None:
        return "ok"
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "bug"
