"""A consumer process from the inside: real Redis, a real bundle behind a link that moves."""

from __future__ import annotations

import asyncio
import dataclasses
import subprocess
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from pathlib import Path
from uuid import uuid4

import pytest
import redis.asyncio as aioredis

from app.consume import consume, main, project_of
from app.event_parts import open_log
from app.processes.parts import start_redis
from app.processes.process import Part
from app.settings import Settings
from domain.errors import StartError
from events.event import Event
from events.lag import KEY
from features import layout
from features.online import ClientLimits, connect
from release.bundle import Bundle, replace_tables
from tests.kafka_cluster import running_cluster

PATIENT = ClientLimits(connections=4, wait_seconds=5.0, connect_seconds=5.0, answer_seconds=5.0)


@pytest.fixture(scope="module")
def own_redis(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Part]:
    part = start_redis(tmp_path_factory.mktemp("consume"), free_port())
    yield part
    part.stop()


@pytest.fixture
def settings(own_redis: Part, tiny_bundle: Bundle, tmp_path: Path) -> Settings:
    (tmp_path / "current").symlink_to(tiny_bundle.path)
    return Settings(home=tmp_path, redis_url=own_redis.address)


@pytest.fixture
async def client(own_redis: Part) -> AsyncIterator[aioredis.Redis]:
    client = connect(own_redis.address, PATIENT)
    yield client
    await client.aclose()


async def until(check: Callable[[], Awaitable[bool]]) -> None:
    async with asyncio.timeout(20):
        while not await check():  # noqa: ASYNC110  # what is waited for is in Redis
            await asyncio.sleep(0.02)


async def items_of(client: aioredis.Redis, project: str, user: str) -> tuple[str, ...]:
    _, ids, _, _ = await client.hmget(layout.row_key(project, user), list(layout.session_fields()))
    return layout.decode_strings(ids) if isinstance(ids, bytes) else ()


async def test_events_reach_the_view_follow_the_bundle_and_the_lag_is_told(
    settings: Settings, client: aioredis.Redis, tiny_bundle: Bundle, tmp_path: Path
) -> None:
    user, stopping, log = f"user-{uuid4().hex}", asyncio.Event(), open_log(settings)
    await log.append([Event("e", user, "item-7", "play", 1.0)])
    await log.close()
    running = asyncio.create_task(consume(settings, "test-0", stopping))
    old = project_of(tiny_bundle.path)
    await until(lambda: _is(items_of(client, old, user), ("item-7",)))
    await until(lambda: _is(client.exists(KEY), 1))

    items = dataclasses.replace(
        tiny_bundle.tables.items, genre_names=("Another", *tiny_bundle.tables.items.genre_names[1:])
    )
    other = replace_tables(tiny_bundle, tmp_path / "other", items=items)
    (tmp_path / "next").symlink_to(other.path)
    (tmp_path / "next").replace(settings.bundle)
    new = project_of(other.path)
    assert new != old
    await until(lambda: _is(items_of(client, new, user), ("item-7",)))
    stopping.set()
    await asyncio.wait_for(running, 10)


async def test_the_same_through_kafka(settings: Settings, client: aioredis.Redis, tiny_bundle: Bundle) -> None:
    with running_cluster() as cluster:
        there = dataclasses.replace(settings, event_log="kafka", kafka_brokers=cluster.brokers)
        for topic in (there.kafka_topic, f"{there.kafka_topic}.dead"):
            cluster.make_topic(topic)
        user, stopping, log = f"user-{uuid4().hex}", asyncio.Event(), open_log(there)
        await log.append([Event(f"e{at}", user, f"item-{at}", "play", float(at)) for at in (2, 1, 2)])
        running = asyncio.create_task(consume(there, "test-kafka", stopping))
        project = project_of(tiny_bundle.path)
        await until(lambda: _is(items_of(client, project, user), ("item-1", "item-2")))
        await log.close()
        stopping.set()
        await asyncio.wait_for(running, 20)


async def _is(question: Awaitable[object], answer: object) -> bool:
    return await question == answer


async def test_without_a_bundle_it_does_not_start(tmp_path: Path) -> None:
    with pytest.raises(StartError):
        await consume(Settings(home=tmp_path), "test-0", asyncio.Event())


def test_told_to_stop_the_process_leaves_with_0(settings: Settings) -> None:
    environ = {"STREAMREC_HOME": str(settings.home), "STREAMREC_REDIS_URL": str(settings.redis_url), "PATH": ""}
    root = Path(__file__).parents[2]
    command = [sys.executable, "-m", "app.consume", "0"]
    with subprocess.Popen(command, env=environ, cwd=root, stdout=subprocess.PIPE, stderr=subprocess.STDOUT) as process:
        assert process.stdout is not None
        assert b'"consuming"' in process.stdout.readline()
        process.terminate()
        assert process.wait(20) == 0


def test_a_setting_it_cannot_read_is_one_line_and_a_2(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("STREAMREC_EVENT_LOG", "kafka")
    assert main(["0"]) == 2
    assert "STREAMREC_KAFKA_BROKERS must be set" in capsys.readouterr().err
