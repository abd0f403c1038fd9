"""How HTTP refuses: an RFC 9457 problem document under 2 KB, in our own words only."""

from __future__ import annotations

from http import HTTPStatus

from fastapi.responses import Response
from starlette.exceptions import HTTPException

from app import wire
from domain.errors import InvalidRequest


def problem_response(status: int, detail: str = "", headers: dict[str, str] | None = None) -> Response:
    """An RFC 9457 problem document."""
    return Response(wire.problem(status, detail), status, headers, media_type=wire.PROBLEM)


def closing(status: HTTPStatus, detail: str = "") -> HTTPException:
    """A refusal that leaves a body unread, so the connection cannot be used again."""
    return HTTPException(status, detail, headers={"connection": "close"})


def refused(error: Exception) -> Response | None:
    """What an exception says of the request; None where it is a bug of ours.

    ``HTTPException``: unknown routes and methods, and bodies that are too large or slow, worded by the framework or by
    us. ``InvalidRequest``: what the decoders say. No route has FastAPI check a parameter or a body, so it refuses none.
    """
    if isinstance(error, HTTPException):
        return problem_response(error.status_code, error.detail, dict(error.headers or {}))
    if isinstance(error, InvalidRequest):
        return problem_response(400 if isinstance(error, wire.MalformedRequest) else 422, str(error))
    return None
