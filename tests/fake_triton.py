"""A Triton at the gRPC seam: the real protocol, and answers that a test decides on."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import grpc
import grpc.aio
import numpy as np
from tritonclient.grpc import service_pb2, service_pb2_grpc

# What ONNX Runtime says through Triton when the card is full, and Triton itself when its own pool is.
NO_MEMORY = "onnx runtime error 6: Failed to allocate memory for requested buffer of size 1073741824"


@dataclass
class FakeTriton(service_pb2_grpc.GRPCInferenceServiceServicer):  # type: ignore[misc]  # generated, untyped
    """Scores fall from candidate to candidate; more than ``memory`` candidates at once do not fit."""

    memory: int = 10_000
    status: grpc.StatusCode = grpc.StatusCode.INTERNAL
    asked: list[int] = field(default_factory=list)  # candidates of each call

    async def ModelInfer(self, request, context):  # noqa: N802 - the protocol's name
        shape = next(part.shape for part in request.inputs if part.name == "item_row")
        n = shape[0] * shape[1]
        self.asked.append(n)
        if n > self.memory:
            await context.abort(self.status, NO_MEMORY)
        answer = service_pb2.ModelInferResponse(model_name=request.model_name, model_version=request.model_version)
        answer.outputs.add(name="score", datatype="FP32", shape=list(shape))
        answer.raw_output_contents.append(np.linspace(1, 0, n, dtype=np.float32).tobytes())
        return answer


@asynccontextmanager
async def serving_on(port: int, triton: FakeTriton) -> AsyncIterator[FakeTriton]:
    server = grpc.aio.server()
    service_pb2_grpc.add_GRPCInferenceServiceServicer_to_server(triton, server)
    server.add_insecure_port(f"127.0.0.1:{port}")
    await server.start()
    try:
        yield triton
    finally:
        await server.stop(None)
