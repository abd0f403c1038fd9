"""What wraps every call to a dependency: breaker, deadline, timer and counter, in one place."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable, Mapping
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

    async def attempt(self, name: str, work: Callable[[], Awaitable[T]], deadline: Deadline) -> T:
        """What ``work()`` returns, by ``deadline``; raises ``DependencyError``, or whatever bug ``work`` has."""
        fair = deadline.remaining >= self._fair_seconds[name] / 2  # enough to blame the dependency for lateness
        probe = self._admitted(name)
        if not probe:
            return await self._made(name, probe, work, deadline, fair=fair)
        beside = asyncio.create_task(self._probed(name, probe, work, deadline, fair=fair))
        self._probes.add(beside)  # the loop holds its tasks weakly
        beside.add_done_callback(self._probes.discard)
        raise self._refused(name)

    def compute(self, name: str, work: Callable[[], T]) -> T:
        """The same for what computes in line: nothing interrupts it, so it has no timer. It may be slow, never late."""
        probe = self._admitted(name)
        started = self.clock()
        try:
            given = work()
        except BaseException as error:
            self._ended(name, probe, started, error, fair=False)
            raise
        self._ended(name, probe, started, None, fair=False)
        return given

    async def _made(
        self, name: str, probe: int, work: Callable[[], Awaitable[T]], deadline: Deadline, *, fair: bool
    ) -> T:
        started = self.clock()
        try:
            async with deadline.timeout():
                given = await work()
        except TimeoutError as error:
            late = Late(name)
            self._ended(name, probe, started, late, fair=fair)
            raise late from error
        except BaseException as error:
            self._ended(name, probe, started, error, fair=fair)
            raise
        self._ended(name, probe, started, None, fair=fair)
        return given

    async def _probed(
        self, name: str, probe: int, work: Callable[[], Awaitable[object]], deadline: Deadline, *, fair: bool
    ) -> None:
        """Only the breaker wants to know how it ended."""
        try:
            await self._made(name, probe, work, deadline, fair=fair)
        except DependencyError:
            return
        except Exception:  # noqa: BLE001  # no request hears of it
            _log.exception("a probe of %s failed by itself", name)

    def _admitted(self, name: str) -> int:
        """Take a place, or raise ``BreakerOpen``. The round of the probe that this call is; 0 if it is none."""
        if name in self.held:
            raise self._refused(name)
        try:
            return self.breakers[name].admit()
        except BreakerOpen:
            raise self._refused(name) from None

    def _refused(self, name: str) -> BreakerOpen:
        self.observe(name, BreakerOpen.cause, 0.0)
        return BreakerOpen(name)

    def _ended(self, name: str, probe: int, started: float, error: BaseException | None, *, fair: bool) -> None:
        """Tell the breaker and the observer how a call ended."""
        breaker, seconds = self.breakers[name], self.clock() - started
        if error is None and not (breaker.slow(seconds) and self.behind(name)):
            breaker.succeed(seconds, probe=probe)
        elif isinstance(error, DependencyError) and self._blames(name, error, fair=fair):
            breaker.fail(probe=probe)
        else:
            breaker.forget(probe=probe)
        self.observe(name, _outcome(error), seconds)

    def _blames(self, name: str, error: DependencyError, *, fair: bool) -> bool:
        return fair and not self.behind(name) if isinstance(error, Late) else error.is_fault


def _outcome(error: BaseException | None) -> str:
    if isinstance(error, DependencyError):
        return error.cause
    if error is None:
        return "ok"
    return "cancelled" if isinstance(error, asyncio.CancelledError) else "bug"
