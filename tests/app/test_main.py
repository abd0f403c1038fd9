"""One worker: both doors open together and close without losing what is in flight."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import grpc.aio
import httpx
import pytest

from app.access import make_key
from app.grpc_api import RECOMMENDER
from app.health import Heartbeat
from app.main import listen, serve_until
from app.proto.streamrec.v1 import recommender_pb2 as pb
from app.settings import PREFIX, Settings, describe
from domain.errors import StartError
from release.bundle import PUBLICATION, Bundle
from tests.app.certificates import Certificates
from tests.app.fake_serving import FakeServing

ROOT = Path(__file__).parents[2]


def free_ports(n: int) -> list[int]:
    with contextlib.ExitStack() as held:
        return [held.enter_context(socket.create_server(("127.0.0.1", 0))).getsockname()[1] for _ in range(n)]


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    http_port, grpc_port = free_ports(2)
    return Settings(home=tmp_path, http_port=http_port, grpc_port=grpc_port)


@contextlib.asynccontextmanager
async def working(settings: Settings, serving: FakeServing) -> AsyncIterator[tuple[asyncio.Event, asyncio.Task[None]]]:
    """A worker with its doors open, the event that tells it to stop, and its task."""
    stop = asyncio.Event()
    task = asyncio.create_task(serve_until(stop.wait, serving, settings))
    async with httpx.AsyncClient(base_url=settings.http_address, trust_env=False) as client:
        async with asyncio.timeout(10):
            while not task.done():
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get("/livez")).status_code == 200:
                        break
    try:
        yield stop, task
    finally:
        stop.set()
        await task


async def test_both_doors_give_the_same_slate(settings: Settings) -> None:
    serving = FakeServing()
    async with (
        working(settings, serving),
        httpx.AsyncClient(base_url=settings.http_address, trust_env=False) as client,
        grpc.aio.insecure_channel(f"127.0.0.1:{settings.grpc_port}") as channel,
    ):
        over_http = (await client.post("/v1/recommendations", json={"user_id": "42"})).json()
        call = channel.unary_unary(f"/{RECOMMENDER}/Recommend", response_deserializer=pb.RecommendResponse.FromString)
        over_grpc = await call(pb.RecommendRequest(user_id="42").SerializeToString(), timeout=10)
    assert [item["item_id"] for item in over_http["items"]] == [item.item_id for item in over_grpc.items]
    assert [query.user_id for query in serving.asked] == ["42", "42"]


async def test_both_doors_ask_for_the_same_key_and_grpc_speaks_the_tls_of_the_settings(tmp_path: Path) -> None:
    http_port, grpc_port = free_ports(2)
    (token, key), certificates = make_key("shop", rate=0.01, burst=2), Certificates(tmp_path)
    (tmp_path / "keys").write_text(key.line)
    certificate, private = certificates.server
    settings = Settings(
        home=tmp_path,
        http_port=http_port,
        grpc_port=grpc_port,
        api_keys=tmp_path / "keys",
        grpc_cert=certificate,
        grpc_key=private,
    )
    trusting = grpc.ssl_channel_credentials(certificates.ca.read_bytes())
    async with (
        working(settings, FakeServing()),
        httpx.AsyncClient(base_url=settings.http_address, trust_env=False) as client,
        grpc.aio.secure_channel(f"127.0.0.1:{grpc_port}", trusting) as channel,
    ):
        asked, shown = pb.RecommendRequest(user_id="42").SerializeToString(), {"authorization": f"Bearer {token}"}
        method = channel.unary_unary(f"/{RECOMMENDER}/Recommend")
        assert (await client.get("/v1/recommendations/42")).status_code == 401
        assert await method(asked, timeout=10).code() is grpc.StatusCode.UNAUTHENTICATED
        assert (await client.get("/v1/recommendations/42", headers=shown)).status_code == 200
        assert await method(asked, metadata=tuple(shown.items()), timeout=10).code() is grpc.StatusCode.OK
        assert (await client.get("/v1/recommendations/42", headers=shown)).status_code == 429  # one bucket for both


async def test_a_worker_does_not_open_to_strangers_without_keys(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="STREAMREC_API_KEYS"):
        await serve_until(asyncio.Event().wait, FakeServing(), Settings(home=tmp_path, host="0.0.0.0"))


async def test_a_worker_told_to_stop_finishes_what_is_in_flight(settings: Settings) -> None:
    gate = asyncio.Event()
    serving = FakeServing(gate=gate)
    async with (
        httpx.AsyncClient(base_url=settings.http_address, trust_env=False) as client,
        working(settings, serving) as (stop, task),
    ):
        in_flight = asyncio.create_task(client.get("/v1/recommendations/42"))
        await asyncio.wait_for(serving.arrived.wait(), 10)
        stop.set()
        await asyncio.wait({task}, timeout=0.5)
        assert not task.done()
        with pytest.raises(OSError, match="refused"):
            socket.create_connection(("127.0.0.1", settings.http_port))
        gate.set()
        assert (await in_flight).status_code == 200
        await asyncio.wait_for(task, 10)


async def test_a_draining_worker_is_unready_and_still_answers(settings: Settings) -> None:
    draining = Settings(
        home=settings.home, http_port=settings.http_port, grpc_port=settings.grpc_port, drain_seconds=1.0
    )
    async with (
        working(draining, FakeServing()) as (stop, _),
        httpx.AsyncClient(base_url=settings.http_address, trust_env=False) as client,
    ):
        assert (await client.get("/readyz")).status_code == 200
        stop.set()
        async with asyncio.timeout(0.9):
            while (await client.get("/readyz")).status_code != 503:
                pass
        assert (await client.get("/v1/recommendations/42")).status_code == 200


async def test_a_worker_told_to_stop_under_load_fails_no_request(settings: Settings) -> None:
    """Callers go on as long as the worker calls itself ready, as those behind a load balancer do."""
    statuses: list[int] = []
    many = asyncio.Event()

    async def ask_while_ready(client: httpx.AsyncClient) -> None:
        while (await client.get("/readyz")).status_code == 200:
            statuses.append((await client.get("/v1/recommendations/42")).status_code)
            if len(statuses) >= 50:
                many.set()

    async with (
        working(replace(settings, drain_seconds=2.0), FakeServing()) as (stop, task),
        httpx.AsyncClient(base_url=settings.http_address, trust_env=False, timeout=30) as client,
    ):
        asking = [asyncio.create_task(ask_while_ready(client)) for _ in range(8)]
        await asyncio.wait_for(many.wait(), 30)
        stop.set()
        await asyncio.gather(*asking)
        await asyncio.wait_for(task, 30)
    assert set(statuses) == {200}


async def test_a_port_already_taken_is_told(settings: Settings) -> None:
    with (
        socket.create_server(("127.0.0.1", settings.http_port)),
        pytest.raises(StartError, match=f"HTTP cannot listen on 127.0.0.1:{settings.http_port}"),
    ):
        await serve_until(asyncio.Event().wait, FakeServing(), settings)


def test_an_inherited_socket_is_listened_on(settings: Settings) -> None:
    given = socket.create_server(("127.0.0.1", 0))
    port = given.getsockname()[1]
    with listen(Settings(home=settings.home, http_fd=given.detach())) as listener:
        assert listener.getsockname()[1] == port


def test_a_heartbeat_tells_the_publication_in_use_and_ends_with_the_worker(tmp_path: Path) -> None:
    heartbeat = Heartbeat(tmp_path / "workers", pid=7)
    heartbeat.beat(3)
    heartbeat.beat(4)
    assert json.loads((tmp_path / "workers" / "7.json").read_text()) == {"pid": 7, "number": 4}
    heartbeat.stop()
    assert list((tmp_path / "workers").iterdir()) == []


def test_a_disk_that_cannot_be_written_does_not_stop_a_worker(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "workers").write_text("a file where the folder should be")
    Heartbeat(tmp_path / "workers").beat(3)
    Heartbeat(tmp_path / "workers").stop()
    assert [record.getMessage() for record in caplog.records] == ["heartbeat not written"]


@pytest.fixture
def worker(settings: Settings, tiny_bundle: Bundle) -> Iterator[subprocess.Popen[str]]:
    """A worker process of its own over a published bundle, with neither Redis nor Triton behind it."""
    bundle = settings.home / "bundles" / "7"
    shutil.copytree(tiny_bundle.path, bundle)
    (bundle / PUBLICATION).write_text(json.dumps({"number": 7, "published_at": 1.7e9}))
    (settings.home / "current").symlink_to(bundle)
    here = {row.variable: row.value for row in describe(settings) if row.value != row.default}
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(PREFIX)}
    dead = {"STREAMREC_REDIS_URL": "redis://127.0.0.1:1", "STREAMREC_TRITON_URL": "127.0.0.1:1"}
    environ = {**inherited, **here, **dead, "PYTHONPATH": str(ROOT)}
    with subprocess.Popen(
        [sys.executable, "-m", "app.main"], env=environ, stderr=subprocess.PIPE, text=True
    ) as process:
        yield process
        process.kill()


async def test_a_worker_process_answers_with_nothing_behind_it_and_leaves_when_told(
    worker: subprocess.Popen[str], settings: Settings
) -> None:
    heartbeat = settings.workers_folder / f"{worker.pid}.json"
    async with httpx.AsyncClient(base_url=settings.http_address, trust_env=False) as client:
        async with asyncio.timeout(60):
            while worker.poll() is None:
                with contextlib.suppress(httpx.TransportError):
                    if (await client.get("/readyz")).status_code == 200:
                        break
                await asyncio.sleep(0.05)  # it is another process: there is nothing here to wait on
        response = await client.get("/v1/recommendations/nobody?limit=5")
        state = (await client.get("/healthz")).json()
    assert response.status_code == 200
    assert len(response.json()["items"]) == 5
    assert response.json()["degradation"]["level"] != "FULL"
    assert (state["worker"], state["bundle"]["number"]) == (worker.pid, 7)
    assert json.loads(heartbeat.read_text()) == {"pid": worker.pid, "number": 7}
    worker.send_signal(signal.SIGTERM)
    log = await asyncio.to_thread(worker.communicate, timeout=20)
    assert worker.returncode == 0, log[1]
    assert not heartbeat.exists()
    assert all(json.loads(line)["level"] != "error" for line in log[1].splitlines())
