"""How HTTP refuses: an RFC 9457 problem document under 2 KB, in our own words only."""

from __future__ import annotations

from http import HTTPStatus

from fastapi import Request as HttpRequest
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from app import wire


def problem_response(status: int, detail: str = "", headers: dict[str, str] | None = None) -> Response:
    """An RFC 9457 problem document."""
    return Response(wire.problem(status, detail), status, headers, media_type=wire.PROBLEM)


def closing(status: HTTPStatus, detail: str = "") -> HTTPException:
    """A refusal that leaves a body unread, so the connection cannot be used again."""
    return HTTPException(status, detail, headers={"connection": "close"})


async def refuse_http(request: HttpRequest, error: Exception) -> Response:
    """Unknown routes and methods, and bodies that are too large or slow: worded by the framework or by us."""
    del request
    refusal = error if isinstance(error, HTTPException) else HTTPException(500)
    return problem_response(refusal.status_code, refusal.detail, dict(refusal.headers or {}))


async def refuse_invalid(request: HttpRequest, error: Exception) -> Response:
    """What the decoders say of a request."""
    del request
    malformed = isinstance(error, wire.MalformedRequest)
    return problem_response(400 if malformed else 422, str(error))
