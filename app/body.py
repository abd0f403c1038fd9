"""Reading a body that may be too large, too slow, or not what was announced."""

from __future__ import annotations

import asyncio
from http import HTTPStatus

from fastapi import Request as HttpRequest

from app.edge import MAX_REQUEST_BYTES
from app.refusal import closing

BODY_SECONDS = 5.0
"""How long a body may take to arrive. A caller's deadline runs meanwhile; this only frees the connection."""

TOO_LARGE = f"the body may have at most {MAX_REQUEST_BYTES} bytes"


async def read_body(request: HttpRequest, seconds: float = BODY_SECONDS) -> bytes:
    """The whole body, refused as soon as it is known to be too large or too slow; raises ``HTTPException``.

    A body announced as too large is refused before a byte of it is read, one of unknown length at the first byte too
    many. One shorter than announced is too slow, or its caller has left: then ``ClientDisconnect`` is raised.
    """
    declared = request.headers.get("content-length", "0")
    if not declared.isascii() or not declared.isdigit():
        raise closing(HTTPStatus.BAD_REQUEST)
    if len(declared) > 9 or int(declared) > MAX_REQUEST_BYTES:
        raise closing(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, TOO_LARGE)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_REQUEST_BYTES:
                    raise closing(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, TOO_LARGE)
    except TimeoutError:
        raise closing(HTTPStatus.REQUEST_TIMEOUT) from None
    return bytes(body)
