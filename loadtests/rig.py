"""The real service for chaos: Redis, Triton and workers as real processes, a fault proxy before each dependency.

Workers are ``loadtests.chaos_app``: the product's own wiring, breakable from outside. They share one inherited HTTP
socket, as under ``streamrec serve``; a supervisor is left out on purpose, so that what recovers recovers by itself.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import socket
import sys
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from app.commands.publishing import publish_folder, restore
from app.processes.parts import TritonPorts, remove_shared_memory, start_redis, start_triton
from app.processes.process import Part, launch
from app.settings import Settings
from loadtests.fault_proxy import FaultProxy, Mode
from loadtests.http_connection import ConnectionLost, HttpConnection, Response

HOST = "127.0.0.1"
READY_SECONDS = 60.0
BACKLOG = 2048
MAX_WORKERS = 8  # that are ever started on one rig


def free_ports(n: int) -> list[int]:
    """Loopback ports that nobody listens on, below those that the kernel gives to clients."""
    found: list[int] = []
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        found.append(port)
        if len(found) == n:
            return found
    raise OSError("no free ports")


@dataclass(slots=True, eq=False)
class Rig:
    """Everything that runs. ``settings`` are the workers': they see the proxies, ``behind`` sees the parts."""

    settings: Settings
    behind: Settings
    redis: FaultProxy
    triton: FaultProxy
    listener: socket.socket
    control_ports: list[int]
    redis_part: Part
    triton_part: Part
    workers: list[Part] = field(default_factory=list)

    @property
    def port(self) -> int:
        return self.settings.http_port

    def start_worker(self) -> Part:
        """One more worker, not waited for."""
        number = len(self.workers)
        given = self.settings
        environment = {name: value for name, value in os.environ.items() if not name.startswith("STREAMREC_")} | {
            "STREAMREC_HOME": str(given.home),
            "STREAMREC_HTTP_PORT": str(given.http_port),
            "STREAMREC_GRPC_PORT": str(given.grpc_port),
            "STREAMREC_HTTP_FD": str(self.listener.fileno()),
            "STREAMREC_REDIS_URL": given.redis_address,
            "STREAMREC_TRITON_URL": given.triton_address,
            "PYTHONPATH": str(Path(__file__).resolve().parents[1]),
            "OMP_NUM_THREADS": "1",
        }
        command = [sys.executable, "-m", "loadtests.chaos_app", self.control_ports[number]]
        log = given.home / "logs" / f"worker-{number}.log"
        part = launch(f"worker {number}", command, "", log, environment, (self.listener.fileno(),))
        self.workers.append(part)
        return part

    async def workers_are(self, n: int) -> None:
        """At least so many run and are ready."""
        for _ in range(n - sum(part.running for part in self.workers)):
            self.start_worker()
        await self.workers_ready()

    async def workers_ready(self) -> None:
        """Until every living worker answers on its control port and the door says ready; raises ``TimeoutError``."""
        async with asyncio.timeout(READY_SECONDS):
            while not await self._ready():
                dead = [part for part in self.workers if not part.running]
                if len(dead) == len(self.workers):
                    raise RuntimeError(f"no worker runs:\n{dead[-1].last_words()}")
                await asyncio.sleep(0.1)

    async def _ready(self) -> bool:
        try:
            await self.faults()
            return (await self.get("/readyz")).status == 200
        except (OSError, ConnectionLost):
            return False

    async def faults(self, **given: Any) -> None:
        """What is wrong inside every living worker from now on, in the fields of ``chaos_app.Faults``."""
        for port, worker in zip(self.control_ports, self.workers, strict=False):
            if worker.running:
                reader, writer = await asyncio.open_connection(HOST, port)
                writer.write(json.dumps(given).encode() + b"\n")
                assert await reader.readline() == b"ok\n"  # noqa: S101 - chaos_app's own word
                writer.close()
                await writer.wait_closed()

    async def get(self, path: str) -> Response:
        """One GET on a connection of its own; raises ``OSError`` or ``ConnectionLost``."""
        connection = await HttpConnection.open(HOST, self.port)
        try:
            return await connection.ask(f"GET {path} HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode())
        finally:
            connection.close()

    async def even_connections(self, each: int) -> list[HttpConnection]:
        """Open connections, ``each`` to every living worker, in turn: who accepts one is chance, as on any socket.

        Raises ``TimeoutError``.
        """
        ask = f"GET /healthz HTTP/1.1\r\nhost: {HOST}\r\n\r\n".encode()
        found: dict[int, list[HttpConnection]] = {part.process.pid: [] for part in self.workers if part.running}
        async with asyncio.timeout(READY_SECONDS):
            while min(map(len, found.values())) < each:
                connection = await HttpConnection.open(HOST, self.port)
                held = found[json.loads((await connection.ask(ask)).body)["worker"]]
                held.append(connection) if len(held) < each else connection.close()
        return [connection for turn in zip(*found.values(), strict=True) for connection in turn]

    async def heal(self) -> None:
        """Nothing is wrong any more, as far as this rig can say."""
        self.redis.set(Mode.PASS)
        self.triton.set(Mode.PASS)
        await self.faults()

    async def kill_redis(self) -> None:
        self.redis_part.kill()
        await asyncio.to_thread(self.redis_part.process.wait)

    async def start_redis(self) -> None:
        """Over the same append-only file; returns when it answers."""
        self.redis_part = await asyncio.to_thread(start_redis, self.behind.home, self.behind.redis_port)

    async def kill_triton(self) -> None:
        self.triton_part.kill()
        remove_shared_memory(self.behind.triton_grpc_port)

    async def start_triton(self) -> None:
        """Returns when it has the current model again."""
        self.triton_part = await asyncio.to_thread(_triton, self.behind)
        await asyncio.to_thread(restore, self.behind, _silent)

    async def metric(self, name: str) -> float:
        """The sum over all series of a metric."""
        text = (await self.get("/metrics")).body.decode()
        lines = [line for line in text.splitlines() if line.split("{")[0].split(" ")[0] == name]
        return sum(float(line.rsplit(" ", 1)[1]) for line in lines)

    def point_at(self, folder: Path) -> None:
        """Switch ``current`` as publishing does."""
        scratch = self.settings.home / ".current"
        scratch.unlink(missing_ok=True)
        scratch.symlink_to(folder)
        scratch.replace(self.settings.home / "current")

    def stop(self) -> None:
        for part in self.workers:
            part.terminate()
        for part in (*self.workers, self.triton_part, self.redis_part):
            part.stop()
        remove_shared_memory(self.behind.triton_grpc_port)
        self.listener.close()


@asynccontextmanager
async def running(bundle: Path, home: Path, triton_venv: Path, workers: int = 1) -> AsyncIterator[Rig]:
    """Everything started on free ports over a copy of the unpublished ``bundle``, and ended with the block."""
    http, grpc, redis, triton, triton_http, triton_metrics, redis_proxy, triton_proxy, *controls = free_ports(
        8 + MAX_WORKERS
    )
    behind = Settings(
        home=home, http_port=http, grpc_port=grpc, redis_port=redis, triton_grpc_port=triton,
        triton_http_port=triton_http, triton_metrics_port=triton_metrics, triton_venv=triton_venv,
    )  # fmt: skip
    seen = replace(behind, redis_url=f"redis://{HOST}:{redis_proxy}/0", triton_url=f"{HOST}:{triton_proxy}")
    async with AsyncExitStack() as ended:
        redis_way = await ended.enter_async_context(FaultProxy(redis_proxy, HOST, redis))
        triton_way = await ended.enter_async_context(FaultProxy(triton_proxy, HOST, triton))
        redis_part = await asyncio.to_thread(start_redis, home, redis)
        ended.callback(redis_part.kill)
        triton_part = await asyncio.to_thread(_triton, behind)
        ended.callback(triton_part.kill)
        copied = home / "training" / "bundle"
        await asyncio.to_thread(shutil.copytree, bundle, copied)
        await asyncio.to_thread(publish_folder, copied, behind, _silent)
        listener = socket.create_server((HOST, http), backlog=BACKLOG)
        rig = Rig(seen, behind, redis_way, triton_way, listener, controls, redis_part, triton_part)
        ended.callback(rig.stop)
        for _ in range(workers):
            rig.start_worker()
        await rig.workers_ready()
        yield rig


def _triton(settings: Settings) -> Part:
    ports = TritonPorts(settings.triton_grpc_port, settings.triton_http_port, settings.triton_metrics_port)
    return start_triton(settings.home, settings.triton_venv, ports)


def _silent(_: str) -> None:
    pass


def sigterm(part: Part) -> None:
    """To the worker itself, which is the process that ``launch`` became."""
    part.process.send_signal(signal.SIGTERM)
