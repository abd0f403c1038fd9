"""The time that belongs to the data.

A live dataset's now is the wall clock. A dataset that ended years ago is replayed: everybody goes on from their last
event, as if it had happened when the bundle was published. All times are UTC seconds since the epoch, as float.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol


class Clock(Protocol):
    def now(self, last_event: float | None) -> float:
        """The request's moment for a user whose last known event was then, or who has none."""
        ...

    def at(self, wall: float, last_event: float | None) -> float:
        """A wall-clock moment, UTC seconds, on this clock, for the same user."""
        ...


@dataclass(frozen=True, slots=True)
class LiveClock:
    """Now is now. ``wall`` is injected by tests."""

    wall: Callable[[], float] = field(default=time.time, repr=False)

    def now(self, last_event: float | None) -> float:
        return self.at(self.wall(), last_event)

    def at(self, wall: float, last_event: float | None) -> float:
        del last_event
        return wall


@dataclass(frozen=True, slots=True)
class ReplayClock:
    """A user's now is their last event plus the real time since publishing.

    ``ended_at`` is the dataset's last event, from which users without events go on. At least one second passes, so
    that a user's own last event always lies in an earlier second than the request.
    """

    published_at: float
    ended_at: float
    wall: Callable[[], float] = field(default=time.time, repr=False)

    def now(self, last_event: float | None) -> float:
        return max(self.at(self.wall(), last_event), self.at(self.published_at + 1.0, last_event))

    def at(self, wall: float, last_event: float | None) -> float:
        elapsed = max(0.0, wall - self.published_at)  # what came before the publication happened at it
        return (self.ended_at if last_event is None else last_event) + elapsed
