"""One HTTP connection: uvicorn's, with what it lacks against callers who are slow, large or broken.

header    has to be there within HEADER_SECONDS of its first byte and in MAX_HEADER_BYTES, else 408 or 431
nonsense  is answered with a problem document
close     of a connection whose body was refused lingers: the sending side is closed, what still comes is thrown away
          for LINGER_SECONDS. Closed at once, the kernel would reset it and the caller might never read the refusal
answer    that its caller does not read is given up WRITE_SECONDS after the buffers are full: else it would stay for
          ever, and so would the next request of the connection, in a place
"""

from __future__ import annotations

import asyncio
from typing import Any

from uvicorn.protocols.http.httptools_impl import HttpToolsProtocol

from app import wire

HEADER_SECONDS = 5.0
LINGER_SECONDS = 2.0
WRITE_SECONDS = 5.0
MAX_HEADER_BYTES = 16 * 1024

_TITLES = {400: b"Bad Request", 408: b"Request Timeout", 431: b"Request Header Fields Too Large"}
_NOT_HTTP = "this is not a valid HTTP/1.1 request"


class HeaderTooLarge(Exception):
    """Ends the parsing of a header."""


class Lingering(asyncio.Transport):
    """A transport whose ``close`` first lets the other side finish, if it is still sending."""

    def __init__(self, inner: asyncio.Transport, connection: Connection) -> None:
        super().__init__()
        self._inner, self._connection = inner, connection
        self.lingering = False

    def close(self) -> None:
        if self.is_closing():
            return
        if not self._connection.receiving:
            self._inner.close()
            return
        self.lingering = True
        self._inner.write_eof()
        self._inner.resume_reading()
        self._connection.loop.call_later(self._connection.linger_seconds, self._inner.close)

    def abort(self) -> None:
        self._inner.abort()

    def is_closing(self) -> bool:
        return self.lingering or self._inner.is_closing()

    def write(self, data: bytes | bytearray | memoryview[Any]) -> None:
        if not self.lingering:
            self._inner.write(data)

    def pause_reading(self) -> None:
        self._inner.pause_reading()

    def resume_reading(self) -> None:
        self._inner.resume_reading()

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return self._inner.get_extra_info(name, default)


class Connection(HttpToolsProtocol):
    """What ``uvicorn.Config(http=...)`` wants."""

    header_seconds = HEADER_SECONDS
    linger_seconds = LINGER_SECONDS
    write_seconds = WRITE_SECONDS
    receiving = False  # in the middle of a message, or of what should have been one
    _in_header = False
    _header_bytes = 0  # parsed
    _raw_bytes = 0  # arrived since the header began, perhaps unparsed
    _timer: asyncio.TimerHandle | None = None
    _unread: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]  # as in uvicorn
        super().connection_made(Lingering(transport, self))
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop_timer()
        self._stop_unread()
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def pause_writing(self) -> None:
        super().pause_writing()
        if self._unread is None:
            self._unread = self.loop.call_later(self.write_seconds, self.transport.abort)

    def resume_writing(self) -> None:
        super().resume_writing()
        self._stop_unread()

    def data_received(self, data: bytes) -> None:
        if self.transport.is_closing():
            return
        if self._timer is None and (self.cycle is None or self.cycle.response_complete):
            self._timer = self.loop.call_later(self.header_seconds, self._late)
        self._raw_bytes += len(data)
        super().data_received(data)
        if self._in_header and self._raw_bytes > 2 * MAX_HEADER_BYTES:
            self._refuse(431)

    def on_message_begin(self) -> None:
        super().on_message_begin()
        self.receiving = self._in_header = True
        self._header_bytes = self._raw_bytes = 0

    def on_url(self, url: bytes) -> None:
        self._count(url)
        super().on_url(url)

    def on_header(self, name: bytes, value: bytes) -> None:
        self._count(name, value)
        if self._in_header:  # else it is a trailer, which nobody here reads
            super().on_header(name, value)

    def on_headers_complete(self) -> None:
        self._in_header = False
        self._stop_timer()
        super().on_headers_complete()

    def on_message_complete(self) -> None:
        self.receiving = False
        self._stop_timer()
        super().on_message_complete()

    def send_400_response(self, msg: str) -> None:
        """What uvicorn calls when the parser gives up."""
        del msg
        self._refuse(431 if self._header_bytes > MAX_HEADER_BYTES else 400)

    def _count(self, *parts: bytes) -> None:
        self._header_bytes += sum(map(len, parts))
        if self._header_bytes > MAX_HEADER_BYTES:
            raise HeaderTooLarge

    def _late(self) -> None:
        """The header did not come in time; or a request already answered goes on sending its body."""
        self._timer = None
        if self.cycle is None or self._in_header:
            self._refuse(408)
        else:
            self.transport.close()

    def _refuse(self, status: int) -> None:
        self._stop_timer()
        if self.transport.is_closing():
            return
        self.receiving = True  # whatever else comes is not read
        if self.cycle is None or self.cycle.response_complete or not self.cycle.response_started:
            body = wire.problem(status, _NOT_HTTP if status == 400 else "")
            head = b"HTTP/1.1 %d %s\r\ncontent-type: %s\r\ncontent-length: %d\r\nconnection: close\r\n\r\n"
            self.transport.write(head % (status, _TITLES[status], wire.PROBLEM.encode(), len(body)) + body)
        if self.cycle is not None and not self.cycle.response_complete:
            self.cycle.disconnected = True  # the request in hand was part of the nonsense: nobody hears its answer
            self.cycle.message_event.set()
        self.transport.close()

    def _stop_unread(self) -> None:
        if self._unread is not None:
            self._unread.cancel()
            self._unread = None

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
