"""How far the consumers are behind, as those who serve see it."""

from __future__ import annotations

import pytest
import redis.asyncio as aioredis

from domain.errors import DependencyError
from events.lag import KEY, SILENCE_SECONDS, LagWatch, tell
from features.online import connect


class Wall:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_without_a_consumer_ever_there_is_no_lag(client: aioredis.Redis) -> None:
    watch = LagWatch(client)
    await watch.look()
    assert watch.seconds() == 0


async def test_the_lag_is_what_the_consumers_say(client: aioredis.Redis) -> None:
    wall = Wall()
    watch = LagWatch(client, wall)
    await tell(client, 12.5, 1000.0)
    await watch.look()
    assert watch.seconds() == 12.5
    wall.now += SILENCE_SECONDS
    assert watch.seconds() == 12.5


async def test_when_the_consumers_are_gone_the_lag_grows(client: aioredis.Redis) -> None:
    wall = Wall()
    watch = LagWatch(client, wall)
    await tell(client, 0.0, 1000.0)
    await watch.look()
    wall.now += 700
    assert watch.seconds() == 700


async def test_when_redis_is_gone_what_was_said_ages(client: aioredis.Redis, free_port) -> None:
    wall = Wall()
    watch = LagWatch(client, wall)
    await tell(client, 1.0, 1000.0)
    await watch.look()
    nobody = connect(f"redis://127.0.0.1:{free_port()}")
    watch.client = nobody
    wall.now += 60
    with pytest.raises(DependencyError):
        await watch.look()
    assert watch.seconds() == 61
    await nobody.aclose()


async def test_a_key_that_cannot_be_read_counts_as_nothing_said(client: aioredis.Redis) -> None:
    watch = LagWatch(client)
    await client.set(KEY, b"nonsense")
    await watch.look()
    assert watch.seconds() == 0
