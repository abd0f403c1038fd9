"""Tensors handed to a Triton on the same host through system shared memory: written there, only named in the call."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from types import TracebackType
from typing import Any, Self

import numpy as np
import tritonclient.grpc as triton
import tritonclient.utils.shared_memory as shm
from numpy.typing import NDArray

from ranking.triton import CHANNEL_ARGS, TYPES

PLACES = 64  # calls at the same time: more than ever wait for one Triton here

Tensors = Mapping[str, NDArray[np.generic]]


class SharedTensors:
    """As many regions as calls may be on their way, each large enough for the largest request; for use in ``with``.

    Regions are taken in turn, so a call that is still on its way ``PLACES`` calls later would read another's tensors.
    """

    def __init__(self, address: str, requests: Sequence[Tensors]) -> None:
        """``address`` is ``host:port`` of Triton's gRPC endpoint; nothing is made yet."""
        self._client: Any = triton.InferenceServerClient(address, channel_args=list(CHANNEL_ARGS))
        self._size = max(sum(values.nbytes for values in request.values()) for request in requests)
        self._regions: list[tuple[str, Any]] = []

    def __enter__(self) -> Self:
        for place in range(PLACES):
            name = f"streamrec_tensors_{os.getpid()}_{place}"
            region = shm.create_shared_memory_region(name, f"/{name}", self._size)
            self._regions.append((name, region))
            self._client.register_system_shared_memory(name, f"/{name}", self._size)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for _, region in self._regions:
            shm.destroy_shared_memory_region(region)  # Triton keeps its own view of it until it ends
        self._client.close()

    def inputs(self, number: int, tensors: Tensors) -> list[Any]:
        """The tensors of call ``number``, written into its region."""
        name, region = self._regions[number % PLACES]
        shm.set_shared_memory_region(region, list(tensors.values()))
        found, offset = [], 0
        for tensor, values in tensors.items():
            given = triton.InferInput(tensor, values.shape, TYPES[values.dtype])
            given.set_shared_memory(name, values.nbytes, offset)
            found.append(given)
            offset += values.nbytes
        return found
