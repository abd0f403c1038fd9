"""What publishing says to Triton: load, unload, and does it compute what training computed? Off the request path."""

from __future__ import annotations

from types import TracebackType
from typing import Any, Self

import numpy as np
import tritonclient.grpc as triton
from tritonclient.utils import InferenceServerException

from domain.arrays import Floats
from domain.errors import BadAnswer, ModelNotFound, PublishError, Unreachable
from ranking.triton import CHANNEL_ARGS, mapped
from release.bundle import ParityTables
from release.triton_repository import MODEL_NAME

ASK_SECONDS = 2.0
LOAD_SECONDS = 120.0
SCORE_SECONDS = 30.0
TOLERANCE = 1e-4  # of a probability: another order of additions, no other function


class TritonControl:
    """One Triton in explicit model control mode; close it, or use it in ``with``."""

    def __init__(self, address: str) -> None:
        """``address`` is ``host:port`` of the gRPC endpoint; nothing is sent yet."""
        self.address = address
        self._client: Any = triton.InferenceServerClient(address, channel_args=list(CHANNEL_ARGS))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._client.close()

    def alive(self) -> bool:
        """Whether a Triton answers there."""
        try:
            return bool(self._client.is_server_live(client_timeout=ASK_SECONDS))
        except InferenceServerException:
            return False

    def ready(self, number: int) -> bool:
        """Whether version ``number`` can be asked; raises ``Unreachable``."""
        try:
            return bool(self._client.is_model_ready(MODEL_NAME, str(number), client_timeout=ASK_SECONDS))
        except InferenceServerException as error:
            raise Unreachable(str(mapped(error))) from error

    def load(self) -> None:
        """Make Triton's versions those of the repository: new ones are loaded, missing ones unloaded, the others kept.

        Raises ``PublishError`` if one of them does not load, ``Unreachable`` if Triton is not there.
        """
        try:
            self._client.load_model(MODEL_NAME, client_timeout=LOAD_SECONDS)
        except InferenceServerException as error:
            raise _refused(error) from error

    def unload(self) -> None:
        """Unload every version; raises ``Unreachable``."""
        try:
            self._client.unload_model(MODEL_NAME, client_timeout=LOAD_SECONDS)
        except InferenceServerException as error:
            raise _refused(error) from error

    def check(self, number: int, parity: ParityTables) -> float:
        """The largest difference to training's scores; raises ``PublishError`` above the tolerance. It warms, too."""
        worst = 0.0
        for row in range(len(parity.user)):
            difference = np.abs(self._scores(number, parity, row) - parity.score[row])
            worst = max(worst, float(np.where(np.isnan(difference), np.inf, difference).max(initial=0.0)))
        if worst > TOLERANCE:
            raise PublishError(
                f"version {number} of the model on Triton differs from training by {worst:.2g}, allowed is {TOLERANCE}"
            )
        return worst

    def _scores(self, number: int, parity: ParityTables, row: int) -> Floats:
        inputs = [
            _tensor("user", parity.user[row : row + 1], "FP32"),
            _tensor("codes", parity.codes[row : row + 1], "INT32"),
            _tensor("item_row", parity.item_row[row : row + 1], "INT32"),
            _tensor("columns", parity.columns[row : row + 1], "FP32"),
        ]
        try:
            answer = self._client.infer(MODEL_NAME, inputs, model_version=str(number), client_timeout=SCORE_SECONDS)
        except InferenceServerException as error:
            raise _refused(error) from error
        score = answer.as_numpy("score")
        if score is None or score.shape != (1, parity.score.shape[1]):
            raise PublishError(f"version {number} of the model on Triton answers with other shapes")
        return np.asarray(score[0], np.float32)


def _refused(error: InferenceServerException) -> PublishError | Unreachable:
    """Triton is away, or it is there and cannot do it."""
    cause = mapped(error)
    if isinstance(cause, BadAnswer | ModelNotFound):
        return PublishError(f"Triton refuses the model: {error.message()}")
    return Unreachable(str(cause))


def _tensor(name: str, values: Any, kind: str) -> Any:
    tensor = triton.InferInput(name, values.shape, kind)
    tensor.set_data_from_numpy(np.ascontiguousarray(values))
    return tensor
