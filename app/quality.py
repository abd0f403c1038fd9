"""How many candidates are ranked: fewer when answers come late, before anybody gets less than a ranked slate.

The quality factor of Twitter's Product Mixer: ``q += d`` for a request on time, ``q -= d * p / (100 - p)`` for a late
one. It stands still when ``p`` percent are on time, so it holds that percentile at the target. Once nothing has been
late for ``calm_seconds`` it also rises with time, or a peak would be felt for as long as a quiet hour has requests.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class QualityPolicy:
    """``target_seconds`` for ``percentile`` of the requests; ``step`` is ``d``."""

    target_seconds: float = 0.045
    percentile: float = 95.0
    step: float = 0.001
    least: float = 0.2
    whole: float = 0.9  # from here on nothing is narrowed, so that a few late requests change no answer
    calm_seconds: float = 1.0
    recovery_per_second: float = 0.25  # from the least to the whole in 3 s

    def __post_init__(self) -> None:
        if not (0 < self.percentile < 100 and 0 < self.least <= self.whole <= 1 and self.target_seconds > 0):
            raise ValueError(f"quality policy makes no sense: {self}")


@dataclass(slots=True)
class Quality:
    """The factor, from ``least`` to 1."""

    policy: QualityPolicy
    clock: Callable[[], float] = time.monotonic
    _held: float = 1.0
    _rises_at: float = 0.0  # from when on it also rises with time

    @property
    def factor(self) -> float:
        """The factor as of now."""
        calm = max(0.0, self.clock() - self._rises_at)
        return min(1.0, self._held + calm * self.policy.recovery_per_second)

    def on_sample(self, seconds: float, in_flight: int) -> None:
        """A request took the full path. One that had the process to itself tells nothing of load."""
        if in_flight <= 1:
            return
        policy, now, factor = self.policy, self.clock(), self.factor
        if seconds > policy.target_seconds:
            self._rises_at = now + policy.calm_seconds
            factor -= policy.step * policy.percentile / (100.0 - policy.percentile)
        else:
            self._rises_at = max(self._rises_at, now)
            factor += policy.step
        self._held = min(1.0, max(policy.least, factor))

    def narrowed(self, n: int) -> int:
        """How many of ``n`` candidates may be ranked now."""
        factor = self.factor
        return n if factor >= self.policy.whole else max(1, math.ceil(n * factor))
