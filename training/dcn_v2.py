"""DCN-V2: crosses of every input with every other, beside a deep network.

R. Wang et al., "DCN V2: Improved Deep & Cross Network and Practical Lessons for Web-scale Learning to Rank Systems",
WWW 2021. The crosses, full-rank or a mixture of low-rank experts, are in ``training.crosses``. In the parallel
structure the deep network reads x0, in the stacked one the last cross.

The input x0 is [user | item | candidate columns]. Where a layer reads x0, W x0 is the sum of a user's part, an item's
part and a part of the candidate columns. So the exported graph holds the item's part for every item, computed once,
and computes the user's part once a request: the same function with almost half of the arithmetic.
"""

from __future__ import annotations

import copy
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal, cast

import numpy as np
import onnxruntime
import torch
from numpy.typing import NDArray
from sklearn.linear_model import LogisticRegression
from torch import nn

from domain.arrays import Floats
from features.contract import CONTRACT
from training import linear_start
from training.crosses import Cross, FullCross, MixtureCross
from training.rank_rows import RankRows

PLATT_INVERSE_REGULARISATION = 1e3
FLAT_SLOPE = 1e-3
REQUESTS_AT_ONCE = 32
DEEP_START = 0.1  # of the usual start: what the deep network adds to the linear model at first
WARM_STEPS = 9  # the average begins short, so that the random start is soon forgotten
Positions = NDArray[np.intp]
Structure = Literal["parallel", "stacked"]
Crossing = Literal["full", "mixture"]


@dataclass(frozen=True, slots=True)
class Shape:
    """The size of the network."""

    structure: Structure = "parallel"
    crossing: Crossing = "full"
    experts: int = 4  # of a mixture
    rank: int = 32  # of an expert
    crosses: int = 3  # at least one
    deep: tuple[int, int] = (64, 32)
    code_width: int = 4
    item_width: int = 8  # learned embedding of the item
    dropout: float = 0.0


@dataclass(frozen=True, slots=True)
class Schedule:
    """How it is trained. Negatives are drawn anew every epoch from what retrieval returned."""

    epochs: int = 6
    patience: int = 1  # epochs without a better NDCG@10 on held-out users
    requests: int = 16  # a step
    negatives: int = 100
    learning_rate: float = 1e-5
    weight_decay: float = 1e-3
    embedding_decay: float = 1e-2
    averaging: float = 0.99  # of the weights over the steps: few users make noisy steps


@dataclass(frozen=True, slots=True, eq=False)
class Inputs:
    """The inputs' means and deviations, and every item's features as of every cut."""

    user_mean: Floats  # (U,)
    user_scale: Floats
    column_mean: Floats  # (C,)
    column_scale: Floats
    item_mean: Floats  # (I,)
    item_scale: Floats
    item: Floats  # (cuts, n, I) standardised

    def standard_item(self, item_features: Floats) -> Floats:
        """``(..., I)`` raw item features as the model reads them."""
        return ((CONTRACT.item.scaled(item_features) - self.item_mean) / self.item_scale).astype(np.float32)


class DcnV2(nn.Module):
    """The plain model: all of x0 goes through every layer. Answers logits ``(B, n)``."""

    user_mean: torch.Tensor
    user_scale: torch.Tensor
    column_mean: torch.Tensor
    column_scale: torch.Tensor

    def __init__(self, inputs: Inputs, shape: Shape) -> None:
        super().__init__()
        self.shape = shape
        self.codes = nn.ModuleList(
            [nn.Embedding(len(category.values) + 1, shape.code_width) for category in CONTRACT.context]
        )
        self.item = nn.Embedding(inputs.item.shape[1], shape.item_width)
        self.user_width = len(inputs.user_mean) + shape.code_width * len(CONTRACT.context)
        self.item_width = inputs.item.shape[2] + shape.item_width
        self.width = width = self.user_width + self.item_width + len(inputs.column_mean)
        self.crosses = nn.ModuleList([make_cross(shape, width) for _ in range(shape.crosses)])
        self.deep = nn.ModuleList([nn.Linear(a, b) for a, b in zip((width, *shape.deep), shape.deep, strict=False)])
        self.head = nn.Linear(shape.deep[-1] + (width if shape.structure == "parallel" else 0), 1)
        self.dropout = nn.Dropout(shape.dropout)
        for name in ("user_mean", "user_scale", "column_mean", "column_scale"):
            self.register_buffer(name, torch.from_numpy(getattr(inputs, name)))
        nn.init.normal_(self.item.weight, std=0.01)

    def user_side(self, user: torch.Tensor, codes: torch.Tensor) -> torch.Tensor:
        """``(B, user_width)``."""
        embedded = [embedding(codes[:, k]) for k, embedding in enumerate(self.codes)]
        return torch.cat([(user - self.user_mean) / self.user_scale, *embedded], dim=1)

    def column_side(self, columns: torch.Tensor) -> torch.Tensor:
        """``(B, n, C)``, cut where a value is far outside of what training saw."""
        return ((columns - self.column_mean) / self.column_scale).clamp(-8.0, 8.0)

    def forward(
        self,
        user: torch.Tensor,
        codes: torch.Tensor,
        item_row: torch.Tensor,
        columns: torch.Tensor,
        item_features: torch.Tensor,
    ) -> torch.Tensor:
        """``item_features`` ``(B, n, I)`` are standardised."""
        n = item_row.shape[1]
        asker = self.user_side(user, codes)[:, None, :].expand(-1, n, -1)
        x0 = torch.cat([asker, item_features, self.item(item_row), self.column_side(columns)], dim=2)
        x0 = self.dropout(x0)
        first = self.ordered_crosses[0]
        crossed = first.finish(x0, x0, first.read(x0))
        return self.tail(x0, crossed, self.deep[0](x0) if self.shape.structure == "parallel" else None)

    @property
    def ordered_crosses(self) -> list[Cross]:
        """First to last."""
        return [cast("Cross", cross) for cross in self.crosses]

    def tail(self, x0: torch.Tensor, crossed: torch.Tensor, deep: torch.Tensor | None) -> torch.Tensor:
        """Everything after the first cross ``crossed`` and the first dense layer's sum ``deep`` (None when stacked)."""
        for cross in self.ordered_crosses[1:]:
            crossed = cross.finish(x0, crossed, cross.read(crossed))
        hidden = torch.relu(self.deep[0](crossed) if deep is None else deep)
        for layer in list(self.deep)[1:]:
            hidden = torch.relu(layer(self.dropout(hidden)))
        last = hidden if deep is None else torch.cat([crossed, hidden], dim=2)
        return self.head(last).squeeze(2)


def make_cross(shape: Shape, width: int) -> Cross:
    return FullCross(width) if shape.crossing == "full" else MixtureCross(width, shape.experts, shape.rank)


class Exported(nn.Module):
    """The same function as ``DcnV2`` followed by the calibration, with the items' parts computed beforehand."""

    table: torch.Tensor  # (items, inputs + first cross + first dense layer)
    user_weight: torch.Tensor
    column_weight: torch.Tensor

    def __init__(self, model: DcnV2, item_features: Floats, slope: float, offset: float) -> None:
        super().__init__()
        self.model = model
        self.slope, self.offset = slope, offset
        item = torch.cat([torch.from_numpy(item_features), model.item.weight.detach()], dim=1)
        self.split = (model.user_width, model.user_width + model.item_width)
        self.first = model.ordered_crosses[0]
        layers = [self.first.read] + ([model.deep[0]] if model.shape.structure == "parallel" else [])
        weights = [torch.as_tensor(layer.weight) for layer in layers]
        biases = [torch.as_tensor(layer.bias) for layer in layers]
        start, end = self.split
        # one gather brings the item's inputs and its part of every layer that reads x0
        parts = [item, *(item @ W[:, start:end].T + b for W, b in zip(weights, biases, strict=True))]
        self.register_buffer("table", torch.cat(parts, dim=1).detach().contiguous())
        # the map from an item's inputs to its row of the table, for items that come later
        self.item_weight = torch.cat([torch.eye(end - start), *(W[:, start:end].T for W in weights)], dim=1).detach()
        self.item_bias = torch.cat([torch.zeros(end - start), *biases]).detach()
        self.widths = [part.shape[1] for part in parts]
        weight = torch.cat(weights, dim=0).detach()
        self.register_buffer("user_weight", weight[:, :start].T.contiguous())
        self.register_buffer("column_weight", weight[:, end:].T.contiguous())

    def forward(
        self, user: torch.Tensor, codes: torch.Tensor, item_row: torch.Tensor, columns: torch.Tensor
    ) -> torch.Tensor:
        model = self.model
        asker = model.user_side(user, codes)
        columns = model.column_side(columns)
        gathered = self.table[item_row.long()]
        item, summed = gathered[..., : self.widths[0]], gathered[..., self.widths[0] :]
        summed = summed + (asker @ self.user_weight)[:, None, :] + columns @ self.column_weight
        x0 = torch.cat([asker[:, None, :].expand(-1, item.shape[1], -1), item, columns], dim=2)
        read = self.first.read.out_features
        crossed = self.first.finish(x0, x0, summed[..., :read])
        deep = summed[..., read:] if model.shape.structure == "parallel" else None
        return torch.sigmoid(self.slope * model.tail(x0, crossed, deep) + self.offset)


def measure_inputs(rows: RankRows, item_features: Floats) -> Inputs:
    """Standardisation from the training requests; ``item_features`` ``(cuts, n, I)`` raw."""
    flat = CONTRACT.item.scaled(item_features).reshape(-1, item_features.shape[2])
    columns = rows.columns[rows.there]
    inputs = Inputs(
        rows.user.mean(axis=0),
        _deviation(rows.user),
        columns.mean(axis=0),
        _deviation(columns),
        flat.mean(axis=0),
        _deviation(flat),
        item_features,
    )
    return replace(inputs, item=inputs.standard_item(item_features))


def with_items(inputs: Inputs, item: Floats) -> Inputs:
    """The same standardisation over other items: ``(cuts, n, I)``, standardised."""
    return replace(inputs, item=item)


def _deviation(values: Floats) -> Floats:
    """A column that never varies is left alone."""
    deviation = values.std(axis=0)
    return np.where(deviation < 1e-4, 1.0, deviation).astype(np.float32)


def fit(
    shown: RankRows, judged: RankRows, inputs: Inputs, shape: Shape, schedule: Schedule, seed: int
) -> tuple[DcnV2, float, float]:
    """The model, and the slope and offset that calibrate its logits on the ``judged`` requests.

    Trained by the cross-entropy of a request's positives in the softmax over its candidates, from the best linear model
    on; keeps the epoch that is clearly best by NDCG@10 on the judged requests, whose users take no part in training.
    The linear model itself is the first to be judged.
    """
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    model = DcnV2(inputs, shape)
    shown = shown.only(shown.liked.sum(axis=1) > 0)
    if shape.structure == "parallel":
        _start_linear(model, shown, inputs)
    averaged, step = copy.deepcopy(model), 0
    optimiser = _optimiser(model, schedule)
    best, kept, waited = ndcg_each(judged, logits(model, judged, inputs)), copy.deepcopy(model), 0
    for _ in range(schedule.epochs):
        model.train()
        for batch in _batches(shown, schedule, rng):
            loss = _listwise_loss(model, batch, inputs)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            step += 1
            _follow(averaged, model, min(schedule.averaging, step / (step + WARM_STEPS)))
        quality = ndcg_each(judged, logits(averaged, judged, inputs))
        if _clearly_better(quality, best):
            best, kept, waited = quality, copy.deepcopy(averaged), 0
        elif (waited := waited + 1) >= schedule.patience:
            break
    kept.eval()
    return kept, *calibration(judged, logits(kept, judged, inputs))


def _clearly_better(one: NDArray[np.float64], other: NDArray[np.float64]) -> bool:
    """By more than a standard error of the paired difference: among a hundred users chance alone moves the mean."""
    difference = one - other
    return bool(difference.mean() > difference.std() / np.sqrt(max(len(difference), 1)))


def _start_linear(model: DcnV2, rows: RankRows, inputs: Inputs) -> None:
    """Set the head so that the model orders as the best linear one does, while crosses and deep network add little."""
    features = torch.from_numpy(inputs.item[rows.cut[:, None], rows.item_row])
    columns = model.column_side(torch.from_numpy(rows.columns))
    weight = linear_start.fit(
        torch.cat([features, columns], dim=2), torch.from_numpy(rows.liked), torch.from_numpy(rows.there)
    )
    split, item = features.shape[2], model.user_width
    with torch.no_grad():
        model.head.weight[:, : model.width] = 0.0
        model.head.weight[:, model.width :] *= DEEP_START
        model.head.weight[0, item : item + split] = weight[:split]
        model.head.weight[0, item + model.item_width : model.width] = weight[split:]


def _follow(averaged: DcnV2, model: DcnV2, keep: float) -> None:
    """Move the averaged weights toward the model's: an exponential moving average over steps."""
    with torch.no_grad():
        for mean, weight in zip(averaged.parameters(), model.parameters(), strict=True):
            mean.lerp_(weight, 1.0 - keep)


def _optimiser(model: DcnV2, schedule: Schedule) -> torch.optim.Optimizer:
    """AdamW, with a decay of its own for the items' embeddings, which have the fewest examples each."""
    others = [parameter for name, parameter in model.named_parameters() if name != "item.weight"]
    groups = [
        {"params": others, "weight_decay": schedule.weight_decay},
        {"params": [model.item.weight], "weight_decay": schedule.embedding_decay},
    ]
    return torch.optim.AdamW(groups, lr=schedule.learning_rate)


def _batches(rows: RankRows, schedule: Schedule, rng: np.random.Generator) -> Iterator[RankRows]:
    """Requests in random order, each with all its positives and ``negatives`` others."""
    keys = rng.random(rows.liked.shape) - rows.liked + 2.0 * ~rows.there
    width = min(rows.liked.shape[1], int(rows.liked.sum(axis=1).max(initial=0)) + schedule.negatives)
    chosen = np.argsort(keys, axis=1)[:, :width]
    order = rng.permutation(len(rows))
    for start in range(0, len(order), schedule.requests):
        at = order[start : start + schedule.requests]
        yield _candidates(rows, at, chosen[at])


def _candidates(rows: RankRows, at: Positions, chosen: Positions) -> RankRows:
    positions = (at[:, None], chosen)
    return RankRows(
        rows.user_row[at],
        rows.cut[at],
        rows.numeric[at],
        rows.user[at],
        rows.codes[at],
        rows.item_row[positions],
        rows.there[positions],
        rows.columns[positions],
        rows.liked[positions],
        rows.liked_in_all[at],
    )


def forward(model: DcnV2, rows: RankRows, inputs: Inputs) -> torch.Tensor:
    """``(r, n)`` logits, with gradients."""
    features = inputs.item[rows.cut[:, None], rows.item_row]
    return model(
        torch.from_numpy(rows.user),
        torch.from_numpy(rows.codes).long(),
        torch.from_numpy(rows.item_row).long(),
        torch.from_numpy(rows.columns),
        torch.from_numpy(features),
    )


def _listwise_loss(model: DcnV2, rows: RankRows, inputs: Inputs) -> torch.Tensor:
    score = forward(model, rows, inputs)
    return linear_start.listwise_loss(score, torch.from_numpy(rows.liked), torch.from_numpy(rows.there))


def logits(model: DcnV2, rows: RankRows, inputs: Inputs) -> Floats:
    """``(r, n)`` logits of all candidates; -inf where there is none."""
    model.eval()
    with torch.no_grad():
        chunk = np.arange(len(rows)) // REQUESTS_AT_ONCE
        parts = [forward(model, rows.only(np.equal(chunk, at)), inputs).numpy() for at in np.unique(chunk).tolist()]
    score = np.concatenate(parts) if parts else np.zeros(rows.item_row.shape, np.float32)
    return np.where(rows.there, score, -np.inf).astype(np.float32)


def ndcg(rows: RankRows, score: Floats, k: int = 10) -> float:
    """Mean NDCG@k over the requests; positives that were not retrieved count as missed."""
    return float(ndcg_each(rows, score, k).mean()) if len(rows) else 0.0


def ndcg_each(rows: RankRows, score: Floats, k: int = 10) -> NDArray[np.float64]:
    """``(r,)``: NDCG@k of every request."""
    order = np.argsort(-score, axis=1, kind="stable")[:, :k]
    discount = 1.0 / np.log2(np.arange(2, k + 2))
    gain = (np.take_along_axis(rows.liked, order, axis=1) * discount[: order.shape[1]]).sum(axis=1)
    ideal = np.cumsum(discount)[np.minimum(rows.liked_in_all, k) - 1]
    return np.asarray(gain / ideal, np.float64)


def calibration(rows: RankRows, score: Floats) -> tuple[float, float]:
    """Slope and offset by Platt: logistic regression of the label on the logit.

    J. Platt, "Probabilistic Outputs for Support Vector Machines", 1999. (1, 0) where there is nothing to fit on.
    """
    x, y = score[rows.there][:, None], rows.liked[rows.there]
    if y.all() or not y.any():
        return 1.0, 0.0
    platt = LogisticRegression(C=PLATT_INVERSE_REGULARISATION).fit(x, y)
    slope, offset = float(platt.coef_[0, 0]), float(platt.intercept_[0])
    if slope > 0:
        return slope, offset
    # calibration may bend the scores, never turn their order round: nearly constant, at the mean
    return FLAT_SLOPE, float(np.log(y.mean() / (1.0 - y.mean())))


def export(exported: Exported, example: RankRows, path: Path) -> None:
    """Write the graph as ONNX: inputs user, codes, item_row, columns; output score; B and n are free."""
    exported.eval()
    inputs = (example.user, example.codes, example.item_row, example.columns)
    arguments = tuple(torch.from_numpy(np.ascontiguousarray(part)) for part in inputs)
    free = {"item_row": {0: "B", 1: "n"}, "columns": {0: "B", 1: "n"}, "score": {0: "B", 1: "n"}}
    with warnings.catch_warnings():
        # torch is pinned; its newer exporter needs onnxscript and gives the same graph for a network like this
        warnings.simplefilter("ignore", DeprecationWarning)
        torch.onnx.export(
            exported,
            arguments,
            str(path),
            input_names=["user", "codes", "item_row", "columns"],
            output_names=["score"],
            dynamic_axes={"user": {0: "B"}, "codes": {0: "B"}, **free},
            opset_version=17,
            dynamo=False,
        )


def session(model: Path) -> onnxruntime.InferenceSession:
    """The exported graph, ready to run on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    return onnxruntime.InferenceSession(str(model), options, providers=["CPUExecutionProvider"])


def scores(model: Path, rows: RankRows) -> Floats:
    """``(r, n)`` what the exported graph answers, one request at a time as when serving; -inf where nothing is."""
    graph = session(model)
    columns = {"user": rows.user, "codes": rows.codes, "item_row": rows.item_row, "columns": rows.columns}
    score = np.full(rows.there.shape, -np.inf, np.float32)
    for at, there in enumerate(rows.there):
        n = int(there.sum())
        tensors = {name: column[at : at + 1] for name, column in columns.items()}
        tensors |= {name: tensors[name][:, :n] for name in ("item_row", "columns")}
        score[at, :n] = graph.run(["score"], tensors)[0][0]
    return score
