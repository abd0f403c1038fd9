"""DCN-V2 of the reference size with untrained weights: what speed is measured with, whatever the evaluated model is.

200 inputs, 3 full-rank crosses beside 256-128, as section "real parts" of the design names it. The inputs are what the
contract and the sources give; the embeddings of the four context codes are ``CODE_WIDTH`` wide each, and the item's
learned embedding takes what is left of the 200. The item's part of the first cross and of the first dense layer is
computed beforehand, as in the export of a trained model. Needs no torch.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from domain.arrays import Floats
from features.contract import CONTRACT
from release.bundle import ParityTables
from release.graph import TABLE, run
from release.item_side import ItemSide

WIDTH = 200
CROSSES = 3
DEEP = (256, 128)
CODE_WIDTH = 8
HALF_FROM_ITEMS = 250_000
"""From so many items on the table is stored as float16: at a million, 519 float32 a row would not fit into one file."""
BLOCK = 65_536
TOLERANCE = 1e-5
USER_BOUND = 3.0
"""Of a standardised user input: the sample is a few requests, and another user may be forty of its deviations away,
which untrained crosses make one score for all candidates; a service takes such a model for broken."""
LOGIT = 9.0  # the order of the largest logits, so that no score saturates


@dataclass(frozen=True, slots=True, eq=False)
class Weights:
    """Random weights of the plain model, and the means and deviations of its inputs."""

    user: tuple[Floats, Floats]  # mean and deviation, (U,)
    columns: tuple[Floats, Floats]  # (C,)
    codes: tuple[Floats, ...]  # (values + 1, CODE_WIDTH) each
    crosses: tuple[Floats, ...]  # (WIDTH, WIDTH) each, inputs first
    deep: tuple[Floats, Floats]
    head: Floats  # (WIDTH + DEEP[-1], 1)

    @property
    def asker(self) -> int:
        """How many of the inputs are the user's and the request's."""
        return len(self.user[0]) + CODE_WIDTH * len(self.codes)

    @property
    def first(self) -> Floats:
        """``(WIDTH, WIDTH + DEEP[0])``: the layers that read all inputs, side by side."""
        return np.concatenate([self.crosses[0], self.deep[0]], axis=1)


def item_embedding_width(columns: int) -> int:
    """What is left of the inputs for the item's embedding; raises ``ValueError`` if nothing is."""
    taken = CONTRACT.numeric.width + CODE_WIDTH * len(CONTRACT.context) + CONTRACT.item.width + columns
    if taken >= WIDTH:
        raise ValueError(f"{taken} inputs leave no room for an item embedding among {WIDTH}")
    return WIDTH - taken


def random_weights(sample: ParityTables, rng: np.random.Generator) -> Weights:
    """Weights of a size that keeps the crosses tame; inputs standardised over the ``sample`` requests."""

    def normal(inputs: int, outputs: int, size: float = 0.5) -> Floats:
        return (rng.normal(size=(inputs, outputs)) * size / np.sqrt(inputs)).astype(np.float32)

    return Weights(
        _moments(sample.user),
        _moments(sample.columns.reshape(-1, sample.columns.shape[2])),
        tuple(normal(len(category.values) + 1, CODE_WIDTH, 1.0) for category in CONTRACT.context),
        tuple(normal(WIDTH, WIDTH) for _ in range(CROSSES)),
        (normal(WIDTH, DEEP[0]), normal(*DEEP)),
        normal(WIDTH + DEEP[-1], 1),
    )


def _moments(values: Floats) -> tuple[Floats, Floats]:
    scale = values.std(axis=0)
    return values.mean(axis=0).astype(np.float32), np.where(scale < 1e-2, 1.0, scale).astype(np.float32)


def item_side(weights: Weights, features: Floats) -> ItemSide:
    """The item's part of the first layers; ``features`` ``(n, I)`` raw, of some items, give the standardisation."""
    mean, scale = _moments(CONTRACT.item.scaled(features))
    start, end = weights.asker, WIDTH - len(weights.columns[0])
    identity = np.eye(end - start, dtype=np.float32)
    weight = np.concatenate([identity, weights.first[start:end]], axis=1)
    return ItemSide(mean, scale, weight, np.zeros(weight.shape[1], np.float32))


def item_table(side: ItemSide, features: Floats, rng: np.random.Generator) -> NDArray[np.floating]:
    """``(n, t)`` for the raw ``features`` of all items, with random embeddings, a block at a time."""
    kind = np.float16 if len(features) >= HALF_FROM_ITEMS else np.float32
    table = np.empty((len(features), side.weight.shape[1]), kind)
    width = len(side.weight) - len(side.mean)
    for start in range(0, len(features), BLOCK):
        block = features[start : start + BLOCK]
        embedding = rng.normal(size=(len(block), width)).astype(np.float32) * np.float32(0.3)
        table[start : start + BLOCK] = side.rows(block, embedding)
    return table


def write_graph(path: Path, features: Floats, sample: ParityTables, seed: int = 0) -> tuple[ItemSide, ParityTables]:
    """Write the graph for items with these raw ``features`` ``(n, I)``; its item side, and the sample with its scores.

    Raises ``RuntimeError`` unless the graph answers as the plain model does.
    """
    rng = np.random.default_rng(seed)
    weights = random_weights(sample, rng)
    side = item_side(weights, features)
    table = item_table(side, features, rng)
    gathered = table[sample.item_row, : len(side.weight)].astype(np.float32)
    logit = plain(weights, gathered, sample)
    slope = LOGIT / max(float(np.abs(logit - logit.mean()).max()), 1e-6)
    offset = -slope * float(logit.mean()) - 2.0
    onnx.save(_graph(weights, side, table, slope, offset), path)
    inputs = {name: getattr(sample, name) for name in ("user", "codes", "item_row", "columns")}
    score = run(path, {name: np.ascontiguousarray(values) for name, values in inputs.items()})
    worst = float(np.abs(1.0 / (1.0 + np.exp(-(slope * logit + offset))) - score).max())
    if worst > TOLERANCE * (100 if table.dtype == np.float16 else 1):
        raise RuntimeError(f"the reference graph differs from the plain model by {worst:.1e}")
    return side, ParityTables(sample.user, sample.codes, sample.item_row, sample.columns, score)


def plain(weights: Weights, item: Floats, requests: ParityTables) -> NDArray[np.float64]:
    """``(p, n)`` logits with nothing computed beforehand; ``item`` ``(p, n, I + e)`` are the items' inputs."""
    embedded = [table[requests.codes[:, k]] for k, table in enumerate(weights.codes)]
    user = np.clip((requests.user - weights.user[0]) / weights.user[1], -USER_BOUND, USER_BOUND)
    asker = np.concatenate([user, *embedded], axis=1)
    columns = np.clip((requests.columns - weights.columns[0]) / weights.columns[1], -8.0, 8.0)
    spread = np.broadcast_to(asker[:, None], (*item.shape[:2], asker.shape[1]))
    x0 = np.concatenate([spread, item, columns], axis=2, dtype=np.float64)
    crossed: NDArray[np.float64] = x0
    for cross in weights.crosses:
        crossed = x0 * (crossed @ cross.astype(np.float64)) + crossed
    hidden = np.maximum(np.maximum(x0 @ weights.deep[0], 0.0) @ weights.deep[1], 0.0)
    return np.asarray((np.concatenate([crossed, hidden], axis=2) @ weights.head)[..., 0], np.float64)


def _graph(
    weights: Weights, side: ItemSide, table: NDArray[np.floating], slope: float, offset: float
) -> onnx.ModelProto:
    start, end = weights.asker, WIDTH - len(weights.columns[0])
    held = {
        TABLE: table,
        "user_mean": weights.user[0],
        "user_scale": weights.user[1],
        "column_mean": weights.columns[0],
        "column_scale": weights.columns[1],
        "user_weight": weights.first[:start],
        "column_weight": weights.first[end:],
        "deep_weight": weights.deep[1],
        "head": weights.head,
        "slope": np.float32(slope),
        "offset": np.float32(offset),
        "user_low": np.float32(-USER_BOUND),
        "user_high": np.float32(USER_BOUND),
        "low": np.float32(-8.0),
        "high": np.float32(8.0),
        "row_parts": np.array([len(side.weight), WIDTH + DEEP[0]], np.int64),
        "sum_parts": np.array([WIDTH, DEEP[0]], np.int64),
        "second": np.array([1], np.int64),
        "last": np.array([-1], np.int64),
        "asker_width": np.array([weights.asker], np.int64),
    }
    held |= {f"code_{k}": values for k, values in enumerate(weights.codes)}
    held |= {f"at_{k}": np.array(k, np.int64) for k in range(len(weights.codes))}
    held |= {f"cross_{k}": values for k, values in enumerate(weights.crosses) if k}
    inputs = [
        helper.make_tensor_value_info("user", TensorProto.FLOAT, ["B", len(weights.user[0])]),
        helper.make_tensor_value_info("codes", TensorProto.INT32, ["B", len(weights.codes)]),
        helper.make_tensor_value_info("item_row", TensorProto.INT32, ["B", "n"]),
        helper.make_tensor_value_info("columns", TensorProto.FLOAT, ["B", "n", len(weights.columns[0])]),
    ]
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["B", "n"])]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()]
    graph = helper.make_graph(_nodes(len(weights.codes)), "dcn_v2_reference", inputs, outputs, initializers)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


def _nodes(codes: int) -> list[onnx.NodeProto]:
    """What a request computes, in order: operator, inputs, outputs, attributes."""
    embedded = [f"embedded_{k}" for k in range(codes)]
    steps: list[tuple[str, list[str], list[str], dict[str, Any]]] = [
        ("Sub", ["user", "user_mean"], ["user_centred"], {}),
        ("Div", ["user_centred", "user_scale"], ["user_scaled"], {}),
        ("Clip", ["user_scaled", "user_low", "user_high"], ["user_standard"], {}),
        *[("Gather", ["codes", f"at_{k}"], [f"picked_{k}"], {"axis": 1}) for k in range(codes)],
        *[("Gather", [f"code_{k}", f"picked_{k}"], [embedded[k]], {}) for k in range(codes)],
        ("Concat", ["user_standard", *embedded], ["asker"], {"axis": 1}),
        ("MatMul", ["asker", "user_weight"], ["user_flat"], {}),
        ("Unsqueeze", ["user_flat", "second"], ["user_part"], {}),
        ("Sub", ["columns", "column_mean"], ["column_centred"], {}),
        ("Div", ["column_centred", "column_scale"], ["column_standard"], {}),
        ("Clip", ["column_standard", "low", "high"], ["column_input"], {}),
        ("MatMul", ["column_input", "column_weight"], ["column_part"], {}),
        ("Gather", [TABLE, "item_row"], ["gathered"], {}),
        ("Cast", ["gathered"], ["row"], {"to": TensorProto.FLOAT}),
        ("Split", ["row", "row_parts"], ["item_input", "item_part"], {"axis": 2}),
        ("Add", ["item_part", "column_part"], ["without_user"], {}),
        ("Add", ["without_user", "user_part"], ["first"], {}),
        ("Split", ["first", "sum_parts"], ["first_cross", "first_deep"], {"axis": 2}),
        ("Shape", ["item_row"], ["request_shape"], {}),
        ("Concat", ["request_shape", "asker_width"], ["asker_shape"], {"axis": 0}),
        ("Unsqueeze", ["asker", "second"], ["asker_once"], {}),
        ("Expand", ["asker_once", "asker_shape"], ["asker_input"], {}),
        ("Concat", ["asker_input", "item_input", "column_input"], ["x0"], {"axis": 2}),
        ("Mul", ["x0", "first_cross"], ["gated_0"], {}),
        ("Add", ["gated_0", "x0"], ["crossed_0"], {}),
    ]
    for k in range(1, CROSSES):
        steps += [
            ("MatMul", [f"crossed_{k - 1}", f"cross_{k}"], [f"mixed_{k}"], {}),
            ("Mul", ["x0", f"mixed_{k}"], [f"gated_{k}"], {}),
            ("Add", [f"gated_{k}", f"crossed_{k - 1}"], [f"crossed_{k}"], {}),
        ]
    steps += [
        ("Relu", ["first_deep"], ["hidden_0"], {}),
        ("MatMul", ["hidden_0", "deep_weight"], ["dense_1"], {}),
        ("Relu", ["dense_1"], ["hidden_1"], {}),
        ("Concat", [f"crossed_{CROSSES - 1}", "hidden_1"], ["top"], {"axis": 2}),
        ("MatMul", ["top", "head"], ["raw"], {}),
        ("Squeeze", ["raw", "last"], ["flat"], {}),
        ("Mul", ["flat", "slope"], ["scaled"], {}),
        ("Add", ["scaled", "offset"], ["logit"], {}),
        ("Sigmoid", ["logit"], ["score"], {}),
    ]
    return [helper.make_node(kind, inputs, outputs, **more) for kind, inputs, outputs, more in steps]
