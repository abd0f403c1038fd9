"""A service that answers at the seam the doors know: what was asked is kept, what is answered is set by the test."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from app.admission import Admission
from domain.answer import Answer, Item
from domain.deadline import Deadline
from domain.degradation import DegradationLevel
from domain.request import Query
from events.event import Event

TITLE = "Amélie (Fabuleux destin d'Amélie Poulain, Le) (2001)"


@dataclass
class FakeLog:
    """Keeps what it is given; ``broken`` is raised instead; with ``gate`` set, an append waits for it."""

    broken: Exception | None = None
    gate: asyncio.Event | None = None
    held: list[Event] = field(default_factory=list)

    async def append(self, events: Sequence[Event]) -> None:
        if self.gate is not None:
            await self.gate.wait()
        if self.broken is not None:
            raise self.broken
        self.held += events

    async def close(self) -> None:
        pass


@dataclass
class FakeServing:
    """Answers a slate of one film; ``bug`` is raised instead; with ``gate`` set, an answer waits for it."""

    ready: bool = True
    level: DegradationLevel = DegradationLevel.FULL
    reasons: tuple[str, ...] = ()
    bug: Exception | None = None
    gate: asyncio.Event | None = None
    events: FakeLog = field(default_factory=FakeLog)
    admission: Admission = field(default_factory=Admission)
    pipeline: Any = None  # only the page looks into it
    asked: list[Query] = field(default_factory=list)
    remaining: list[float] = field(default_factory=list)  # seconds left when the question arrived
    arrived: asyncio.Event = field(default_factory=asyncio.Event)

    async def recommend(self, query: Query, deadline: Deadline) -> Answer:
        self.asked.append(query)
        self.remaining.append(deadline.remaining)
        self.arrived.set()
        if self.gate is not None:
            await self.gate.wait()
        if self.bug is not None:
            raise self.bug
        item = Item("4973", TITLE, 0.9375, ("two_tower", "collaborative"), None)
        level = DegradationLevel.POPULAR if deadline.expired else self.level
        timing = {"retrieval": 0.002, "ranking": 0.004, "total": 0.008}
        return Answer(query.request_id, "tiny-1", (item,), level, self.reasons, timing, {}, 500)

    def state(self) -> Mapping[str, Any]:
        return {
            "worker": 7,
            "bundle": {"version": "tiny-1", "number": 3, "published_at": 1.7e9},
            "dependencies": {"ranking": "closed", "features": "open"},
        }
