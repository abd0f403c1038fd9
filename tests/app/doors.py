"""A real HTTP server on a port of its own over a fake service, and raw bytes to send to it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import socket
from collections.abc import AsyncIterator, Iterable
from typing import Any

from app.access import Access
from app.connection import Connection
from app.edge import Readiness
from app.main import HttpDoor
from app.settings import Settings
from tests.app.fake_serving import FakeServing


class Hasty(Connection):
    """A connection that loses patience at once, so that tests of patience take no time."""

    header_seconds = 0.3
    linger_seconds = 0.1
    write_seconds = 0.3


@contextlib.asynccontextmanager
async def listening(
    serving: FakeServing,
    settings: Settings | None = None,
    access: Access | None = None,
    connection: type[Connection] = Connection,
) -> AsyncIterator[int]:
    """The port."""
    server = HttpDoor(serving, Readiness(serving), settings or Settings(), access)
    server.config.http = connection
    with socket.create_server(("127.0.0.1", 0)) as listener:
        task = asyncio.create_task(server.serve([listener]))
        try:
            yield listener.getsockname()[1]
        finally:
            server.should_exit = True
            await task


async def ask(port: int, *parts: bytes) -> bytes:
    """Send raw bytes, each part after a moment of its own, and read until the server closes."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    with contextlib.suppress(ConnectionError):
        for part in parts:
            writer.write(part)
            await writer.drain()
    answer = await asyncio.wait_for(reader.read(), 20)
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()
    return answer


def post(body: bytes, *headers: str, path: str = "/v1/recommendations", length: int | None = None) -> bytes:
    """A POST that asks for the connection to be closed; ``length`` is what is announced."""
    lines = [f"POST {path} HTTP/1.1", "Host: x", "Connection: close"]
    lines += ["Content-Type: application/json", f"Content-Length: {len(body) if length is None else length}"]
    lines += [*headers, "", ""]
    return "\r\n".join(lines).encode() + body


def problems(answer: bytes) -> Iterable[dict[str, Any]]:
    """Every answer in these bytes, each of which must be a problem document under 2 KB."""
    while answer:
        head, _, rest = answer.partition(b"\r\n\r\n")
        fields = dict(line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:])
        assert fields[b"content-type"] == b"application/problem+json", head
        size = int(fields[b"content-length"])
        assert size < 2048
        document = json.loads(rest[:size])
        assert document["status"] == int(head.split()[1])
        yield document
        answer = rest[size:]
