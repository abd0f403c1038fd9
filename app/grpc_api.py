"""gRPC ``streamrec.v1``, health v1 and reflection, over the same ``recommend`` as HTTP."""

from __future__ import annotations

import os
import time
from collections.abc import Iterable, Sequence
from dataclasses import asdict
from typing import Any, NoReturn, Protocol

import grpc
import grpc.aio
from google.protobuf.message import DecodeError
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_health.v1.health import SERVICE_NAME as HEALTH
from grpc_health.v1.health import aio as health_aio
from grpc_reflection.v1alpha import reflection

from app import metrics, wire
from app.edge import MAX_REQUEST_BYTES, Patience, Serving, answer, report_bug, request_id
from app.events_api import EVENTS, EventsRpc
from app.grpc_access import GrpcTls
from app.proto.streamrec.v1 import recommender_pb2 as pb
from domain.answer import Answer
from domain.deadline import Deadline
from domain.errors import InvalidRequest, StartError
from domain.request import Query

RECOMMENDER = pb.DESCRIPTOR.services_by_name["Recommender"].full_name
DAY = 86_400.0
CALLS_PER_REQUEST = 4  # that may be open for each that may be worked on: the rest are on their way, or health's
CONTEXT = ("device", "surface", "region", "max_age_rating")

Status = health_pb2.HealthCheckResponse.ServingStatus


class Call(Protocol):
    """The part of ``grpc.aio.ServicerContext`` that is used here."""

    def invocation_metadata(self) -> Iterable[tuple[str, str | bytes]] | None: ...

    def time_remaining(self) -> float | None: ...

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn: ...


class Refused(Exception):
    """A call that ends in a status other than OK."""

    def __init__(self, code: grpc.StatusCode, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Recommender:
    """Takes and gives bytes: grpc would answer INTERNAL to a message it cannot parse, which is the caller's mistake."""

    def __init__(self, serving: Serving, patience: Patience) -> None:
        self._serving = serving
        self._patience = patience

    async def recommend(self, message: bytes, call: Call) -> bytes:
        """``Recommender.Recommend``, counted however it ends."""
        started = time.monotonic()
        code = grpc.StatusCode.CANCELLED  # what it is if nothing below is reached
        try:
            reply = await self._reply(message, call)
            code = grpc.StatusCode.OK
            return reply
        except Refused as refusal:
            code = refusal.code
            await call.abort(code, refusal.detail)
        finally:
            metrics.request_finished("grpc", code.name, time.monotonic() - started)

    async def _reply(self, message: bytes, call: Call) -> bytes:
        given_id = request_id(_metadata(call).get("x-request-id"))
        try:
            deadline = self._deadline(call)
            query = query_from_message(message, given_id)
            return response(await answer(self._serving, query, deadline), debug=query.debug)
        except InvalidRequest as error:
            raise Refused(grpc.StatusCode.INVALID_ARGUMENT, str(error)) from error
        except Refused:
            raise
        except Exception as error:  # the only one on the request path: counted, logged, answered
            report_bug("grpc", given_id, error)
            raise Refused(grpc.StatusCode.INTERNAL, "internal error") from error

    def _deadline(self, call: Call) -> Deadline:
        remaining = call.time_remaining()
        if remaining is not None and remaining <= 0:
            raise Refused(grpc.StatusCode.DEADLINE_EXCEEDED, "the deadline had passed at the door")
        named = None if remaining is None or remaining > DAY else remaining
        return Deadline.after(self._patience.seconds(named))


def query_from_message(message: bytes, given_id: str) -> Query:
    """The query in a serialised ``RecommendRequest``; raises ``InvalidRequest``."""
    try:
        asked = pb.RecommendRequest.FromString(message)
    except DecodeError:
        raise InvalidRequest("the message is not a streamrec.v1.RecommendRequest") from None
    given: dict[str, object] = {
        "exclude_item_ids": list(asked.exclude_item_ids),
        "recent_item_ids": list(asked.recent_item_ids),
        "debug": asked.debug,
        "context": {name: getattr(asked.context, name) for name in _present(asked.context, *CONTEXT)},
    }
    given |= {name: getattr(asked, name) for name in _present(asked, "user_id", "limit", "cursor")}
    return wire.query_from_fields(given, given_id)


def response(given: Answer, *, debug: bool) -> bytes:
    """The answer as a serialised ``RecommendResponse``."""
    reply = pb.RecommendResponse(
        request_id=given.request_id,
        bundle=given.bundle,
        items=[
            pb.Item(item_id=item.item_id, title=item.title, score=item.score, sources=item.sources, rule=item.rule)
            for item in given.items
        ],
        degradation=pb.Degradation(level=_LEVELS[given.level.name], reasons=given.reasons),
        timing_ms={stage: seconds * 1000 for stage, seconds in given.timing.items()},
        debug=_debug(given) if debug else None,
        cursor=given.cursor,
        arms=given.arms,
    )
    return bytes(reply.SerializeToString())


def _debug(given: Answer) -> pb.Debug:
    told = pb.Debug(ranked=given.ranked, worker=os.getpid())
    if given.inside is not None:
        told.funnel.CopyFrom(pb.Funnel(**asdict(given.inside.funnel)))
        told.items.extend(pb.Explained(**asdict(item)) for item in given.inside.items)
    return told


class GrpcDoor:
    """The gRPC server of one worker; several share the port, and the kernel deals out the connections."""

    def __init__(
        self,
        serving: Serving,
        patience: Patience,
        interceptors: Sequence[grpc.aio.ServerInterceptor] = (),
        tls: GrpcTls | None = None,
    ) -> None:
        most = CALLS_PER_REQUEST * serving.admission.policy.most_in_process
        self._server = grpc.aio.server(interceptors=interceptors, options=_OPTIONS, maximum_concurrent_rpcs=most)
        self._tls = tls
        self._health = health_aio.HealthServicer()
        recommend = grpc.unary_unary_rpc_method_handler(Recommender(serving, patience).recommend)
        append = grpc.unary_unary_rpc_method_handler(EventsRpc(serving.events).append)
        self._server.add_generic_rpc_handlers(
            (
                grpc.method_handlers_generic_handler(RECOMMENDER, {"Recommend": recommend}),
                grpc.method_handlers_generic_handler(EVENTS, {"Append": append}),
            )
        )
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection((RECOMMENDER, EVENTS, HEALTH, reflection.SERVICE_NAME), self._server)

    async def open(self, address: str) -> int:
        """Listen on ``host:port`` and say SERVING; gives the port; raises ``StartError`` if it is taken."""
        credentials = self._tls and self._tls.credentials()
        try:
            port = self._listen(address, credentials)
        except RuntimeError as error:
            raise StartError(f"gRPC cannot listen on {address}: is the port taken, or a TLS file no PEM?") from error
        await self._server.start()
        for service in ("", RECOMMENDER, EVENTS):
            await self._health.set(service, Status.SERVING)
        return int(port)

    def _listen(self, address: str, credentials: grpc.ServerCredentials | None) -> int:
        if credentials is None:
            return int(self._server.add_insecure_port(address))
        return int(self._server.add_secure_port(address, credentials))

    async def drain(self) -> None:
        """Say NOT_SERVING, for good."""
        await self._health.enter_graceful_shutdown()

    async def close(self, seconds: float) -> None:
        """Accept nothing more and give calls in flight so long to finish."""
        await self._server.stop(seconds)


def _metadata(call: Call) -> dict[str, str]:
    return {str(key): str(value) for key, value in call.invocation_metadata() or ()}


def _present(message: Any, *names: str) -> list[str]:
    return [name for name in names if message.HasField(name)]


_LEVELS = {name.removeprefix("DEGRADATION_LEVEL_"): value for name, value in pb.DegradationLevel.items()}
_OPTIONS = [
    ("grpc.so_reuseport", 1),
    ("grpc.max_receive_message_length", MAX_REQUEST_BYTES),
    ("grpc.max_concurrent_streams", 1000),  # of one connection; further calls wait at the caller
    ("grpc.max_metadata_size", 8 * 1024),
    ("grpc.absolute_max_metadata_size", 16 * 1024),
]
