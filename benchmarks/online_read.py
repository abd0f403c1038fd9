"""What one user's read costs in CPU: our reader beside Feast's ``get_online_features``, on the same row.

    python benchmarks/online_read.py [--redis-url redis://127.0.0.1:6379/0] [--reads 3000] [--rounds 5]

Method: one made-up user with all batch features, written by the batch step, and 50 recent events, as the stream writes
them: both feature views of the hash, which Feast reads through the bundle's FeatureService. The two readers take
turns, ``rounds`` times ``reads`` reads one after the other; told is the median round, in CPU time of this process for
a read (Redis not counted). Ours runs on uvloop, as in the service. Without ``--redis-url`` a Redis of its own is
started on a free port.
"""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import json
import socket
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import cast

import numpy as np
import redis
import uvloop
from redis.asyncio import Redis

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app.processes.parts import start_redis
from domain.catalogue import IdTable, Items, TextTable, Users
from domain.clock import LiveClock
from features import layout
from features.contract import CONTRACT
from features.materialise import open_repository, write_user_features
from features.offline import OfflineTable
from features.online import ClientLimits, OnlineStore, connect

USER = "42"
AS_OF = 1_500_000_000.0


@dataclass(frozen=True)
class Tables:
    users: Users
    items: Items


@dataclass(frozen=True)
class Bundle:
    tables: Tables
    watermark: float = AS_OF
    version: str = "benchmark"


def one_user() -> Bundle:
    """A bundle of one user, every feature in the middle of its range."""
    n, columns = layout.RECENT_EVENTS, CONTRACT.user
    middle = ((columns.low + columns.high) / 2)[None, :].astype(np.float32)
    rows, stars, times = np.arange(n, dtype=np.int32), np.full(n, 4, np.float32), AS_OF - np.arange(n, 0, -1.0)
    users = Users(IdTable.of([USER]), middle, np.array([0, n]), rows, stars, times, AS_OF)
    ids = IdTable.of(str(1000 + i) for i in range(n))
    nothing, none = np.zeros((n, 1), np.bool_), np.zeros(n, np.bool_)
    item_features = np.tile(CONTRACT.item.defaults, (n, 1))
    items = Items(ids, TextTable.of([""] * n), nothing, ("benchmark",), stars, item_features, none)
    return Bundle(Tables(users, items))


def watch(redis_url: str, project: str) -> None:
    """A full list of recent events for that user."""
    n = layout.RECENT_EVENTS
    row = layout.session_row([str(1000 + i) for i in range(n)], [4.0] * n, [AS_OF + i for i in range(n)], AS_OF + n)
    with redis.Redis.from_url(redis_url) as client:
        client.hset(layout.row_key(project, USER), mapping=cast("dict[str | bytes, bytes]", row))


@contextlib.contextmanager
def a_redis(home: Path) -> Iterator[str]:
    """The address of a Redis of our own."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    part = start_redis(home, port)
    try:
        yield part.address
    finally:
        part.stop()


def cpu_us(reads: int, run: Callable[[int], None]) -> float:
    """Microseconds of this process's CPU time a read."""
    start = time.process_time()
    run(reads)
    return (time.process_time() - start) / reads * 1e6


async def hmget(client: Redis, project: str) -> object:
    return await client.hmget(layout.row_key(project, USER), list(layout.read_fields(CONTRACT)))


def measure(redis_url: str, home: Path, reads: int, rounds: int) -> dict[str, float]:
    """The median of each reader, the ratio, and how much of ours is decoding."""
    project = layout.project_name(CONTRACT, ("benchmark",))
    write_user_features(one_user(), redis_url, home, echo=lambda _: None)
    watch(redis_url, project)
    feast = open_repository(redis_url, OfflineTable(home, project))
    service = feast.get_feature_service(layout.service_name("benchmark"))

    def theirs(n: int) -> None:
        for _ in range(n):
            feast.get_online_features(service, [{layout.JOIN_KEY: USER}]).to_dict()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
        client = connect(redis_url, ClientLimits(answer_seconds=5))  # a busy machine is no reason to stop
        store = OnlineStore(client, project, CONTRACT, LiveClock(lambda: AS_OF))
        values = cast("list[bytes | None]", loop.run(hmget(client, project)))

        def ours(n: int) -> None:
            async def reading() -> None:
                for _ in range(n):
                    await store.read(USER)

            loop.run(reading())

        def decoding(n: int) -> None:
            for _ in range(n):
                store.decode(values)

        readers = {"feast_us": theirs, "ours_us": ours, "ours_decoding_us": decoding}
        for read in readers.values():
            read(reads // 10 + 1)
        taken = [{name: cpu_us(reads, read) for name, read in readers.items()} for _ in range(rounds)]
        loop.run(client.aclose())
    told = {name: statistics.median(turn[name] for turn in taken) for name in readers}
    return {
        **{name: round(value, 1) for name, value in told.items()},
        "ratio": round(told["feast_us"] / told["ours_us"], 2),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--redis-url")
    parser.add_argument("--reads", type=int, default=3000)
    parser.add_argument("--rounds", type=int, default=5)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder, contextlib.ExitStack() as parts:
        url = asked.redis_url or parts.enter_context(a_redis(Path(folder)))
        print(json.dumps(measure(url, Path(folder), asked.reads, asked.rounds), indent=1))


if __name__ == "__main__":
    main()
