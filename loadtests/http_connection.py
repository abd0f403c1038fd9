"""The cheapest HTTP/1.1 client that will do: it shares two cores with what it measures.

A request is bytes that somebody made before. An answer needs a content-length, which ours have. No pipelining: one
request a connection at a time.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass


class ConnectionLost(Exception):
    """The server closed. ``resendable``: on a connection used before, and before the first byte of an answer.

    A server may close an idle connection at the moment a request is written to it. Every HTTP client sends such a
    request again on another connection (RFC 9112, 9.3.1), and so does this one, once.
    """

    def __init__(self, *, resendable: bool) -> None:
        super().__init__("the connection was closed")
        self.resendable = resendable


@dataclass(frozen=True, slots=True)
class Response:
    """``head`` in lower case."""

    status: int
    head: bytes
    body: bytes


class HttpConnection(asyncio.Protocol):
    """One kept-alive connection; ``ask`` it when it is ``idle``."""

    def __init__(self) -> None:
        self.usable = False
        self._transport: asyncio.Transport | None = None
        self._buffer = bytearray()
        self._waiting: asyncio.Future[Response] | None = None
        self._answered = 0

    @classmethod
    async def open(cls, host: str, port: int) -> HttpConnection:
        """Raises ``OSError``."""
        _, connection = await asyncio.get_running_loop().create_connection(cls, host, port)
        return connection

    async def ask(self, request: bytes) -> Response:
        """Raises ``ConnectionLost``. A caller that is cancelled must close the connection: its answer still comes."""
        if self._transport is None or not self.usable:
            raise ConnectionLost(resendable=True)
        self._waiting = asyncio.get_running_loop().create_future()
        self._transport.write(request)
        try:
            return await self._waiting
        finally:
            self._waiting = None

    def close(self) -> None:
        self.usable = False
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = transport  # type: ignore[assignment]  # of a stream, so it can write
        self.usable = True

    def data_received(self, data: bytes) -> None:
        self._buffer += data
        end = self._buffer.find(b"\r\n\r\n")
        if end < 0:
            return
        head = bytes(self._buffer[:end]).lower()
        total = end + 4 + _content_length(head)
        if len(self._buffer) < total:
            return
        response = Response(int(head[9:12]), head, bytes(self._buffer[end + 4 : total]))
        del self._buffer[:total]
        self._answered += 1
        if b"connection: close" in head:
            self.usable = False
        if self._waiting is not None and not self._waiting.done():
            self._waiting.set_result(response)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - asyncio names it
        self.usable = False
        if self._waiting is not None and not self._waiting.done():
            resendable = self._answered > 0 and not self._buffer
            self._waiting.set_exception(ConnectionLost(resendable=resendable))


def _content_length(head: bytes) -> int:
    at = head.find(b"\r\ncontent-length:")
    if at < 0:
        return 0
    end = head.find(b"\r\n", at + 2)
    return int(head[at + len(b"\r\ncontent-length:") : end if end > 0 else len(head)])
