"""Reading a body that may be too large, too slow, or not what was announced."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from fastapi import Request as HttpRequest
from starlette.datastructures import Headers
from starlette.requests import ClientDisconnect

from app.edge import MAX_REQUEST_BYTES
from app.refusal import closing

BODY_SECONDS = 5.0
"""How long a body may take to arrive. A caller's deadline runs meanwhile; this only frees the connection."""

JSON = "application/json"
"""What a page of another origin cannot send without asking first (CORS), which nobody here allows."""

TOO_LARGE = f"the body may have at most {MAX_REQUEST_BYTES} bytes"


class Bodies:
    """The bodies that a process waits for, ``most`` at once: one more, and the one waited for longest is given up.

    A body that is there is read at once, so what waits for long is a caller who sends slowly. Refusing newcomers
    instead would let a thousand of those shut out everybody else.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._waiting: dict[asyncio.Timeout, None] = {}  # the eldest first

    async def read(self, request: HttpRequest, seconds: float = BODY_SECONDS) -> bytes:
        """The whole body, refused as soon as it is known to be too large, too slow or not JSON; raises
        ``HTTPException``.

        A body announced as too large is refused before a byte of it is read, one of unknown length at the first byte
        too many. One shorter than announced is too slow, or its caller has left: then ``ClientDisconnect`` is raised.
        """
        _check_announced(request.headers)
        try:
            async with asyncio.timeout(seconds) as patience:
                self._begin(patience)
                try:
                    return await _collected(request)
                finally:
                    self._waiting.pop(patience, None)
        except TimeoutError:
            raise closing(HTTPStatus.REQUEST_TIMEOUT) from None

    def _begin(self, patience: asyncio.Timeout) -> None:
        if len(self._waiting) >= self._most:
            eldest = next(iter(self._waiting))
            del self._waiting[eldest]
            if not eldest.expired():
                eldest.reschedule(0.0)
        self._waiting[patience] = None


def _check_announced(headers: Headers) -> None:
    declared = headers.get("content-length", "0")
    if not declared.isascii() or not declared.isdigit():
        raise closing(HTTPStatus.BAD_REQUEST)
    if len(declared) > 9 or int(declared) > MAX_REQUEST_BYTES:
        raise closing(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, TOO_LARGE)
    if headers.get("content-type", "").partition(";")[0].strip().lower() != JSON:
        raise closing(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, f"the body must be of the type {JSON}")


async def _collected(request: HttpRequest) -> bytes:
    body, more = bytearray(), True
    while more:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientDisconnect
        body += message.get("body", b"")
        more = message.get("more_body", False)
        if len(body) > MAX_REQUEST_BYTES:
            raise closing(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, TOO_LARGE)
    return bytes(body)
