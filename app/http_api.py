"""HTTP: strict at the door, RFC 9457 when it refuses, and always an answer."""

from __future__ import annotations

import asyncio
import time
from http import HTTPStatus
from typing import TYPE_CHECKING

import orjson
from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect

from app import events_api, metrics, openapi, wire
from app.edge import (
    MAX_REQUEST_BYTES,
    Patience,
    Readiness,
    Serving,
    answer,
    report_bug,
    request_id,
    seconds_of,
)
from domain.deadline import Deadline
from domain.errors import DependencyError, InvalidRequest
from domain.request import Query
from events.log import EventLog

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

BODY_SECONDS = 5.0
"""How long a body may take to arrive. A caller's deadline runs meanwhile; this only frees the connection."""

CLIENT_LEFT = 499
MEASURED = {"/v1/recommendations": metrics.request_finished, "/v1/events": metrics.events_asked}

JSON = "application/json"


def create_app(serving: Serving, readiness: Readiness, patience: Patience) -> FastAPI:
    """The ASGI application over ``serving``."""
    app = FastAPI(
        title="StreamRec",
        version="1",
        middleware=[Middleware(Edge)],
        exception_handlers={HTTPException: _refuse_http, InvalidRequest: _refuse_invalid},
        redirect_slashes=False,
        redoc_url=None,
    )
    _add_recommendations(app, serving, patience)
    _add_events(app, serving.events)
    _add_probes(app, serving, readiness)
    return app


def _add_recommendations(app: FastAPI, serving: Serving, patience: Patience) -> None:
    async def respond(query: Query, deadline: Deadline) -> Response:
        given = await answer(serving, query, deadline)
        return Response(wire.answer_to_json(given, debug=query.debug), media_type=JSON)

    @app.post("/v1/recommendations", openapi_extra=openapi.POST, tags=["recommendations"])
    async def recommend(request: HttpRequest) -> Response:
        """What should this user see now?"""
        deadline = _deadline(request, patience)
        try:
            body = await read_body(request)
        except ClientDisconnect:
            return Response(status_code=CLIENT_LEFT)  # told to nobody, but counted
        return await respond(wire.query_from_json(body, request.state.request_id), deadline)

    user_path = "/v1/recommendations/{user_id:path}"  # an id may have slashes in it; wire reads and checks it

    @app.get(user_path, openapi_extra=openapi.GET, tags=["recommendations"])
    async def recommend_user(request: HttpRequest) -> Response:
        """The same answer, for a person with curl."""
        deadline = _deadline(request, patience)
        parameters = request.query_params.multi_items()
        query = wire.query_from_path(request.path_params["user_id"], parameters, request.state.request_id)
        return await respond(query, deadline)


def _add_events(app: FastAPI, log: EventLog) -> None:
    @app.post("/v1/events", status_code=HTTPStatus.ACCEPTED, openapi_extra=openapi.POST_EVENTS, tags=["events"])
    async def append(request: HttpRequest) -> Response:
        """What users did. Accepted once the log has all of it; the same batch may be sent again at any time."""
        try:
            body = await read_body(request)
        except ClientDisconnect:
            return Response(status_code=CLIENT_LEFT)
        events = events_api.events_from_json(body, time.time())
        try:
            await events_api.accept(log, events)
        except DependencyError as error:
            metrics.events_not_taken(error.cause)
            later = {"retry-after": str(events_api.RETRY_SECONDS)}
            return problem_response(HTTPStatus.SERVICE_UNAVAILABLE, events_api.NOT_TAKEN, later)
        return Response(orjson.dumps({"accepted": len(events)}), HTTPStatus.ACCEPTED, media_type=JSON)


def _add_probes(app: FastAPI, serving: Serving, readiness: Readiness) -> None:
    @app.get("/livez", tags=["probes"])
    async def alive() -> Response:
        """The process runs and its loop turns."""
        return Response(b'{"alive":true}', media_type=JSON)

    @app.get("/readyz", tags=["probes"])
    async def ready() -> Response:
        """This process wants requests. A dead dependency changes nothing here: the answer still comes."""
        body = orjson.dumps({"ready": readiness.ready})
        return Response(body, HTTPStatus.OK if readiness.ready else HTTPStatus.SERVICE_UNAVAILABLE, media_type=JSON)

    @app.get("/healthz", tags=["probes"])
    async def health() -> Response:
        """What is loaded here, and the state of each dependency as this worker sees it."""
        return Response(orjson.dumps({"ready": readiness.ready, **serving.state()}), media_type=JSON)

    @app.get("/metrics", tags=["probes"])
    async def measured() -> Response:
        """Prometheus' text format, all workers together."""
        body, media_type = await asyncio.to_thread(metrics.exposition)  # reads a file for each worker
        return Response(body, headers={"content-type": media_type})


def _deadline(request: HttpRequest, patience: Patience) -> Deadline:
    """Counted from the moment the request came through the door, so that a slow body spends the caller's time."""
    asked = seconds_of(request.headers.get("x-request-timeout-ms"))
    return Deadline(request.state.arrived_at + patience.seconds(asked))


async def read_body(request: HttpRequest, seconds: float = BODY_SECONDS) -> bytes:
    """The whole body, refused as soon as it is known to be too large or too slow; raises ``HTTPException``."""
    declared = request.headers.get("content-length", "0")
    if not declared.isascii() or not declared.isdigit():
        raise _closing(HTTPStatus.BAD_REQUEST)
    if len(declared) > 9 or int(declared) > MAX_REQUEST_BYTES:
        raise _closing(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    body = bytearray()
    try:
        async with asyncio.timeout(seconds):
            async for chunk in request.stream():
                body += chunk
                if len(body) > MAX_REQUEST_BYTES:
                    raise _closing(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
    except TimeoutError:
        raise _closing(HTTPStatus.REQUEST_TIMEOUT) from None
    return bytes(body)


def _closing(status: HTTPStatus) -> HTTPException:
    """A refusal that leaves a body unread, so the connection cannot be used again."""
    detail = f"the body may have at most {MAX_REQUEST_BYTES} bytes" if status == 413 else ""
    return HTTPException(status, detail, headers={"connection": "close"})


def problem_response(status: int, detail: str = "", headers: dict[str, str] | None = None) -> Response:
    """An RFC 9457 problem document."""
    return Response(wire.problem(status, detail), status, headers, media_type=wire.PROBLEM)


async def _refuse_http(request: HttpRequest, error: Exception) -> Response:
    """Unknown routes and methods, and what ``read_body`` refuses: all of it worded by the framework or by us."""
    del request
    refusal = error if isinstance(error, HTTPException) else HTTPException(500)
    return problem_response(refusal.status_code, refusal.detail, dict(refusal.headers or {}))


async def _refuse_invalid(request: HttpRequest, error: Exception) -> Response:
    del request
    malformed = isinstance(error, wire.MalformedRequest)
    return problem_response(400 if malformed else 422, str(error))


class Edge:
    """Around every request, in plain ASGI: its id, when it arrived, its count, and the one ``except Exception``."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        arrived_at = time.monotonic()
        given_id = request_id(Headers(scope=scope).get("x-request-id"))
        scope["state"] = {"request_id": given_id, "arrived_at": arrived_at}
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                headers = MutableHeaders(scope=message)
                headers["x-request-id"] = given_id
                headers["cache-control"] = "no-store"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:  # noqa: BLE001  # the only one on the request path: counted, logged, answered
            report_bug("http", given_id, error)
            if not status:
                await problem_response(500)(scope, receive, watched)
        finally:
            for path, finished in MEASURED.items():
                if scope["path"].startswith(path):
                    finished("http", str(status or CLIENT_LEFT), time.monotonic() - arrived_at)
