"""The log in Redis Streams: what was appended is given out until somebody is done with it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from pathlib import Path

import pytest
import redis.asyncio as aioredis

from app.processes.parts import start_redis
from app.processes.process import Part
from domain.errors import DependencyError
from events.event import Event, decode
from events.log import Batch, LogFull
from events.redis_log import DEAD_LETTERS, GROUP, PREFIX, RedisFeed, RedisLog, StreamPlan, shard_of, streams

PLAN = StreamPlan(shards=4, backlog=100, claim_seconds=0.001)
NO_WAIT = 0.001


def events(n: int, user: str | None = None) -> list[Event]:
    return [Event(f"e{k}", user or f"u{k}", "296", "play", float(k)) for k in range(n)]


@pytest.fixture
async def ended(client: aioredis.Redis) -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


@pytest.fixture
def log(log_redis: Part, ended: AsyncExitStack) -> RedisLog:
    log = RedisLog.open(log_redis.address, PLAN)
    ended.push_async_callback(log.close)
    return log


@pytest.fixture
def feed(log_redis: Part, ended: AsyncExitStack) -> Callable[[str], RedisFeed]:
    def open_as(name: str, plan: StreamPlan = PLAN) -> RedisFeed:
        feed = RedisFeed.open(log_redis.address, name, plan)
        ended.push_async_callback(feed.close)
        return feed

    return open_as


async def take(feed: RedisFeed, limit: int = 100) -> Batch:
    """The first take of a new log makes the groups and is empty."""
    return await feed.take(limit, NO_WAIT) or await feed.take(limit, NO_WAIT)


def ids(batch: Batch) -> set[str]:
    return {decode(entry.raw).event_id for entry in batch.entries}


async def test_what_was_appended_is_taken_also_from_before_there_was_a_consumer(log, feed) -> None:
    await log.append(events(10))
    assert ids(await take(feed("a"))) == {f"e{k}" for k in range(10)}


async def test_a_users_events_lie_in_one_shard_in_their_order(log, feed) -> None:
    await log.append(events(20, user="42"))
    batch = await take(feed("a"))
    assert {entry.position[0] for entry in batch.entries} == {f"{PREFIX}{shard_of('42', PLAN.shards)}"}
    assert [decode(entry.raw).timestamp for entry in batch.entries] == [float(k) for k in range(20)]


def test_users_are_spread_over_all_shards_and_stay_where_they_are() -> None:
    assert {shard_of(f"u{k}", 4) for k in range(100)} == {0, 1, 2, 3}
    assert [shard_of(user, 4) for user in ("1", "42", "Amélie")] == [3, 0, 2]


async def test_consumers_share_the_entries_and_get_each_once(log, feed) -> None:
    plan = StreamPlan(shards=4, backlog=100)
    first, second = feed("a", plan), feed("b", plan)
    await log.append(events(40))
    taken = await take(first, limit=20), await take(second)
    assert ids(taken[0]).isdisjoint(ids(taken[1]))
    assert len(taken[0]) > 0
    assert len(ids(taken[0]) | ids(taken[1])) == 40


async def test_a_restarted_consumer_is_given_first_what_it_did_not_finish(log, feed) -> None:
    await log.append(events(10))
    before = await take(feed("a"))
    after = await take(feed("a"))
    assert ids(after) == ids(before)


async def test_a_batch_that_was_not_done_is_given_again(log, feed) -> None:
    mine = feed("a")
    await log.append(events(10))
    assert ids(await take(mine)) == ids(await take(mine))


async def test_what_a_dead_consumer_took_is_given_to_another(log, feed) -> None:
    await log.append(events(10))
    left = await take(feed("dead"))
    other, given = feed("b"), set()
    while batch := await take(other):
        given |= ids(batch)
        await other.done(batch)
    assert given == ids(left)


async def test_what_is_done_is_gone(log, feed, client) -> None:
    mine = feed("a")
    await log.append(events(10))
    await mine.done(await take(mine))
    assert len(await take(mine)) == len(await take(feed("a"))) == len(await take(feed("b"))) == 0
    assert [await client.xlen(stream) for stream in streams(4)] == [0] * 4
    assert (await client.xpending(streams(4)[0], GROUP))["pending"] == 0


async def test_the_lag_is_the_age_of_the_oldest_that_nobody_is_done_with(log, feed, client) -> None:
    mine = feed("a")
    await take(mine)
    assert await mine.lag_seconds() == 0
    seconds, _ = await client.time()
    await client.xadd(f"{PREFIX}2", {"event": b"old"}, id=f"{(seconds - 700) * 1000}-0")
    await log.append(events(10))
    assert 699 <= await mine.lag_seconds() <= 703
    batch = await take(mine)
    assert await mine.lag_seconds() > 699
    await mine.done(batch)
    assert await mine.lag_seconds() == 0


async def test_a_full_log_takes_nothing_and_loses_nothing(log, feed, client) -> None:
    await log.append(events(100, user="42"))
    with pytest.raises(LogFull):
        await log.append([*events(3, user="1"), *events(1, user="42")])
    assert sum([await client.xlen(stream) for stream in streams(4)]) == 100
    mine = feed("a")
    await mine.done(await take(mine, limit=400))
    await log.append(events(4, user="42"))
    assert len(await take(mine)) == 4


async def test_a_buried_entry_is_kept_with_its_reason(log, feed, client) -> None:
    mine = feed("a")
    await client.xadd(f"{PREFIX}0", {"event": b"\xff nonsense"})
    await client.xadd(f"{PREFIX}1", {"another": b"field"})
    batch = await take(mine)
    for entry in batch.entries:
        await mine.bury(entry, "not_json")
    await mine.done(batch)
    letters = [fields for _, fields in await client.xrange(DEAD_LETTERS)]
    assert {letter[b"event"] for letter in letters} == {b"\xff nonsense", b"another field"}
    assert {letter[b"reason"] for letter in letters} == {b"not_json"}


async def test_the_groups_are_made_again_when_redis_lost_everything(log, feed, client) -> None:
    mine = feed("a")
    await take(mine)
    await client.flushall()
    await log.append(events(3))
    assert len(await take(mine)) == 3


async def test_no_redis_is_a_dependency_error_on_both_sides(free_port: Callable[[], int]) -> None:
    url = f"redis://127.0.0.1:{free_port()}"
    log, feed = RedisLog.open(url, PLAN), RedisFeed.open(url, "a", PLAN)
    for call in (log.append(events(1)), feed.take(1, NO_WAIT), feed.lag_seconds()):
        with pytest.raises(DependencyError):
            await call
    await log.close()
    await feed.close()


async def test_a_redis_that_is_killed_has_all_that_it_acknowledged(
    tmp_path: Path, free_port: Callable[[], int]
) -> None:
    part = start_redis(tmp_path, free_port())
    log = RedisLog.open(part.address, PLAN)
    await log.append(events(50))
    await log.close()
    part.kill()
    part = start_redis(tmp_path, free_port())
    feed = RedisFeed.open(part.address, "a", PLAN)
    assert ids(await take(feed, limit=400)) == {f"e{k}" for k in range(50)}
    await feed.close()
    part.stop()


async def test_a_redis_out_of_memory_refuses_and_says_so(log, client) -> None:
    await client.config_set("maxmemory", 1)
    try:
        with pytest.raises(DependencyError, match="refused"):
            await log.append(events(1))
    finally:
        await client.config_set("maxmemory", 0)
