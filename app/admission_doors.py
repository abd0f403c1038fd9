"""Admission at both doors, before routing and parsing: plain ASGI, and an interceptor of gRPC."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TYPE_CHECKING, Any

import grpc
import grpc.aio
from starlette.responses import Response

from app import metrics, wire
from app.admission import RETRY_SECONDS, Admission, Admitted, Path, Priority, Visit
from app.edge import header
from app.events_api import EVENTS

if TYPE_CHECKING:
    from starlette.types import ASGIApp, Message, Receive, Scope, Send

PATH = "/v1/"
METHOD = "/streamrec."
PRIORITY = b"x-request-priority"
BUSY = "too many requests at once: try again later"


class HttpAdmission:
    """Around the routes: recommendations have a short path; past the second limit all of ``/v1/`` is refused."""

    def __init__(self, app: ASGIApp, admission: Admission) -> None:
        self._app = app
        self._admission = admission

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or not scope["path"].startswith(PATH):
            await self._app(scope, receive, send)
            return
        priority = Priority.named(header(scope, PRIORITY))
        path = self._admission.decide(priority)
        if path is Path.REFUSED:
            refusal = Response(wire.problem(429, BUSY), 429, {"retry-after": str(RETRY_SECONDS)}, wire.PROBLEM)
            await refusal(scope, receive, send)
            return
        with self._admission.inside(Admitted(path, priority), whole=scope["method"] != "POST") as visit:
            await self._app(scope, self._arriving(receive, visit), send)

    @staticmethod
    def _arriving(receive: Receive, visit: Visit) -> Receive:
        async def heard() -> Message:
            message = await receive()
            if not message.get("more_body"):
                visit.arrived()
            return message

        return heard


class GrpcAdmission(grpc.aio.ServerInterceptor):  # type: ignore[misc]  # grpc has no types
    """The same for the methods of this service; a refusal is RESOURCE_EXHAUSTED."""

    def __init__(self, admission: Admission) -> None:
        self._admission = admission

    async def intercept_service(self, continuation: Callable[[Any], Awaitable[Any]], details: Any) -> Any:
        """Called by grpc for each call, before its message is read."""
        handler = await continuation(details)
        method = str(details.method)
        if handler is None or not method.startswith(METHOD):
            return handler
        given = {str(key): value for key, value in details.invocation_metadata or ()}.get(PRIORITY.decode())
        priority = Priority.named(given if isinstance(given, str) else None)
        path = self._admission.decide(priority)
        if path is Path.REFUSED:
            return grpc.unary_unary_rpc_method_handler(_refusing(method))
        admitted, answer = Admitted(path, priority), handler.unary_unary

        async def answered(message: bytes, call: Any) -> bytes:
            with self._admission.inside(admitted):
                reply: bytes = await answer(message, call)
                return reply

        return grpc.unary_unary_rpc_method_handler(answered)


def _refusing(method: str) -> Callable[[bytes, Any], Awaitable[bytes]]:
    finished = metrics.events_asked if EVENTS in method else metrics.request_finished

    async def refuse(message: bytes, call: Any) -> bytes:
        del message
        finished("grpc", grpc.StatusCode.RESOURCE_EXHAUSTED.name, 0.0)
        await call.abort(grpc.StatusCode.RESOURCE_EXHAUSTED, BUSY, (("retry-after", str(RETRY_SECONDS)),))
        raise AssertionError  # abort has raised

    return refuse
