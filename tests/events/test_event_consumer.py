"""From the log to the state: nothing lost, nothing counted twice, wherever the consumer dies."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import pytest

from domain.errors import Late, Unreachable
from events.consumer import FUTURE_SECONDS, Consumer
from events.event import Event, encode
from events.log import Batch, Entry
from events.state import Recent, Recents, merge


class Died(BaseException):
    """The process is no more: nothing may catch this."""


@dataclass
class MemoryFeed:
    """A log in memory that gives out again what nobody is done with."""

    entries: list[Entry]
    dead: list[tuple[Entry, str]] = field(default_factory=list)
    dies_at: str = ""

    async def take(self, limit: int, wait_seconds: float) -> Batch:
        return Batch(tuple(self.entries[:limit]))

    async def done(self, batch: Batch) -> None:
        self._die("done")
        self.entries = [entry for entry in self.entries if entry not in batch.entries]

    async def bury(self, entry: Entry, reason: str) -> None:
        self.dead.append((entry, reason))
        self._die("bury")

    async def lag_seconds(self) -> float:
        return 0.0

    async def close(self) -> None:
        pass

    def _die(self, where: str) -> None:
        if self.dies_at == where:
            self.dies_at = ""
            raise Died


@dataclass
class MemorySessions:
    """States in memory; ``fails`` are raised one after the other, before or after the write."""

    states: dict[str, Recents] = field(default_factory=dict)
    fails: list[BaseException] = field(default_factory=list)
    after_write: bool = False

    async def add(self, events: Mapping[str, Sequence[Event]]) -> None:
        if self.fails and not self.after_write:
            raise self.fails.pop(0)
        for user, new in events.items():
            self.states[user] = merge(self.states.get(user, ()), [Recent.of(event) for event in new])
        if self.fails:
            raise self.fails.pop(0)


@dataclass
class Seen:
    events: list[Event] = field(default_factory=list)
    dead: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    seconds: list[float] = field(default_factory=list)

    def consumed(self, event: Event, seconds: float) -> None:
        self.events.append(event)
        self.seconds.append(seconds)

    def buried(self, reason: str) -> None:
        self.dead.append(reason)

    def failed(self, cause: str) -> None:
        self.failures.append(cause)


def entry(number: int, raw: bytes, appended_at: float = 1000.0) -> Entry:
    return Entry(("s", str(number)), raw, appended_at)


def stream(n: int) -> list[Entry]:
    return [entry(k, encode(Event(f"e{k}", f"u{k % 3}", "296", "play", float(k)))) for k in range(n)]


def expected(n: int) -> dict[str, list[str]]:
    return {f"u{user}": [f"e{k}" for k in range(n) if k % 3 == user] for user in range(3)}


def kept(sessions: MemorySessions) -> dict[str, list[str]]:
    return {user: [recent.event_id for recent in state] for user, state in sessions.states.items()}


async def test_events_reach_their_users_and_leave_the_log() -> None:
    feed, sessions, seen = MemoryFeed(stream(30)), MemorySessions(), Seen()
    assert await Consumer(feed, sessions, seen, clock=lambda: 1002.5).step(limit=30) == 30
    assert kept(sessions) == expected(30)
    assert feed.entries == []
    assert len(seen.events) == 30
    assert set(seen.seconds) == {2.5}


@pytest.mark.parametrize("dies_at", ["before the write", "after the write", "done", "bury"])
async def test_a_consumer_killed_mid_batch_loses_nothing_and_counts_nothing_twice(dies_at: str) -> None:
    feed = MemoryFeed([*stream(30), entry(99, b"poison")], dies_at=dies_at)
    fails: list[BaseException] = [Died()] if "write" in dies_at else []
    sessions = MemorySessions(fails=fails, after_write=dies_at == "after the write")
    with pytest.raises(Died):
        await Consumer(feed, sessions, Seen()).step()
    assert len(feed.entries) == 31
    await Consumer(feed, sessions, Seen()).step()  # the next process
    assert kept(sessions) == expected(30)
    assert feed.entries == []


async def test_poison_is_buried_with_its_reason_and_holds_up_nobody() -> None:
    far = encode(Event("f", "u0", "296", "play", 1000.0 + FUTURE_SECONDS + 1))
    poison = [entry(100, b"{"), entry(101, b'{"kind": "sale"}'), entry(102, far)]
    feed, sessions, seen = MemoryFeed([*poison, *stream(3)]), MemorySessions(), Seen()
    await Consumer(feed, sessions, seen).step()
    assert [(dead.position[1], reason) for dead, reason in feed.dead] == [
        ("100", "not_json"),
        ("101", "unknown_kind"),
        ("102", "future_timestamp"),
    ]
    assert seen.dead == [reason for _, reason in feed.dead]
    assert kept(sessions) == expected(3)
    assert feed.entries == []


async def test_an_empty_log_is_nothing_to_do() -> None:
    seen = Seen()
    assert await Consumer(MemoryFeed([]), MemorySessions(), seen).step() == 0
    assert seen == Seen()


async def test_while_the_store_is_away_the_batch_waits_and_then_arrives() -> None:
    stopping, seen = asyncio.Event(), Seen()
    feed, sessions = MemoryFeed(stream(6)), MemorySessions(fails=[Unreachable("gone"), Late("slow")])

    class Stopping(Seen):
        def consumed(self, event: Event, seconds: float) -> None:
            super().consumed(event, seconds)
            stopping.set()

    seen = Stopping()
    await asyncio.wait_for(Consumer(feed, sessions, seen).run(stopping), 10)
    assert seen.failures == ["unavailable", "timeout"]
    assert kept(sessions) == expected(6)


async def test_told_to_stop_it_finishes_the_batch_in_hand_and_takes_no_other() -> None:
    stopping, sessions = asyncio.Event(), MemorySessions()

    class StoppedMidBatch(MemoryFeed):
        async def take(self, limit: int, wait_seconds: float) -> Batch:
            stopping.set()
            return await super().take(4, wait_seconds)

    feed = StoppedMidBatch(stream(12))
    await asyncio.wait_for(Consumer(feed, sessions, Seen()).run(stopping), 10)
    assert len(feed.entries) == 8
    assert sum(map(len, sessions.states.values())) == 4
