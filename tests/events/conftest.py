"""A Redis whose streams are this package's own: tests here look at whole streams, and some break Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Iterator

import pytest
import redis.asyncio as aioredis

from app.processes.parts import start_redis
from app.processes.process import Part
from features.online import ClientLimits, connect

PATIENT = ClientLimits(connections=8, wait_seconds=5.0, connect_seconds=5.0, answer_seconds=5.0)


@pytest.fixture(scope="session")
def log_redis(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Part]:
    part = start_redis(tmp_path_factory.mktemp("log-home"), free_port())
    yield part
    part.stop()


@pytest.fixture
async def client(log_redis: Part) -> AsyncIterator[aioredis.Redis]:
    """Over an empty Redis."""
    client = connect(log_redis.address, PATIENT)
    await client.flushall()
    yield client
    await client.aclose()
