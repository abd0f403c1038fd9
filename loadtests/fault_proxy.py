"""A TCP proxy that breaks what passes through it, switchable while it runs.

    python -m loadtests.fault_proxy LISTEN_PORT HOST:PORT      then a fault a line on its standard input: delay 0.2

======== ==================================================================
pass     bytes pass
delay    every piece of an answer comes so many seconds later
blackhole  connections are accepted and nothing passes either way
reset    connections are reset, the open ones at once, new ones when accepted
truncate the first bytes of an answer pass, then the connection ends
garble   answers pass with every byte inverted
======== ==================================================================

A change holds for open connections, too. Where the server is not there, a connection is reset, as if nothing listened.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
import sys
from dataclasses import dataclass, field
from enum import StrEnum
from typing import Self

CHUNK_BYTES = 64 * 1024
TRUNCATED_BYTES = 3
INVERTED = bytes(255 - byte for byte in range(256))
RESET = struct.pack("ii", 1, 0)  # SO_LINGER: discard what is unsent and answer with RST


class Mode(StrEnum):
    PASS = "pass"  # noqa: S105 - no password
    DELAY = "delay"
    BLACKHOLE = "blackhole"
    RESET = "reset"
    TRUNCATE = "truncate"
    GARBLE = "garble"


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong; ``seconds`` is how late answers are under ``DELAY``."""

    mode: Mode = Mode.PASS
    seconds: float = 0.0


@dataclass(slots=True, eq=False)
class FaultProxy:
    """Between ``port`` on loopback and a server; use it in ``async with``."""

    port: int
    host: str
    server_port: int
    fault: Fault = field(default_factory=Fault)
    _listening: asyncio.Server | None = None
    _clients: dict[asyncio.Task[None], asyncio.StreamWriter] = field(default_factory=dict)
    _moved: asyncio.Event = field(default_factory=asyncio.Event)

    async def __aenter__(self) -> Self:
        self._listening = await asyncio.start_server(self._serve, "127.0.0.1", self.port)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._listening is not None:
            self._listening.close()
        tasks = list(self._clients)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)  # cancelled by us: nothing is swallowed

    def set(self, mode: Mode | str, seconds: float = 0.0) -> None:
        """Break it, or mend it, from now on. What a blackhole or a broken answer swallowed never arrives."""
        before, self.fault = self.fault, Fault(Mode(mode), seconds)
        self._moved.set()
        self._moved = asyncio.Event()
        if self.fault.mode is Mode.RESET or before.mode is Mode.BLACKHOLE:
            for writer in self._clients.values():
                _reset(writer)

    @property
    def connections(self) -> int:
        return len(self._clients)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None  # noqa: S101 - asyncio runs every client in a task
        self._clients[task] = writer
        try:
            with contextlib.suppress(OSError, asyncio.CancelledError):
                await self._through(reader, writer)
        finally:
            del self._clients[task]
            await _closed(writer)

    async def _through(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.fault.mode is Mode.RESET:
            _reset(writer)
            return
        try:
            server_reader, server_writer = await asyncio.open_connection(self.host, self.server_port)
        except OSError:
            _reset(writer)
            raise
        ways = [
            asyncio.create_task(self._pump(reader, server_writer, answers=False)),
            asyncio.create_task(self._pump(server_reader, writer, answers=True)),
        ]
        try:
            await asyncio.wait(ways, return_when=asyncio.FIRST_COMPLETED)
        finally:
            server_writer.close()  # before anything is awaited: this may be cancelled a second time
            for way in ways:
                way.cancel()
            await asyncio.gather(*ways, return_exceptions=True)  # cancelled by us, or ended by a closed socket
            await _closed(server_writer)

    async def _pump(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter, *, answers: bool) -> None:
        """One way, until either side closes."""
        while piece := await reader.read(CHUNK_BYTES):
            while self.fault.mode is Mode.BLACKHOLE:
                await self._moved.wait()
            if self.fault.mode is Mode.RESET:
                return
            if answers and self.fault.mode is Mode.DELAY:
                await asyncio.sleep(self.fault.seconds)
            if answers and self.fault.mode is Mode.TRUNCATE:
                writer.write(piece[:TRUNCATED_BYTES])
                await writer.drain()
                return
            writer.write(piece.translate(INVERTED) if answers and self.fault.mode is Mode.GARBLE else piece)
            await writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    connection = writer.get_extra_info("socket")
    with contextlib.suppress(OSError):
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
    writer.transport.abort()


async def _closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()


async def _run(port: int, host: str, server_port: int) -> None:
    async with FaultProxy(port, host, server_port) as proxy:
        while line := await asyncio.to_thread(sys.stdin.readline):
            mode, _, seconds = line.strip().partition(" ")
            try:
                proxy.set(mode, float(seconds or 0))
            except ValueError:
                print(f"known are {', '.join(Mode)}, with seconds behind delay", flush=True)


if __name__ == "__main__":
    _host, _, _port = sys.argv[2].rpartition(":")
    asyncio.run(_run(int(sys.argv[1]), _host, int(_port)))
