"""From the log to the users' state: take a batch, bury what is no event, merge, write, and only then be done with it.

A consumer that dies at any of these steps leaves the batch to be given out again. That repeats work, and changes
nothing: the state is a function of the set of events.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from domain.errors import DependencyError
from events.event import Event, PoisonError, decode
from events.log import Batch, Entry, EventFeed

FUTURE_SECONDS = 300.0
"""An event may be so far ahead of the clock that receives it. One further ahead would hold its place for good."""

BATCH_EVENTS = 400
WAIT_SECONDS = 0.5
FIRST_PAUSE_SECONDS = 0.1
LAST_PAUSE_SECONDS = 5.0

log = logging.getLogger("streamrec.consumer")


class Sessions(Protocol):
    """Where the users' last events are kept; ``events.state.SessionStore``."""

    async def add(self, events: Mapping[str, Sequence[Event]]) -> None:
        """Merge by user; the same events again change nothing. Raises ``DependencyError``."""
        ...


class Witness(Protocol):
    """Is told what happened, for the metrics."""

    def consumed(self, event: Event, seconds: float) -> None:
        """An event's state is written, so long after it came into the log. A batch given out twice tells it twice."""
        ...

    def buried(self, reason: str) -> None: ...

    def failed(self, cause: str) -> None: ...


@dataclass(frozen=True, slots=True, eq=False)
class Consumer:
    """One of the group."""

    feed: EventFeed
    sessions: Sessions
    witness: Witness
    clock: Callable[[], float] = time.time

    async def step(self, limit: int = BATCH_EVENTS, wait_seconds: float = WAIT_SECONDS) -> int:
        """One batch from the log into the state; how many entries that was. Raises ``DependencyError``."""
        batch = await self.feed.take(limit, wait_seconds)
        if not len(batch):
            return 0
        events = await self._events(batch)
        await self.sessions.add(by_user(event for _, event in events))
        await self.feed.done(batch)
        now = self.clock()
        for entry, event in events:
            self.witness.consumed(event, now - entry.appended_at)
        return len(batch)

    async def run(self, stopping: asyncio.Event) -> None:
        """Batch after batch until told to stop, the one in hand to its end; after a failure with growing pauses."""
        pause = FIRST_PAUSE_SECONDS
        while not stopping.is_set():
            try:
                await self.step()
                pause = FIRST_PAUSE_SECONDS
            except DependencyError as error:
                self.witness.failed(error.cause)
                log.warning("batch not written, it will be given out again", extra={"why": str(error)})
                await waited(stopping, pause)
                pause = min(pause * 2, LAST_PAUSE_SECONDS)

    async def _events(self, batch: Batch) -> list[tuple[Entry, Event]]:
        events = []
        for entry in batch.entries:
            try:
                events.append((entry, read(entry)))
            except PoisonError as poison:
                await self.feed.bury(entry, poison.reason)
                self.witness.buried(poison.reason)
        return events


def read(entry: Entry) -> Event:
    """The event of an entry; raises ``PoisonError``. What lies in the future is asked of the entry's own time: whoever
    reads the entry, and whenever, finds the same.
    """
    event = decode(entry.raw)
    if event.timestamp > entry.appended_at + FUTURE_SECONDS:
        raise PoisonError("future_timestamp")
    return event


def by_user(events: Iterable[Event]) -> dict[str, list[Event]]:
    """The events of each user, in the order given."""
    users: dict[str, list[Event]] = defaultdict(list)
    for event in events:
        users[event.user_id].append(event)
    return dict(users)


async def waited(event: asyncio.Event, seconds: float) -> bool:
    """Whether the event was set within so many seconds."""
    try:
        async with asyncio.timeout(seconds):
            return await event.wait()
    except TimeoutError:
        return False
