"""A real worker, asked in every way about a user who would be noticed: in no log line, metric or refusal."""

from __future__ import annotations

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import grpc.aio
import httpx

from app.access import CLIENT, READER, make_key
from app.grpc_api import RECOMMENDER
from app.proto.streamrec.v1 import recommender_pb2 as pb
from app.settings import PREFIX
from release.bundle import PUBLICATION, Bundle
from tests.app.doors import ask, post, problems

ROOT = Path(__file__).parents[2]
USER = "user-zq93-noticeable"


async def test_neither_a_user_nor_a_key_is_in_logs_or_metrics(
    tmp_path: Path, tiny_bundle: Bundle, free_port: Callable[[], int]
) -> None:
    token, key = make_key("shop", CLIENT)
    reading, reader = make_key("prometheus", READER)
    (tmp_path / "keys").write_text(f"{key.line}\n{reader.line}\n")
    shutil.copytree(tiny_bundle.path, tmp_path / "bundles" / "7")
    (tmp_path / "bundles" / "7" / PUBLICATION).write_text(json.dumps({"number": 7, "published_at": 1.7e9}))
    (tmp_path / "current").symlink_to("bundles/7")
    http_port, grpc_port = free_port(), free_port()
    inherited = {name: value for name, value in os.environ.items() if not name.startswith((PREFIX, "PROMETHEUS"))}
    environ = inherited | {
        "PYTHONPATH": str(ROOT),
        "STREAMREC_HOME": str(tmp_path),
        "STREAMREC_HTTP_PORT": str(http_port),
        "STREAMREC_GRPC_PORT": str(grpc_port),
        "STREAMREC_REDIS_URL": "redis://127.0.0.1:1",
        "STREAMREC_TRITON_URL": "127.0.0.1:1",
        "STREAMREC_API_KEYS": str(tmp_path / "keys"),
        "STREAMREC_LOG_LEVEL": "debug",
    }
    log = tmp_path / "worker.log"
    with (
        log.open("wb") as output,
        subprocess.Popen(  # noqa: ASYNC220  # nothing else runs on this loop meanwhile
            [sys.executable, "-m", "app.main"], env=environ, stderr=output, stdout=output
        ) as worker,
    ):
        try:
            answers = await _ask_in_every_way(worker, http_port, grpc_port, token)
            async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{http_port}", trust_env=False) as client:
                headers = {"authorization": f"Bearer {reading}"}
                told = [(await client.get(path, headers=headers)).text for path in ("/metrics", "/healthz")]
        finally:
            worker.send_signal(signal.SIGTERM)
            worker.wait(20)
    assert answers == [200, 200, 422, 422, 400, 503, 401, 404, 400, 400, 413, "OK", "UNAUTHENTICATED"]
    told += [path.read_text(errors="replace") for path in (log, *(tmp_path / "workers").glob("*"))]
    assert 'streamrec_requests_total{status="200",transport="http"} 2.0' in told[0]
    assert "serving" in log.read_text()
    for text in told:
        assert USER not in text
        assert token.partition(".")[2] not in text


async def _ask_in_every_way(
    worker: subprocess.Popen[bytes], http_port: int, grpc_port: int, token: str
) -> list[object]:
    """The status of each, the service having neither Redis nor Triton behind it."""
    headers, body = {"authorization": f"Bearer {token}"}, {"user_id": USER, "debug": True}
    event = {"event_id": USER, "user_id": USER, "item_id": USER, "kind": "play"}
    async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{http_port}", trust_env=False, timeout=20) as client:
        while worker.poll() is None:
            with contextlib.suppress(httpx.TransportError):
                if (await client.get("/readyz")).status_code == 200:
                    break
        over_http = [
            await client.post("/v1/recommendations", json=body, headers=headers),
            await client.get(f"/v1/recommendations/{USER}", headers=headers),
            await client.post("/v1/recommendations", json=body | {USER: 1}, headers=headers),
            await client.get(f"/v1/recommendations/{USER}?{USER}={USER}", headers=headers),
            await client.post(
                "/v1/recommendations", content=USER, headers=headers | {"content-type": "application/json"}
            ),
            await client.post("/v1/events", json={"events": [event]}, headers=headers),
            await client.post("/v1/recommendations", json=body, headers={"authorization": f"Bearer {USER}"}),
            await client.get(f"/{USER}", headers=headers | {"x-request-id": "r"}),
        ]
    broken = [
        await ask(http_port, USER.encode() + b"\r\n\r\n"),
        await ask(http_port, post(b"5", f"X: {USER}", "Content-Length: 7")),
        await ask(http_port, post(b"", f"Authorization: Bearer {token}", length=60_000_000), *[b" " * 1_000_000] * 60),
    ]
    async with grpc.aio.insecure_channel(f"127.0.0.1:{grpc_port}") as channel:
        method = channel.unary_unary(f"/{RECOMMENDER}/Recommend")
        asked = pb.RecommendRequest(user_id=USER).SerializeToString()
        calls = [method(asked, metadata=(("authorization", f"Bearer {given}"),)) for given in (token, USER)]
        codes = [(await call.code()).name for call in calls]
    refused = [document["status"] for answer in broken for document in problems(answer)]
    return [*(response.status_code for response in over_http), *refused, *codes]
