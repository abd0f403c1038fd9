"""How many requests may be on the full path at once: found out from how long they take.

TCP Vegas (Brakmo and Peterson, 1995), as Netflix's concurrency-limits has it, with its thresholds in seconds of waiting
instead of numbers of requests: by Little's law a fast service then gets a longer queue than a slow one, and what is
bounded is what the deadline bounds, time.

    waiting = seconds of a request - seconds of the fastest one lately ("no load")

    waiting < alpha / 2         limit += 1 a sample             far from full: doubles with each round
    alpha / 2 .. alpha          limit += 1 / limit a sample     one more a round
    alpha .. beta               stays
    waiting > beta              limit -= 0.1 a sample           a tenth less a round
    a failure                   limit *= 0.9, at most once in ``calm_seconds``, and only beside successes: where nothing
                                succeeds, something is broken, and fewer requests would not mend it

Where nothing succeeds it is as it was at the beginning at least, by the same reasoning: who waits for what hangs still
needs a place. An answer that the ranker had no part in may shrink it and never lets it grow: while a breaker keeps
everybody from a ranker that has too much to do, answers are fast, and a limit grown by them would be the next flood
once it closes.

Growing fast takes samples that began at the limit: an earlier one waited for fewer than the limit lets in.
It grows only while at least half of it is in use. Under a steady overload every request waits, and the fastest one
would say that waiting is normal; so every ``probe_seconds`` "no load" is measured anew, on requests that began with a
quarter of the limit in flight at most. A service at ease has those anyway; where there are none, the limit is cut to
that quarter until there are, for a second at most (BBR does the same: Cardwell et al., 2016).
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from enum import Enum

PROBE_SHARE = 0.25
PROBE_SAMPLES = 4
PROBE_MOST_SECONDS = 1.0  # what breaks in the middle of a probe must not be met with a quarter of the places
QUIET_SECONDS = 0.2
FULLY_USED = 0.9


class Outcome(Enum):
    """How a request ended, as far as it tells of load."""

    SUCCESS = "success"
    ASIDE = "aside"  # in time, but something was waited for in vain, or the ranker was not asked
    FAILURE = "failure"  # there was not enough time for it
    IGNORE = "ignore"  # it says nothing: the caller left, or it was no full path


@dataclass(frozen=True, slots=True)
class LimitPolicy:
    """Where the limit begins and ends, and how long a request may wait. Times are in seconds."""

    initial: float = 8.0
    least: float = 2.0
    most: float = 200.0
    alpha_seconds: float = 0.030
    beta_seconds: float = 0.060
    probe_seconds: float = 10.0
    calm_seconds: float = 0.1

    def __post_init__(self) -> None:
        if not (1 <= self.least <= self.initial <= self.most and 0 < self.alpha_seconds <= self.beta_seconds):
            raise ValueError(f"limit policy makes no sense: {self}")


@dataclass(slots=True)
class Vegas:
    """The limit. ``on_sample`` is pure but for what is held here; the clock is injected."""

    policy: LimitPolicy = field(default_factory=LimitPolicy)
    clock: Callable[[], float] = time.monotonic
    estimate: float = field(init=False)
    no_load: float = math.inf
    _probe_at: float = field(init=False)
    _probe_ends: float = -math.inf
    _alone: list[float] = field(default_factory=list)  # the last few that began with hardly anybody in flight
    _cut_at: float = -math.inf
    _succeeded_at: float = -math.inf

    def __post_init__(self) -> None:
        self.estimate = self.policy.initial
        self._probe_at = self.clock() + self.policy.probe_seconds

    @property
    def limit(self) -> int:
        """How many may be in flight now."""
        if not self.succeeding:
            return int(max(self.estimate, self.policy.initial))
        return self._probe_limit if self._probing else int(self.estimate)

    @property
    def _probing(self) -> bool:
        return self.clock() < self._probe_ends

    @property
    def _probe_limit(self) -> int:
        return max(1, int(self.estimate * PROBE_SHARE))

    @property
    def succeeding(self) -> bool:
        """Whether the full path has succeeded just now. Where not, what fails is broken, not crowded."""
        return self.clock() - self._succeeded_at <= QUIET_SECONDS

    def on_sample(self, seconds: float, in_flight: int, outcome: Outcome) -> None:
        """A request ended after ``seconds``; ``in_flight`` were there when it began, itself included."""
        now = self.clock()
        if outcome is Outcome.SUCCESS:
            self._succeeded_at = now
            self._measure(now, seconds, in_flight)
            self._follow(seconds - self.no_load, in_flight)
        elif outcome is Outcome.ASIDE and seconds - self.no_load > self.policy.beta_seconds:
            self._shrink()
        elif outcome is Outcome.FAILURE and self.succeeding:
            self._cut(now)

    def _measure(self, now: float, seconds: float, in_flight: int) -> None:
        self.no_load = min(self.no_load, seconds)
        if in_flight <= self._probe_limit:
            self._alone = [*self._alone[1 - PROBE_SAMPLES :], seconds]
        if not self._probing and now < self._probe_at:
            return
        if len(self._alone) == PROBE_SAMPLES:
            self.no_load, self._probe_ends, self._probe_at = min(self._alone), now, now + self.policy.probe_seconds
            self._alone = []
        elif not self._probing:
            self._probe_ends, self._probe_at = now + PROBE_MOST_SECONDS, now + self.policy.probe_seconds
            self._alone = []

    def _follow(self, waiting: float, in_flight: int) -> None:
        policy = self.policy
        if waiting > policy.beta_seconds:
            self._shrink()
        elif waiting < policy.alpha_seconds and in_flight * 2 >= self.estimate and not self._probing:
            fast = waiting < policy.alpha_seconds / 2 and in_flight >= FULLY_USED * self.estimate
            self.estimate = min(self.estimate + (1.0 if fast else 1.0 / self.estimate), policy.most)

    def _shrink(self) -> None:
        self.estimate = max(self.estimate - 0.1, self.policy.least)

    def _cut(self, now: float) -> None:
        if now - self._cut_at >= self.policy.calm_seconds:
            self.estimate, self._cut_at = max(self.estimate * 0.9, self.policy.least), now
