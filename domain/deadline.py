"""One deadline a request, made at the door and passed down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on the monotonic clock, in seconds.

    A stage that may take at most 40 ms takes ``deadline.within(0.040)``: the earlier of the two. Nothing restarts
    a timeout of its own, so the sum of the stages can never exceed what the caller granted.
    """

    at: float
    clock: Callable[[], float] = field(default=time.monotonic, repr=False, compare=False)

    @classmethod
    def after(cls, seconds: float, clock: Callable[[], float] = time.monotonic) -> Deadline:
        """The deadline ``seconds`` from now."""
        return cls(clock() + seconds, clock)

    @property
    def remaining(self) -> float:
        """Seconds left; never negative."""
        return max(0.0, self.at - self.clock())

    @property
    def expired(self) -> bool:
        return self.clock() >= self.at

    def within(self, seconds: float) -> Deadline:
        """This deadline, or ``seconds`` from now if that is sooner."""
        return Deadline(min(self.at, self.clock() + seconds), self.clock)

    def earlier(self, seconds: float) -> Deadline:
        """This deadline brought forward by ``seconds``, to keep time for what comes after."""
        return Deadline(self.at - seconds, self.clock)

    def timeout(self) -> asyncio.Timeout:
        """``async with deadline.timeout():`` raises ``TimeoutError`` at the deadline."""
        return asyncio.timeout(self.remaining)
