"""HTTP: strict at the door, RFC 9457 when it refuses, and always an answer."""

from __future__ import annotations

import math
import time
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

import orjson
from fastapi import FastAPI
from fastapi import Request as HttpRequest
from fastapi.middleware.asyncexitstack import AsyncExitStackMiddleware
from fastapi.responses import PlainTextResponse, Response
from fastapi.routing import APIRoute
from starlette.applications import Starlette
from starlette.datastructures import Headers, MutableHeaders
from starlette.middleware import Middleware
from starlette.requests import ClientDisconnect

from app import admin_api, events_api, metrics, openapi, why_api, wire
from app.access import Access, Outcome, bearer, roles_of_path
from app.beside.exposing import Exposing
from app.body import Bodies
from app.edge import Patience, Readiness, Serving, answer, header, report_bug, request_id, seconds_of
from app.refusal import problem_response, refused
from domain.deadline import Deadline
from domain.errors import DependencyError
from domain.request import Query
from events.log import EventLog

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

    from app.orders import OrderBook

CLIENT_LEFT = 499
MEASURED = {"/v1/recommendations": metrics.request_finished, "/v1/events": metrics.events_asked}

JSON = "application/json"
NO_STORE = (b"cache-control", b"no-store")
CHALLENGE = {"www-authenticate": "Bearer"}


def create_app(
    serving: Serving,
    readiness: Readiness,
    patience: Patience,
    access: Access | None = None,
    orders: OrderBook | None = None,
) -> FastAPI:
    """The ASGI application over ``serving``. Without ``access`` nobody needs a key; without ``orders`` none are taken.

    What every request passes, in this order: ``Edge`` (id, count, refusals, last resort), ``AccessCheck`` (may they,
    and so often?), then routing and parsing.
    """
    access, bodies = access or Access(None), Bodies(serving.admission.policy.most_in_process)
    app = Api(
        title="StreamRec",
        version="1",
        middleware=[Middleware(Edge, readiness=readiness), Middleware(AccessCheck, access=access)],
        redirect_slashes=False,
        redoc_url=None,
    )
    app.router.route_class = PlainRoute
    _add_recommendations(app, serving, patience, bodies)
    app.routes.sort(key=lambda route: not isinstance(route, PlainRoute))  # before FastAPI's own: each is tried in turn
    app.include_router(why_api.router(serving, bodies))
    _add_events(app, serving.events, bodies)
    _add_probes(app, serving, readiness)
    if orders is not None:
        app.include_router(admin_api.router(orders, serving.state()["dependencies"].keys(), bodies))
    return app


def _add_recommendations(app: FastAPI, serving: Serving, patience: Patience, bodies: Bodies) -> None:
    async def respond(query: Query, deadline: Deadline) -> Response:
        given = await answer(serving, query, deadline)
        headers = {"server-timing": wire.server_timing(given)}
        return Response(wire.answer_to_json(given, debug=query.debug), headers=headers, media_type=JSON)

    @app.post("/v1/recommendations", openapi_extra=openapi.POST, tags=["recommendations"])
    async def recommend(request: HttpRequest) -> Response:
        """What should this user see now?"""
        deadline = _deadline(request, patience)
        try:
            body = await bodies.read(request)
        except ClientDisconnect:
            return Response(status_code=CLIENT_LEFT)  # told to nobody, but counted
        return await respond(wire.query_from_json(body, request.state.request_id), deadline)

    user_path = "/v1/recommendations/{user_id:path}"  # an id may have slashes in it; wire reads and checks it

    @app.get(user_path, openapi_extra=openapi.GET, tags=["recommendations"])
    async def recommend_user(request: HttpRequest) -> Response:
        """The same answer, for a person with curl."""
        deadline = _deadline(request, patience)
        wire.require_utf8(request.scope["raw_path"])
        parameters = request.query_params.multi_items()
        query = wire.query_from_path(request.path_params["user_id"], parameters, request.state.request_id)
        return await respond(query, deadline)


def _add_events(app: FastAPI, log: EventLog, bodies: Bodies) -> None:
    @app.post("/v1/events", status_code=HTTPStatus.ACCEPTED, openapi_extra=openapi.POST_EVENTS, tags=["events"])
    async def append(request: HttpRequest) -> Response:
        """What users did. Accepted once the log has all of it; the same batch may be sent again at any time."""
        try:
            body = await bodies.read(request)
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
    exposing = Exposing(metrics.exposition)

    @app.get("/livez", tags=["probes"])
    async def alive(_request: HttpRequest) -> Response:
        """The process runs and its loop turns."""
        return Response(b'{"alive":true}', media_type=JSON)

    @app.get("/readyz", openapi_extra=openapi.PROBE, tags=["probes"])
    async def ready(_request: HttpRequest) -> Response:
        """This process wants requests. A dead dependency changes nothing here: the answer still comes."""
        body = orjson.dumps({"ready": readiness.ready})
        return Response(body, HTTPStatus.OK if readiness.ready else HTTPStatus.SERVICE_UNAVAILABLE, media_type=JSON)

    @app.get("/healthz", tags=["probes"])
    async def health(_request: HttpRequest) -> Response:
        """What is loaded here, and the state of each dependency as this worker sees it."""
        return Response(orjson.dumps({"ready": readiness.ready, **serving.state()}), media_type=JSON)

    @app.get("/metrics", openapi_extra=openapi.METRICS, response_class=PlainTextResponse, tags=["probes"])
    async def measured(_request: HttpRequest) -> Response:
        """Prometheus' text format, all workers together."""
        body, media_type = await exposing.told()
        return Response(body, headers={"content-type": media_type})


def _deadline(request: HttpRequest, patience: Patience) -> Deadline:
    """Counted from the moment the request came through the door, so that a slow body spends the caller's time."""
    asked = seconds_of(request.headers.getlist("x-request-timeout-ms"))
    return Deadline(request.state.arrived_at + patience.seconds(asked))


class Api(FastAPI):
    """FastAPI, with only what is needed here around each request.

    Left out are its telemetry, its limit of bodies (``Bodies`` has ours) and its handlers of exceptions (``Edge`` is
    ours).
    """

    def build_middleware_stack(self) -> ASGIApp:
        app: ASGIApp = self.router
        for wrap, arguments, named in reversed([*self.user_middleware, Middleware(AsyncExitStackMiddleware)]):
            app = wrap(app, *arguments, **named)
        return app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await Starlette.__call__(self, scope, receive, send)


class PlainRoute(APIRoute):
    """A route whose endpoint takes the request and makes the response. FastAPI documents it; there is nothing to solve.

    FastAPI's own way opens two exit stacks and solves no dependencies, for each request. What is raised goes to
    ``Edge``.
    """

    def __init__(self, *arguments: Any, **named: Any) -> None:
        super().__init__(*arguments, **named)
        endpoint = self.endpoint

        async def plain(scope: Scope, receive: Receive, send: Send) -> None:
            response = await endpoint(HttpRequest(scope, receive, send))
            await response(scope, receive, send)

        self.app = plain


class Edge:
    """Around every request, in plain ASGI: its id, when it arrived, its count, and the one ``except Exception``.

    What is raised refuses the request (``refused``), or is a bug. While the process stops, callers are asked to open
    their next connection elsewhere.
    """

    def __init__(self, app: ASGIApp, readiness: Readiness) -> None:
        self._app = app
        self._readiness = readiness

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        arrived_at = time.monotonic()
        given_id = request_id(header(scope, b"x-request-id"))
        scope["state"] = {"request_id": given_id, "arrived_at": arrived_at}
        status = 0

        async def watched(message: Message) -> None:
            nonlocal status
            if message["type"] == "http.response.start":
                status = message["status"]
                message["headers"] = [*message["headers"], (b"x-request-id", given_id.encode()), NO_STORE]
                if self._readiness.stopping:
                    MutableHeaders(scope=message)["connection"] = "close"
            await send(message)

        try:
            await self._app(scope, receive, watched)
        except Exception as error:  # noqa: BLE001  # the only one on the request path: counted, logged, answered
            refusal = refused(error)
            if refusal is None or status:
                report_bug("http", given_id, error)
            if not status:
                await (refusal or problem_response(500))(scope, receive, watched)
        finally:
            for path, finished in MEASURED.items():
                if scope["path"].startswith(path):
                    finished("http", str(status or CLIENT_LEFT), time.monotonic() - arrived_at)


class AccessCheck:
    """Before anything is routed or parsed, in plain ASGI: who asks, and may they, so often?"""

    def __init__(self, app: ASGIApp, access: Access) -> None:
        self._app = app
        self._access = access

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        roles = roles_of_path(scope["path"]) if scope["type"] == "http" else None
        if roles is None:
            await self._app(scope, receive, send)
            return
        verdict = self._access.check(bearer(Headers(scope=scope).getlist("authorization")), roles)
        if self._access.required or verdict.outcome is not Outcome.GRANTED:
            metrics.access_checked(verdict.name, verdict.outcome.value)
        scope["state"]["key"] = verdict.name
        match verdict.outcome:
            case Outcome.GRANTED:
                await self._app(scope, receive, send)
                return
            case Outcome.UNKNOWN:
                refusal = problem_response(401, "an API key is needed: Authorization: Bearer KEY", CHALLENGE)
            case Outcome.FORBIDDEN:
                refusal = problem_response(403, "this needs a key of another role")
            case Outcome.LIMITED:
                refusal = problem_response(429, "too many requests with this key", retry_after(verdict.retry_seconds))
        await refusal(scope, receive, send)


def retry_after(seconds: float) -> dict[str, str]:
    """The header, in whole seconds and never zero."""
    return {"retry-after": str(max(1, math.ceil(seconds)))}
