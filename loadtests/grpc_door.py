"""Asking over gRPC. Dearer for the generator than HTTP: about as much CPU as the answer costs the service."""

from __future__ import annotations

from typing import Any

import grpc
import grpc.aio

from app.proto.streamrec.v1 import recommender_pb2 as proto
from loadtests.load_result import FAILED
from loadtests.traffic import Traffic

METHOD = "/streamrec.v1.Recommender/Recommend"
DEADLINE_SECONDS = 1.0
STATUSES = {
    grpc.StatusCode.RESOURCE_EXHAUSTED: 429,
    grpc.StatusCode.INVALID_ARGUMENT: 400,
    grpc.StatusCode.DEADLINE_EXCEEDED: 504,
    grpc.StatusCode.INTERNAL: 500,
}


class GrpcDoor:
    """One channel; the same traffic as over HTTP. Opened on the loop that uses it."""

    def __init__(self, address: str, traffic: Traffic) -> None:
        """``address`` is ``host:port``."""
        self._channel = grpc.aio.insecure_channel(address, options=[("grpc.enable_retries", 0)])
        self._users = traffic.drawn()
        self._metadata = tuple(traffic.headers)
        self._ask = self._channel.unary_unary(
            METHOD,
            request_serializer=proto.RecommendRequest.SerializeToString,
            response_deserializer=proto.RecommendResponse.FromString,
        )

    def call(self, user: str, seconds: float = DEADLINE_SECONDS) -> Any:
        """The call itself, which may be awaited or cancelled."""
        return self._ask(proto.RecommendRequest(user_id=user), timeout=seconds, metadata=self._metadata)

    async def ask(self, number: int) -> tuple[int, str, tuple[str, ...], bool, str]:
        user = self._users[number % len(self._users)]
        try:
            answer = await self.call(user)
        except grpc.aio.AioRpcError as error:
            return STATUSES.get(error.code(), FAILED), "", (f"grpc.{error.code().name.lower()}",), False, user
        level = proto.DegradationLevel.Name(answer.degradation.level).removeprefix("DEGRADATION_LEVEL_")
        return 200, level, tuple(answer.degradation.reasons), False, user

    async def close(self) -> None:
        await self._channel.close()
