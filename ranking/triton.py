"""DCN-V2 on Triton: one gRPC call a request, with the version of the model named in it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import tritonclient.grpc.aio as triton
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from domain.arrays import Floats
from domain.candidates import Candidates
from domain.catalogue import Items
from domain.deadline import Deadline
from domain.errors import BadAnswer, BadScores, Busy, DependencyError, Late, ModelNotFound, OutOfMemory, Unreachable
from domain.user import UserFeatures
from features.encode import encode_candidates, user_row

MODEL_NAME = "dcn_v2"
OUTPUT = "score"
NO_MEMORY = ("out of memory", "outofmemory", "bad_alloc", "failed to allocate memory", "bad allocation")
"""What CUDA, ONNX Runtime (its arena says the fourth) and the C++ library say of it, in lower case."""
TYPES: dict[np.dtype[Any], str] = {np.dtype(np.float32): "FP32", np.dtype(np.int32): "INT32"}

LINGER_SECONDS = 1.0  # that a call outlives its deadline by at most
ONE_BATCH = 16
"""Calls that may be unanswered at once where no more are usual. It is the model's max_batch_size; at 200 rankings a
second, the last of them is answered within the ranking stage's ceiling of 80 ms."""

EARLY_SECONDS = 0.002  # uvloop's timers count whole milliseconds
MOST_OVERDUE = 4
"""Answers that may be overdue at once: past that Triton hangs, or as good as. More than the probes of a breaker, which
may be what is overdue when it asks again."""

CHANNEL_ARGS = (
    ("grpc.initial_reconnect_backoff_ms", 100),
    ("grpc.min_reconnect_backoff_ms", 100),
    ("grpc.max_reconnect_backoff_ms", 500),  # the default is two minutes, and 7 s until the first call works again
    ("grpc.enable_http_proxy", 0),  # an http_proxy in the environment is not meant for this
    ("grpc.enable_retries", 0),
)


class TritonChannel:
    """The connection to one Triton, shared by every Pipeline of the process. Opened by the first call, on its loop."""

    def __init__(self, address: str, usual: Callable[[], float] = lambda: 0.0) -> None:
        """``address`` is ``host:port`` of the gRPC endpoint; ``usual()`` how many calls at once are well answered."""
        self.address = address
        self._usual = usual
        self._calls: set[asyncio.Future[Any]] = set()
        self._overdue: set[asyncio.Future[Any]] = set()  # of them, those whose callers waited in vain

    def _ended(self, call: asyncio.Future[Any]) -> None:
        self._calls.discard(call)
        self._overdue.discard(call)
        if not call.cancelled():
            call.exception()  # looked at, in case nobody waited for it any more

    def __repr__(self) -> str:
        return f"TritonChannel({self.address!r}, {'open' if 'client' in vars(self) else 'not opened'})"

    @cached_property
    def client(self) -> Any:
        return triton.InferenceServerClient(self.address, channel_args=list(CHANNEL_ARGS))

    async def infer(
        self, version: str, inputs: Mapping[str, NDArray[np.generic]], deadline: Deadline
    ) -> NDArray[np.generic] | None:
        """The output tensor of ``version``, None if the answer has none; raises ``DependencyError``.

        A caller that leaves or is out of time does not cancel the call: tritonserver 2.51 dies of cancelled calls
        (signal 11 under `make chaos`'s cancel storm). It ends by itself soon after, and until then it counts as
        unanswered: past what Triton answers in time the next call is ``Busy`` without being sent, or those left behind
        would make everybody else's late. Where some waited in vain and still have no answer, the next need not wait to
        find out: ``Late`` at once, which the breaker counts. ``timeout`` tells a queue policy, where one is
        configured, to drop what it has not begun.
        """
        seconds = deadline.remaining
        if seconds <= 0:  # a client_timeout of zero would mean no timeout
            raise Late("no time left to ask Triton")
        if len(self._overdue) >= MOST_OVERDUE:
            raise Late("Triton owes answers that are overdue")
        if len(self._calls) >= max(ONE_BATCH, self._usual()):
            raise Busy("too many calls to Triton are unanswered")
        call = asyncio.ensure_future(
            self.client.infer(
                MODEL_NAME,
                [_tensor(name, values) for name, values in inputs.items()],
                model_version=version,
                timeout=max(1, int(seconds * 1e6)),
                client_timeout=seconds + LINGER_SECONDS,
            )
        )
        self._calls.add(call)
        call.add_done_callback(self._ended)
        try:
            async with asyncio.timeout(seconds):
                answer = await asyncio.shield(call)
        except TimeoutError as error:
            raise Late("Triton did not answer in time") from error
        except InferenceServerException as error:
            raise mapped(error) from error
        finally:
            if not call.done() and deadline.remaining < EARLY_SECONDS:  # by whoever's timer the waiting ended
                self._overdue.add(call)
        output: NDArray[np.generic] | None = answer.as_numpy(OUTPUT)
        return output

    async def close(self) -> None:
        if "client" in vars(self):
            for call in self._calls:
                call.cancel()
            await self.client.close()


@dataclass(frozen=True, slots=True)
class TritonRanker:
    """The probability that an item is liked, by ``version`` of DCN-V2."""

    channel: TritonChannel
    version: str
    items: Items
    name: str = "dcn_v2"

    async def score(self, user: UserFeatures, candidates: Candidates, deadline: Deadline) -> Floats:
        """``(n,)``, same order. Some may not be finite, which ``Candidates.top`` deals with; not all of them."""
        if not len(candidates):
            return np.empty(0, np.float32)
        inputs = encode_inputs(user, candidates, self.items)
        return checked(await self.channel.infer(self.version, inputs, deadline), len(candidates))


def encode_inputs(user: UserFeatures, candidates: Candidates, items: Items) -> dict[str, NDArray[np.generic]]:
    """The tensors of one request, as a batch of one."""
    return {
        "user": user_row(user)[None],
        "codes": user.codes[None],
        "item_row": candidates.item_row[None],
        "columns": encode_candidates(user, candidates, items.features, items.genres)[None],
    }


def checked(answer: NDArray[np.generic] | None, n: int) -> Floats:
    """``(n,)`` the scores in an answer ``(1, n)``; raises ``BadScores``."""
    if answer is None or answer.shape != (1, n) or answer.dtype != np.float32:
        found = "nothing" if answer is None else f"{answer.dtype} {answer.shape}"
        raise BadScores(f"Triton answered {found} for {n} candidates")
    score = answer[0].astype(np.float32, copy=False)
    if not np.isfinite(score).any():
        raise BadScores(f"none of {n} scores is finite")
    return score


def mapped(error: InferenceServerException) -> DependencyError:
    """Triton's error in the words of ``domain.errors``. What the texts say was read off tritonserver 2.51."""
    status, message = str(error.status() or "").removeprefix("StatusCode."), str(error.message())
    told = f"Triton: {message} ({status})"
    if status == "DEADLINE_EXCEEDED" or "Request timeout expired" in message:
        return Late(told)
    # the first before a version was ever loaded, the second once it has been unloaded
    if status == "NOT_FOUND" or (status == "UNAVAILABLE" and "is not at ready state" in message):
        return ModelNotFound(told)
    if status == "RESOURCE_EXHAUSTED" or any(words in message.lower() for words in NO_MEMORY):
        return OutOfMemory(told)
    if status in {"UNAVAILABLE", "CANCELLED"}:
        return Unreachable(told)
    return BadAnswer(told)


def _tensor(name: str, values: NDArray[np.generic]) -> Any:
    tensor = triton.InferInput(name, values.shape, TYPES[values.dtype])
    tensor.set_data_from_numpy(values)
    return tensor
