"""Circuit breaking: stop asking what keeps failing, and find out carefully when it works again.

    closed     every call goes through. A share of failed or slow ones of ``threshold_ratio`` opens it: among those of
               the last ``window_seconds``, ``minimum_calls`` at least, and as far back only as makes ``window_calls``
               of them, or ``recent_seconds``.
    open       nobody goes through for ``open_seconds``, with jitter; the time doubles with each failed probing, up to
               ``open_seconds_limit``.
    half_open  at most ``probes`` calls are in flight at once; that many successes in a row close it, one failure opens.

pybreaker holds the state, names it and tells its listeners; it is asked for nothing else, because on its own it counts
consecutive failures on the wall clock, lets everyone through when half open and takes a cancellation for a fault.
Single-threaded: used from one event loop.
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import pybreaker

from domain.errors import BreakerOpen

NEVER = 1_000_000_000
MAX_DOUBLINGS = 30  # an outage may outlast what a float can double


@dataclass(frozen=True, slots=True)
class BreakerPolicy:
    """When to trip and when to try again. Times are in seconds."""

    window_seconds: float = 10.0
    window_calls: int = 60  # so that it is not 5 s until half of 10 s have failed,
    recent_seconds: float = 2.0  # nor a burst of a quarter of a second enough, where hundreds come in one
    minimum_calls: int = 20
    threshold_ratio: float = 0.5
    slow_seconds: float = float("inf")
    open_seconds: float = 0.25
    open_seconds_limit: float = 1.0  # with jitter, two probings fit into the 3 s that a recovery may take
    probes: int = 3

    def __post_init__(self) -> None:
        if not (0 < self.threshold_ratio <= 1 and 0 < self.minimum_calls <= self.window_calls and self.probes > 0):
            raise ValueError(f"breaker policy makes no sense: {self}")


@dataclass(slots=True)
class _Window:
    """The latest calls, and how many of them were faults."""

    policy: BreakerPolicy
    faults: int = 0
    _latest: deque[tuple[float, bool]] = field(default_factory=deque)  # when, and whether it was a fault

    def add(self, now: float, *, fault: bool) -> None:
        self._latest.append((now, fault))
        self.faults += fault
        while self._outdated(now - self._latest[0][0]):
            self.faults -= self._latest.popleft()[1]

    def _outdated(self, age: float) -> bool:
        """Whether a call so many seconds ago no longer counts, if it is the oldest."""
        policy, enough = self.policy, len(self._latest) > self.policy.window_calls
        return age >= policy.window_seconds or (enough and age >= policy.recent_seconds)

    def __len__(self) -> int:
        return len(self._latest)


class Breaker:
    """One dependency's breaker. ``admit`` before a call; then exactly one of ``succeed``, ``fail`` and ``forget``."""

    def __init__(
        self,
        name: str,
        policy: BreakerPolicy,
        *,
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
        listeners: tuple[pybreaker.CircuitBreakerListener, ...] = (),
    ) -> None:
        self.name = name
        self.policy = policy
        self._clock = clock
        self._jitter = jitter
        self.state: str = pybreaker.STATE_CLOSED  # the machine's, which takes three calls to ask
        self._machine = pybreaker.CircuitBreaker(fail_max=NEVER, name=name, listeners=list(listeners))
        self._window = _Window(policy)
        self._reopen_at = 0.0
        self._failed_probings = 0
        self._round = 0  # of probing; a probe of an earlier one says nothing about this one
        self._probing = 0
        self._probed = 0

    def admit(self) -> int:
        """Take a place, or raise ``BreakerOpen``. The round this call probes in, or 0: pass it back at the end."""
        if self.state == pybreaker.STATE_CLOSED:
            return 0
        if self.state == pybreaker.STATE_OPEN:
            if self._clock() < self._reopen_at:
                raise BreakerOpen(self.name)
            self._round, self._probing, self._probed = self._round + 1, 0, 0
            self.state = pybreaker.STATE_HALF_OPEN
            self._machine.half_open()
        if self._probing >= self.policy.probes:
            raise BreakerOpen(self.name)
        self._probing += 1
        return self._round

    def slow(self, seconds: float) -> bool:
        """Whether an answer after ``seconds`` is as bad as none."""
        return seconds > self.policy.slow_seconds

    def succeed(self, seconds: float, *, probe: int) -> None:
        """The call answered after ``seconds``; slow is as bad as wrong."""
        if self.slow(seconds):
            self.fail(probe=probe)
        elif not probe:
            self._window.add(self._clock(), fault=False)
        elif self._asks_for(probe):
            self._probing -= 1
            self._probed += 1
            if self._probed >= self.policy.probes:
                self._close()

    def fail(self, *, probe: int) -> None:
        """The call failed or came too late."""
        if self._asks_for(probe):
            self._failed_probings += 1
            self._open()
        elif not probe and self.state == pybreaker.STATE_CLOSED:
            self._window.add(self._clock(), fault=True)
            calls = len(self._window)
            if calls >= self.policy.minimum_calls and self._window.faults >= self.policy.threshold_ratio * calls:
                self._open()

    def forget(self, *, probe: int) -> None:
        """The caller went away: that says nothing about the dependency."""
        if self._asks_for(probe):
            self._probing -= 1

    def _asks_for(self, probe: int) -> bool:
        """Whether it is a probe of the round that goes on now."""
        return probe == self._round and self.state == pybreaker.STATE_HALF_OPEN

    def _open(self) -> None:
        doubled = self.policy.open_seconds * 2.0 ** min(self._failed_probings, MAX_DOUBLINGS)
        pause = min(doubled, self.policy.open_seconds_limit)
        self._reopen_at = self._clock() + pause * (0.75 + 0.5 * self._jitter())
        self.state = pybreaker.STATE_OPEN
        self._machine.open()

    def _close(self) -> None:
        self._failed_probings = 0
        self._window = _Window(self.policy)
        self.state = pybreaker.STATE_CLOSED
        self._machine.close()

    def __repr__(self) -> str:
        seen = self._window
        return f"<Breaker {self.name} {self.state}: {seen.faults} of {len(seen)} calls failed>"
