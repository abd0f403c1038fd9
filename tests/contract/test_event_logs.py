"""One suite for every event log: a new one is one more case in ``CASES``."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from urllib.parse import urlsplit
from uuid import uuid4

import pytest
import redis

from domain.errors import DependencyError
from events.event import Event, decode
from events.log import EventFeed, EventLog
from tests.contract.event_log_cases import KafkaCase, LogCase, RedisCase
from tests.kafka_cluster import KafkaCluster, running_cluster

ROOT = Path(__file__).parents[2]
CASES = ("redis", "kafka")
WAIT_SECONDS = 0.1
TAKES = 200  # so many, and a test gives up


@pytest.fixture(scope="module")
def kafka() -> Iterator[KafkaCluster]:
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture(params=CASES)
def case(request: pytest.FixtureRequest) -> Iterator[LogCase]:
    """An empty log of each kind."""
    if request.param == "redis":
        address = urlsplit(request.getfixturevalue("redis_url"))._replace(path="/7").geturl()  # nobody else's streams
        with redis.Redis.from_url(address) as client:
            client.flushdb()
        yield RedisCase(address)
    else:
        cluster: KafkaCluster = request.getfixturevalue("kafka")
        made = KafkaCase(f"{cluster.brokers}/log-{uuid4()}")
        cluster.make_topic(made.plan.topic)
        cluster.make_topic(made.plan.dead_topic)
        yield made


@pytest.fixture
async def ended(case: LogCase) -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def log(case: LogCase, ended: AsyncExitStack) -> EventLog:
    log = case.open_log()
    ended.push_async_callback(log.close)
    return log


@pytest.fixture
def feed(case: LogCase, ended: AsyncExitStack) -> Callable[[str], EventFeed]:
    def open_as(name: str) -> EventFeed:
        feed = case.open_feed(name)
        ended.push_async_callback(feed.close)
        return feed

    return open_as


def events(ids: range, users: int = 7) -> list[Event]:
    return [Event(f"e{k}", f"u{k % users}", "296", "play", float(k)) for k in ids]


async def entries(feed: EventFeed, wanted: int, *, finish: bool = True) -> dict[str, Event]:
    """Batches until so many events have come, each counted once, in the order they came in first."""
    seen: dict[str, Event] = {}
    for _ in range(TAKES):
        batch = await feed.take(100, WAIT_SECONDS)
        for event in (decode(entry.raw) for entry in batch.entries):
            seen.setdefault(event.event_id, event)
        if finish:
            await feed.done(batch)
        if len(seen) >= wanted:
            return seen
    raise AssertionError(f"{len(seen)} of {wanted} events came")


async def test_what_append_returned_for_is_in_the_log(log, feed) -> None:
    await log.append(events(range(50)))
    assert set(await entries(feed("a"), 50)) == {f"e{k}" for k in range(50)}


async def test_a_users_events_come_in_the_order_they_were_appended(log, feed) -> None:
    for first in range(0, 60, 20):
        await log.append(events(range(first, first + 20)))
    seen = await entries(feed("a"), 60)
    for user in range(7):
        times = [event.timestamp for event in seen.values() if event.user_id == f"u{user}"]
        assert times == sorted(times)


async def test_an_entry_knows_when_it_was_appended(log, feed) -> None:
    await log.append(events(range(1)))
    mine = feed("a")
    while not len(batch := await mine.take(10, WAIT_SECONDS)):
        pass
    lag = await mine.lag_seconds()
    assert batch.entries[0].appended_at > 1_600_000_000
    assert 0 <= lag < 30


async def test_a_batch_that_was_not_done_is_given_again(log, feed) -> None:
    await log.append(events(range(20)))
    mine = feed("a")
    await entries(mine, 1, finish=False)
    assert len(await entries(mine, 20)) == 20


async def test_what_is_done_is_not_given_to_the_next_consumer(log, feed, case) -> None:
    await log.append(events(range(30)))
    first = case.open_feed("a")
    await entries(first, 30)
    await first.close()
    await log.append(events(range(30, 40)))
    assert set(await entries(feed("b"), 10)) == {f"e{k}" for k in range(30, 40)}


async def test_nothing_is_lost_when_a_consumer_is_killed_before_it_is_done(log, feed, case, request) -> None:
    await log.append(events(range(40)))
    kind = request.node.callspec.params["case"]
    command = (sys.executable, "-m", "tests.contract.hold_a_batch", kind, case.address, "doomed")
    doomed = await asyncio.create_subprocess_exec(*command, cwd=ROOT, stdout=subprocess.PIPE)
    assert doomed.stdout is not None
    held = int(await doomed.stdout.readline())
    await log.append(events(range(40, 50)))
    doomed.kill()
    await doomed.wait()
    assert held > 0
    assert set(await entries(feed("heir"), 50)) == {f"e{k}" for k in range(50)}


async def test_two_consumers_leave_nothing_behind(log, feed) -> None:
    await log.append(events(range(40)))
    seen: set[str] = set()
    both = feed("a"), feed("b")
    for _ in range(TAKES):
        for batch, one in zip(await asyncio.gather(*(one.take(5, WAIT_SECONDS) for one in both)), both, strict=True):
            seen |= {decode(entry.raw).event_id for entry in batch.entries}
            with contextlib.suppress(DependencyError):  # the group changed meanwhile: it is given out again
                await one.done(batch)
        if len(seen) == 40 and await both[0].lag_seconds() == 0:
            return
    raise AssertionError(f"{len(seen)} of 40 events came")


async def test_what_is_no_event_is_buried_with_its_reason_and_holds_up_nothing(log, feed, case) -> None:
    await case.put(b"\xff nonsense")
    mine = feed("a")
    while not len(batch := await mine.take(10, WAIT_SECONDS)):
        pass
    await mine.bury(batch.entries[0], "not_json")
    await mine.done(batch)
    assert await case.letters(1) == [("not_json", b"\xff nonsense")]
    await log.append(events(range(5)))
    assert len(await entries(mine, 5)) == 5


async def test_the_lag_is_the_age_of_the_oldest_that_is_not_done(log, feed) -> None:
    mine = feed("a")
    await mine.take(10, WAIT_SECONDS)
    assert await mine.lag_seconds() == 0
    await log.append(events(range(20)))
    await entries(mine, 1, finish=False)
    first = await mine.lag_seconds()
    later = await mine.lag_seconds()
    assert 0 < first < later
    await entries(mine, 20)
    assert await mine.lag_seconds() == 0


async def test_a_log_that_is_not_there_is_a_dependency_error(free_port, case) -> None:
    kind, port = type(case), free_port()
    absent = kind(f"127.0.0.1:{port}/absent" if kind is KafkaCase else f"redis://127.0.0.1:{port}")
    log, feed = absent.open_log(), absent.open_feed("a")
    for call in (log.append(events(range(1))), feed.take(1, 1.0)):
        with pytest.raises(DependencyError):
            await call
    await log.close()
    await feed.close()
