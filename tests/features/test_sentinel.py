"""Redis behind a real Sentinel: one primary, one replica, three Sentinels, all processes; the primary is killed."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from functools import partial
from pathlib import Path

import pytest
import redis

from app.processes.parts import find_redis
from app.processes.process import Part, await_ready, launch
from app.settings import Settings
from domain.errors import StartError
from events.event import Event
from events.redis_log import RedisFeed, RedisLog, StreamPlan
from features.online import connect
from features.sentinel import SentinelAddress, is_sentinel, primary_url

NAME = "streamrec"
DOWN_MS = 500


class Group:
    """The processes and where they are."""

    def __init__(self, home: Path, ended: ExitStack, ports: list[int]) -> None:
        self.home, self.ended, self.program = home, ended, find_redis(home)
        self.primary_port, replica_port, *self.sentinel_ports = ports
        self.primary = self._redis(self.primary_port)
        self._redis(replica_port, "replicaof", "127.0.0.1", str(self.primary_port))
        for port in self.sentinel_ports:
            self._sentinel(port)

    @property
    def url(self) -> str:
        return f"redis+sentinel://{','.join(f'127.0.0.1:{port}' for port in self.sentinel_ports)}/{NAME}"

    def _redis(self, port: int, *more: str) -> Part:
        lines = [f"port {port}", "bind 127.0.0.1", "save ''", "repl-diskless-sync yes", "repl-diskless-sync-delay 0"]
        return self._start(port, [*lines, *([" ".join(more)] if more else [])])

    def _sentinel(self, port: int) -> Part:
        lines = [
            f"port {port}",
            "bind 127.0.0.1",
            f"sentinel monitor {NAME} 127.0.0.1 {self.primary_port} 2",
            f"sentinel down-after-milliseconds {NAME} {DOWN_MS}",
            f"sentinel failover-timeout {NAME} 3000",
        ]
        return self._start(port, lines, "--sentinel")

    def _start(self, port: int, lines: list[str], *options: str) -> Part:
        folder = self.home / str(port)
        folder.mkdir()
        (folder / "redis.conf").write_text("\n".join([*lines, f"dir {folder}"]) + "\n")
        command = [self.program, folder / "redis.conf", *options]
        part = launch(f"Redis {port}", command, f"127.0.0.1:{port}", folder / "log", os.environ)
        self.ended.callback(part.kill)
        return await_ready(part, lambda: pongs(port), 15)

    def knows(self, port: int) -> dict[str, str]:
        """What one Sentinel says of the group."""
        with redis.Redis(port=port, decode_responses=True, protocol=2) as sentinel:
            return sentinel.sentinel_master(NAME)

    def others(self, port: int) -> tuple[object, object]:
        """Replicas and other Sentinels that one Sentinel knows."""
        known = self.knows(port)
        return known["num-slaves"], known["num-other-sentinels"]

    def wait_until_whole(self) -> None:
        """Until every Sentinel knows the replica and the other Sentinels: before that none can promote."""
        for port in self.sentinel_ports:
            wait_for(partial(self.others, port), (1, 2))


def pongs(port: int) -> bool:
    try:
        with redis.Redis(port=port, socket_timeout=1, protocol=2) as client:
            return bool(client.ping())
    except redis.RedisError:
        return False


def wait_for(look: Callable[[], object], wanted: object, seconds: float = 20.0) -> None:
    end = time.monotonic() + seconds
    while (found := look()) != wanted:
        assert time.monotonic() < end, f"still {found}"
        time.sleep(0.05)


@pytest.fixture(scope="module")
def group(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Group]:
    with ExitStack() as ended:
        group = Group(tmp_path_factory.mktemp("sentinel"), ended, [free_port() for _ in range(5)])
        group.wait_until_whole()
        yield group


def test_reads_and_events_go_on_at_the_promoted_replica(group: Group) -> None:
    async def through() -> None:
        reading, plan = connect(group.url), StreamPlan(shards=1)
        log, feed = RedisLog.open(group.url, plan), RedisFeed.open(group.url, "consumer", plan)
        try:
            await reading.set("before", b"1")
            assert await reading.execute_command("WAIT", 1, 5000) == 1  # copied to the replica
            group.primary.kill()
            with pytest.raises(redis.ConnectionError):
                await reading.get("before")
            async with asyncio.timeout(30):
                await promoted(reading)
            assert await reading.get("before") == b"1"
            await log.append([Event("click-1", "42", "296", "click", 1000.0)])
            taken = await feed.take(10, 0.1)
            taken = taken or await feed.take(10, 0.1)  # the first call makes the groups
            assert len(taken) == 1
        finally:
            await log.close()
            await feed.close()
            await reading.aclose()

    assert primary_url(group.url).endswith(f":{group.primary_port}/0")
    asyncio.run(through())
    assert not primary_url(group.url).endswith(f":{group.primary_port}/0")


async def promoted(reading) -> None:
    """Until a write is taken again: the promoted one may be asked while it is still a replica."""
    while True:
        try:
            await reading.set("after", b"1")
            return
        except redis.RedisError:
            await asyncio.sleep(0.05)


def test_an_address_says_where_the_sentinels_are_and_keeps_its_password_to_itself() -> None:
    address = SentinelAddress.parse("redis+sentinel://me:s%40crete@a:26379,b:26380/main/3")
    assert address.hosts == (("a", 26379), ("b", 26380))
    assert (address.name, address.database, address.username, address.password) == ("main", 3, "me", "s@crete")
    assert "crete" not in repr(address)
    assert address.url_of("c", 6379) == "redis://me:s%40crete@c:6379/3"


@pytest.mark.parametrize("url", ["redis+sentinel://a/main", "redis+sentinel://a:1", "redis+sentinel://a:1/main/x"])
def test_an_address_that_cannot_be_followed_is_refused_without_being_quoted(url: str) -> None:
    with pytest.raises(StartError, match="redis\\+sentinel://host:port") as refused:
        Settings.from_environment({"STREAMREC_REDIS_URL": url})
    assert url not in str(refused.value)


def test_a_plain_url_is_its_own_primary() -> None:
    assert not is_sentinel("redis://a:1/0")
    assert primary_url("redis://a:1/0") == "redis://a:1/0"


def test_no_sentinel_at_all_is_said(free_port: Callable[[], int]) -> None:
    with pytest.raises(redis.ConnectionError):
        primary_url(f"redis+sentinel://127.0.0.1:{free_port()}/main")
