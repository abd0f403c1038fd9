"""The log between the door and the consumers: two Protocols, so that Redis Streams and Kafka are one to the rest.

Events of one user always lie in one shard. An entry may be given out more than once, and in any order: what is kept
of the events must not mind (``events.state``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

from domain.errors import DependencyError
from events.event import Event


class LogFull(DependencyError):
    """The log has no room for more until consumers catch up: nothing was appended, nothing old is thrown away."""

    cause: ClassVar[str] = "full"


@dataclass(frozen=True, slots=True)
class Entry:
    """What stands at one place of the log. ``position`` is the log's own name of the place: keep it, do not read it."""

    position: tuple[str, str]  # (stream, entry id) or (partition, offset)
    raw: bytes  # as ``events.event.encode`` makes it, or whatever somebody else wrote
    appended_at: float  # UTC seconds, by the log's own clock


@dataclass(frozen=True, slots=True)
class Batch:
    """What one ``take`` gave, in the log's order within each shard; may be empty."""

    entries: tuple[Entry, ...] = ()

    def __len__(self) -> int:
        return len(self.entries)


class EventLog(Protocol):
    """The producing side: what the door writes to."""

    async def append(self, events: Sequence[Event]) -> None:
        """Returns once the log has all of them durably; raises ``DependencyError``, and then some may be in the log.

        Appending the same events again is harmless: an event id counts once.
        """
        ...

    async def close(self) -> None: ...


class EventFeed(Protocol):
    """The consuming side: one consumer of the group. Every method raises only ``DependencyError``."""

    async def take(self, limit: int, wait_seconds: float) -> Batch:
        """At most ``limit`` entries, waiting so long for the first; empty if none came.

        What a consumer took and did not finish (it died) is given to another, or to itself when it is back.
        """
        ...

    async def done(self, batch: Batch) -> None:
        """The batch's state is written: nobody is given these entries again. Buried ones are part of the batch."""
        ...

    async def bury(self, entry: Entry, reason: str) -> None:
        """Copy an entry that is no event into the dead letters, with the reason. ``done`` still has to follow."""
        ...

    async def lag_seconds(self) -> float:
        """Age of the oldest entry that nobody is done with; 0 when there is none."""
        ...

    async def close(self) -> None: ...
