"""DCN-V2's graph as a file: its item table read and exchanged, and the graph run. Needs onnx and onnxruntime."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray

from domain.arrays import Floats
from domain.errors import BundleError

TABLE = "table"
"""The name of the table among the graph's initialisers."""


def read_table(model: onnx.ModelProto) -> Floats:
    """The graph's item table; raises ``BundleError`` if it has none."""
    return onnx.numpy_helper.to_array(_initialiser(model)).astype(np.float32)


def put_table(model: onnx.ModelProto, table: Floats) -> None:
    """Exchange the item table for another of the same width; it keeps the precision in which it was stored."""
    held = _initialiser(model)
    stored = table.astype(onnx.helper.tensor_dtype_to_np_dtype(held.data_type))
    held.CopyFrom(onnx.numpy_helper.from_array(stored, TABLE))


def _initialiser(model: onnx.ModelProto) -> onnx.TensorProto:
    for held in model.graph.initializer:
        if held.name == TABLE:
            return held
    raise BundleError("the ranker's graph has no item table: train a new bundle")


def run(path: Path, inputs: Mapping[str, NDArray[np.generic]]) -> Floats:
    """``(B, n)``: what the graph at ``path`` answers, in ONNX Runtime on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    (score,) = session.run(["score"], dict(inputs))
    return np.asarray(score, np.float32)
