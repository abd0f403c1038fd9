"""A service under load in virtual time: one server, first come first served, that computes whatever it began.

What nobody waits for any more is computed all the same, as a server does that does not know of deadlines: that is why
goodput collapses once the queue is longer than the deadline.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from app.admission import Admission, AdmissionPolicy, Admitted, Priority
from app.limit import LimitPolicy, Outcome
from app.quality import QualityPolicy

CANDIDATES = 500


@dataclass
class Load:
    """``rate`` requests a second for ``seconds``, at random moments; every ``prefetch``-th is a prefetch."""

    rate: float
    seconds: float
    prefetch: int = 0


@dataclass
class Told:
    """What became of the requests, by the second they arrived in."""

    useful: list[int]
    full: int = 0
    short: dict[Priority, int] = field(default_factory=lambda: dict.fromkeys(Priority, 0))
    ranked: list[int] = field(default_factory=list)
    estimates: list[float] = field(default_factory=list)

    def goodput(self, first: int, last: int) -> float:
        """Useful answers a second from second ``first`` up to ``last``."""
        return sum(self.useful[first:last]) / (last - first)


@dataclass
class Simulation:
    """``capacity`` rankings of 500 candidates a second; an answer is useful within ``deadline`` seconds."""

    capacity: float = 200.0
    deadline: float = 0.130
    capped: bool = True
    narrows: bool = False  # whether fewer candidates cost the server less
    now: float = 0.0
    free_at: float = 0.0

    def __post_init__(self) -> None:
        least = 1.0 if not self.narrows else QualityPolicy().least
        policy = AdmissionPolicy(LimitPolicy(), QualityPolicy(least=least, whole=max(least, 0.9)))
        self.admission = Admission(policy, clock=lambda: self.now)
        self._random = np.random.default_rng(7)

    def run(self, *loads: Load) -> Told:
        told = Told([0] * (round(sum(load.seconds for load in loads)) + 1))
        events: list[tuple[float, int, Callable[[], None]]] = []
        number = itertools.count()

        def later(at: float, what: Callable[[], None]) -> None:
            heapq.heappush(events, (at, next(number), what))

        start = 0.0
        for load in loads:
            moments = start + np.sort(self._random.random(round(load.rate * load.seconds))) * load.seconds
            for i, at in enumerate(moments.tolist()):
                priority = Priority.PREFETCH if load.prefetch and i % load.prefetch == 0 else Priority.USER
                later(at, lambda priority=priority: self._arrive(priority, told, later))  # type: ignore[misc]
            start += load.seconds
        while events:
            self.now, _, what = heapq.heappop(events)
            what()
        return told

    def _arrive(self, priority: Priority, told: Told, later: Callable[[float, Callable[[], None]], None]) -> None:
        place = None
        if self.capped:
            with self.admission.inside(Admitted(self.admission.decide(priority), priority)):
                place = self.admission.begin()
            told.estimates.append(self.admission.limit.estimate)
            if place is None:
                told.short[priority] += 1
                return
        told.full += 1
        n = self.admission.quality.narrowed(CANDIDATES)
        told.ranked.append(n)
        arrived = self.now
        self.free_at = max(self.now, self.free_at) + n / CANDIDATES / self.capacity
        leaves = min(self.free_at, arrived + self.deadline)
        late = self.free_at - arrived > self.deadline

        def leave() -> None:
            told.useful[int(arrived)] += not late
            if place is not None:
                place.end(Outcome.FAILURE if late else Outcome.SUCCESS)

        later(leaves, leave)
