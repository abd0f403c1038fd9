"""Looking after everything: whoever hangs keeps nobody else waiting."""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from app.processes import supervisor
from app.processes.keeper import Keeper
from app.processes.parts import find_redis
from app.processes.process import Part, launch
from app.processes.supervisor import Service
from app.settings import Settings

ONCE = """#!/bin/sh
[ -e {home}/hangs ] && exec sleep 600
exec {redis} "$@"
"""
HANGS = "import time; time.sleep(600)"


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def service(tmp_path: Path, free_port: Callable[[], int], said: list[str]) -> Iterator[Service]:
    """Runs a Redis of its own, which hangs when it is started again once ``hangs`` is there."""
    server = tmp_path / "redis-server"
    server.write_text(ONCE.format(home=tmp_path, redis=find_redis(tmp_path)))
    server.chmod(0o755)
    settings = Settings(home=tmp_path, redis_port=free_port(), redis_server=server, workers=1)
    service = Service(settings, supervisor.train_in_child, said.append)
    service._start_redis()
    yield service
    service.stop()


def worker_of(service: Service, said: list[str]) -> Keeper:
    def start() -> Part:
        log = service.settings.home / "logs" / "worker.log"
        return launch("worker", [sys.executable, "-c", HANGS], "nowhere", log, os.environ)

    return Keeper(start, said.append, start())


def look_until(service: Service, true: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not true():
        assert time.monotonic() < end
        service.look()
        time.sleep(0.02)


def test_a_redis_that_hangs_when_it_is_started_again_keeps_no_worker_from_it(service: Service, said: list[str]) -> None:
    service.workers.append(worker_of(service, said))
    (service.settings.home / "hangs").touch()
    (redis,) = service.parts
    for keeper in (redis, *service.workers):
        assert keeper.part is not None
        keeper.part.kill()
    look_until(service, lambda: any(line.startswith("worker started again") for line in said))
    assert not [line for line in said if "not ready" in line]
    assert not [line for line in said if line.startswith("Redis started again")]


def test_what_never_becomes_ready_is_ended_and_tried_again(service: Service, said: list[str]) -> None:
    now = [0.0]
    (redis,) = service.parts
    redis.clock, redis._started_at = (lambda: now[0]), 0.0
    (service.settings.home / "hangs").touch()
    assert redis.part is not None
    redis.part.kill()
    redis.look()
    now[0] = 1.0
    redis.look()
    hung = redis.part
    assert hung.process.poll() is None
    now[0] += hung.ready_seconds + 1
    redis.look()
    assert hung.process.poll() is not None
    assert f"Redis is not ready after {hung.ready_seconds:g} s" in said[-1]
    (service.settings.home / "hangs").unlink()
    now[0] += 60
    look_until(service, lambda: said[-1].startswith("Redis started again"))
