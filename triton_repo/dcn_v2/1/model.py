"""DCN-V2 in Triton's Python backend: the version's ``dcn_v2.onnx`` in ONNX Runtime, on one CPU thread.

Triton hands over the requests of a dynamic batch as a list; those of equal shape are stacked into one run.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import triton_python_backend_utils as pb_utils

INPUTS = ("user", "codes", "item_row", "columns")


class TritonPythonModel:
    """The class that the backend looks for; one instance a version and instance group."""

    def initialize(self, args: dict[str, str]) -> None:
        options = onnxruntime.SessionOptions()
        options.intra_op_num_threads = 1  # instances share the cores, threads within a run would fight over them
        options.inter_op_num_threads = 1
        path = Path(args["model_repository"]) / args["model_version"] / "dcn_v2.onnx"
        self._session = onnxruntime.InferenceSession(path, options, providers=["CPUExecutionProvider"])

    def execute(self, requests: Sequence[Any]) -> list[Any]:
        """One response a request, in order."""
        inputs = [{name: _tensor(request, name) for name in INPUTS} for request in requests]
        if len(requests) > 1 and len({_shape(one) for one in inputs}) == 1:
            try:
                return self._together(inputs)
            except Exception as error:  # noqa: BLE001 - one of them is at fault: the runs below find out which
                pb_utils.Logger.log_warn(f"dcn_v2: a batch of {len(requests)} failed, one by one now: {error}")
        return [self._alone(one) for one in inputs]

    def _together(self, inputs: list[dict[str, Any]]) -> list[Any]:
        stacked = {name: np.concatenate([one[name] for one in inputs]) for name in INPUTS}
        ends = np.cumsum([len(one["user"]) for one in inputs])[:-1]
        return [_response(score) for score in np.split(self._run(stacked), ends)]

    def _alone(self, inputs: dict[str, Any]) -> Any:
        try:
            return _response(self._run(inputs))
        except Exception as error:  # noqa: BLE001 - whatever it was, the other requests have nothing to do with it
            return pb_utils.InferenceResponse(error=pb_utils.TritonError(f"dcn_v2: {error}"))

    def _run(self, inputs: dict[str, Any]) -> Any:
        return self._session.run(["score"], inputs)[0]


def _tensor(request: Any, name: str) -> Any:
    return pb_utils.get_input_tensor_by_name(request, name).as_numpy()


def _shape(inputs: dict[str, Any]) -> tuple[tuple[int, ...], ...]:
    """What has to be equal for stacking: all but the batch dimension."""
    return tuple(inputs[name].shape[1:] for name in INPUTS)


def _response(score: Any) -> Any:
    return pb_utils.InferenceResponse([pb_utils.Tensor("score", np.ascontiguousarray(score, np.float32))])
