"""Who gets the full path, who the short one, and who is refused.

    full     while fewer requests are on the full path than the adaptive limit (``app.limit``) allows; a prefetch, while
             fewer than half of that are. Before the limit is reached, fewer candidates are ranked (``app.quality``).
    short    the precomputed lists: no I/O, so it takes no place anywhere.
    refused  past a second limit only: so many requests in the process at once, or a standing delay of the event loop,
             which is what a process without CPU to spare looks like from inside. A prefetch goes at half of both.

The door asks ``decide`` before it routes or reads anything, and leaves the answer in a context variable; a request
counts in the process when its body is there and takes its place on the full path when that begins, so that a caller who
sends a body slowly holds neither.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

from app.limit import LimitPolicy, Outcome, Vegas
from app.quality import Quality, QualityPolicy

PREFETCH_SHARE = 0.5
RETRY_SECONDS = 1
LOOKS = 3
TICK_SECONDS = 0.1 / LOOKS  # to be woken up for it is what a look costs, so there are no more of them


class Priority(StrEnum):
    """Who waits for the answer: a person, or nobody yet."""

    USER = "user"
    PREFETCH = "prefetch"

    @classmethod
    def named(cls, text: str | None) -> Priority:
        """What ``X-Request-Priority`` says; whatever is not a prefetch is for a person."""
        return cls.PREFETCH if text == cls.PREFETCH else cls.USER


class Path(StrEnum):
    """The three outcomes."""

    FULL = "full"
    SHORT = "short"
    REFUSED = "refused"


@dataclass(frozen=True, slots=True)
class Admitted:
    """What the door decided about the request that is being answered."""

    path: Path = Path.FULL
    priority: Priority = Priority.USER


ADMITTED: ContextVar[Admitted] = ContextVar("admitted", default=Admitted())  # noqa: B039 - frozen


class StandingDelay:
    """How late the event loop is, at least, over the last looks: a burst passes, a queue stands.

    The looks are three, over a tenth of a second; one that is overdue counts, because a loop with a second of work in
    hand looks once in a second. The minimum over an interval as the measure of a queue is CoDel's (Nichols and
    Jacobson, 2012).
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._late: deque[float] = deque(maxlen=LOOKS)
        self._due = float("inf")

    def on_sample(self, seconds: float) -> None:
        """The loop came ``seconds`` later than asked."""
        self._late.append(seconds)

    @property
    def seconds(self) -> float:
        """Zero where too little is known."""
        overdue = self._clock() - self._due
        looks = [*self._late, overdue][-LOOKS:] if overdue > TICK_SECONDS else self._late
        return min(looks) if len(looks) == LOOKS else 0.0

    async def watch(self) -> None:
        """Look for as long as the process lives."""
        while True:
            self._due = self._clock() + TICK_SECONDS
            await asyncio.sleep(TICK_SECONDS)
            self.on_sample(max(0.0, self._clock() - self._due))


class Observer(Protocol):
    """Told of every request's path, once: of a refusal at the door, of the other two where the full path begins."""

    def __call__(self, priority: str, path: str) -> None: ...


@dataclass(frozen=True, slots=True)
class AdmissionPolicy:
    """The adaptive limit, the narrowing before it, and the second limit."""

    limit: LimitPolicy = field(default_factory=LimitPolicy)
    quality: QualityPolicy = field(default_factory=QualityPolicy)
    most_in_process: int = 1000
    most_delay_seconds: float = 0.1


@dataclass(slots=True, eq=False)
class Admission:
    """One process's admission. Used from one event loop."""

    policy: AdmissionPolicy = field(default_factory=AdmissionPolicy)
    observe: Observer = lambda priority, path: None  # noqa: ARG005
    clock: Callable[[], float] = time.monotonic
    delay: StandingDelay = field(default_factory=StandingDelay)
    in_process: int = 0
    in_flight: int = 0  # on the full path
    limit: Vegas = field(init=False)
    quality: Quality = field(init=False)

    def __post_init__(self) -> None:
        self.limit = Vegas(self.policy.limit, self.clock)
        self.quality = Quality(self.policy.quality, self.clock)

    def decide(self, priority: Priority) -> Path:
        """Before anything is read: where this request may go."""
        share = PREFETCH_SHARE if priority is Priority.PREFETCH else 1.0
        crowded = self.in_process >= self.policy.most_in_process * share
        if crowded or self.delay.seconds > self.policy.most_delay_seconds * share:
            self.observe(priority, Path.REFUSED)
            return Path.REFUSED
        return Path.FULL if self._room(priority) else Path.SHORT

    @contextmanager
    def inside(self, admitted: Admitted, *, whole: bool = True) -> Iterator[Visit]:
        """Around all of a request that is not refused; one that is not ``whole`` yet counts once it says so."""
        visit = Visit(self)
        if whole:
            visit.arrived()
        token = ADMITTED.set(admitted)
        try:
            yield visit
        finally:
            ADMITTED.reset(token)
            self.in_process -= visit.counted

    def begin(self) -> Place | None:
        """A place on the full path for the request that is being answered, or None: then it is the short one."""
        admitted = ADMITTED.get()
        if admitted.path is not Path.FULL or not self._room(admitted.priority):
            self.observe(admitted.priority, Path.SHORT)
            return None
        self.observe(admitted.priority, Path.FULL)
        self.in_flight += 1
        return Place(self, self.in_flight, self.clock())

    def _room(self, priority: Priority) -> bool:
        limit: float = self.limit.limit
        return self.in_flight < (limit * PREFETCH_SHARE if priority is Priority.PREFETCH else limit)


@dataclass(slots=True)
class Visit:
    """One request in the process."""

    admission: Admission
    counted: bool = False

    def arrived(self) -> None:
        """All of it is here."""
        if not self.counted:
            self.counted = True
            self.admission.in_process += 1


@dataclass(slots=True)
class Place:
    """One request on the full path; ``end`` it exactly once."""

    admission: Admission
    in_flight: int
    began: float

    def end(self, outcome: Outcome) -> None:
        """Give the place back, and learn from how it went."""
        admission, seconds = self.admission, self.admission.clock() - self.began
        admission.in_flight -= 1
        admission.limit.on_sample(seconds, self.in_flight, outcome)
        crowded = outcome is Outcome.FAILURE and admission.limit.succeeding
        if outcome is Outcome.SUCCESS or crowded:  # fewer candidates would not have helped what is broken
            admission.quality.on_sample(seconds, self.in_flight)
