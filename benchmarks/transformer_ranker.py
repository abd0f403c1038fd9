"""DCN-V2 beside a small transformer on the same requests: ``python -m benchmarks.transformer_ranker [--seeds 0,1,2]``.

Both learn from the windows of ``benchmarks.selection`` and are judged on the 60 to 80 % part; what comes after is never
looked at. Same rows, same loss, same held-out users, same rule for keeping an epoch. The transformer reads the user's
last 50 events (item embedding, liked or not, place) by one layer of causal self-attention, as in SASRec (Kang and
McAuley, ICDM 2018); each candidate then attends to them as the target does in BST (Chen et al., DLP-KDD 2019). Its
dense head reads the columns that DCN-V2 reads too, and it starts from the same best linear model.

Latency is that of the graph alone in ONNX runtime on one thread, 500 candidates, one request at a time, the two taking
turns: a ratio within one run, which other work on the machine moves little.
"""

from __future__ import annotations

import argparse
import copy
import tempfile
import time
import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from benchmarks.machine import headline, measured_on
from benchmarks.selection import JUDGED, WINDOWS, interval
from domain.arrays import Floats
from features.definitions import positive
from training import dcn_v2, linear_start, rankers, sources
from training.dataset import Dataset, read
from training.rank_rows import RankRows, collect
from training.split import Cut, cut
from training.threads import single_threaded

EVENTS = 50
WIDTH, HEADS, FEED_FORWARD = 32, 2, 64
DEEP = (64, 32)
SEEDS = (0, 1, 2)
SCHEDULES = {
    "DCN-V2's schedule": dcn_v2.Schedule(),
    "learning rate 1e-3": dcn_v2.Schedule(learning_rate=1e-3),
}
CALLS, WARM_CALLS = 300, 30


@dataclass(frozen=True, slots=True, eq=False)
class Batch:
    """What the transformer reads of ``b`` requests: the last events, the candidates and their ``k`` inputs."""

    event: torch.Tensor  # (b, EVENTS) item row + 1, 0 for none, latest last
    liked: torch.Tensor  # (b, EVENTS) 0 or 1
    user: torch.Tensor  # (b, U) standardised
    candidate: torch.Tensor  # (b, n) item row
    inputs: torch.Tensor  # (b, n, k) item features and candidate columns, standardised

    def arguments(self) -> tuple[torch.Tensor, ...]:
        return self.event, self.liked, self.user, self.candidate, self.inputs


class Transformer(nn.Module):
    """Logits ``(b, n)``: a linear part over the inputs, and a dense part that hears what the candidate attended to."""

    def __init__(self, items: int, user_width: int, inputs: int, linear: torch.Tensor) -> None:
        super().__init__()
        self.item = nn.Embedding(items + 1, WIDTH, padding_idx=0)
        self.place = nn.Parameter(torch.zeros(EVENTS, WIDTH))
        self.liking = nn.Embedding(2, WIDTH)
        for embedding in (self.item, self.liking):
            nn.init.normal_(embedding.weight, std=0.02)
        self.encoder = nn.TransformerEncoderLayer(WIDTH, HEADS, FEED_FORWARD, dropout=0.1, batch_first=True)
        self.target = nn.MultiheadAttention(WIDTH, HEADS, batch_first=True)
        self.deep = nn.Sequential(
            nn.Linear(2 * WIDTH + user_width + inputs, DEEP[0]),
            nn.ReLU(),
            nn.Linear(DEEP[0], DEEP[1]),
            nn.ReLU(),
            nn.Linear(DEEP[1], 1),
        )
        self.linear = nn.Parameter(linear.clone())
        self.alike = nn.Parameter(torch.zeros(1))
        self.register_buffer("later", torch.triu(torch.ones(EVENTS, EVENTS, dtype=torch.bool), diagonal=1))

    def forward(
        self,
        event: torch.Tensor,
        liked: torch.Tensor,
        user: torch.Tensor,
        candidate: torch.Tensor,
        inputs: torch.Tensor,
    ) -> torch.Tensor:
        there = (event > 0).float()[..., None]
        # a place without event is a zero vector that may be attended to: a softmax over nothing would be NaN
        heard = (self.item(event) + self.liking(liked) + self.place) * there
        heard = self.encoder(heard, src_mask=self.later)
        asked = self.item(candidate + 1)
        found, _ = self.target(asked, heard, heard, need_weights=False)
        who = user[:, None, :].expand(-1, asked.shape[1], -1)
        dense = self.deep(torch.cat([asked, found, who, inputs], dim=2)).squeeze(2)
        return inputs @ self.linear + dcn_v2.DEEP_START * dense + self.alike * (asked * found).sum(dim=2)


@dataclass(frozen=True, slots=True, eq=False)
class Histories:
    """The last events before a request's cut, ``(r, EVENTS)`` each, aligned with the rows."""

    event: NDArray[np.int64]
    liked: NDArray[np.int64]

    @classmethod
    def of(cls, cuts: tuple[Cut, ...], rows: RankRows) -> Histories:
        event, liked = np.zeros((2, len(rows), EVENTS), np.int64)
        for at, (user, number) in enumerate(zip(rows.user_row.tolist(), rows.cut.tolist(), strict=True)):
            history = cuts[number].history(user).latest(EVENTS)
            if len(history):
                event[at, -len(history) :] = history.item_row + 1
                liked[at, -len(history) :] = positive(history, cuts[number].dataset.settings.positive_stars)
        return cls(event, liked)


@dataclass(frozen=True, slots=True, eq=False)
class Requests:
    """Rows with their histories and the standardised inputs they are read with."""

    rows: RankRows
    histories: Histories
    inputs: dcn_v2.Inputs

    def batch(self, at: NDArray[np.intp], places: NDArray[np.intp] | None = None) -> Batch:
        """The requests ``at``; of each, the candidates at ``places`` ``(b, m)`` where not all."""
        rows = self.rows
        places = np.tile(np.arange(rows.item_row.shape[1]), (len(at), 1)) if places is None else places
        item_row = np.take_along_axis(rows.item_row[at], places, axis=1)
        columns = np.take_along_axis(rows.columns[at], places[..., None], axis=1)
        columns = np.clip((columns - self.inputs.column_mean) / self.inputs.column_scale, -8.0, 8.0)
        items = self.inputs.item[rows.cut[at][:, None], item_row]
        user = (rows.user[at] - self.inputs.user_mean) / self.inputs.user_scale
        return Batch(
            torch.from_numpy(self.histories.event[at]),
            torch.from_numpy(self.histories.liked[at]),
            torch.from_numpy(user.astype(np.float32)),
            torch.from_numpy(item_row.astype(np.int64)),
            torch.from_numpy(np.concatenate([items, columns], axis=2).astype(np.float32)),
        )


def logits(model: Transformer, requests: Requests) -> Floats:
    """``(r, n)``; -inf where there is no candidate."""
    model.eval()
    with torch.no_grad():
        parts = np.array_split(np.arange(len(requests.rows)), -(-len(requests.rows) // dcn_v2.REQUESTS_AT_ONCE))
        score = np.concatenate([model(*requests.batch(part).arguments()).numpy() for part in parts])
    return np.where(requests.rows.there, score, -np.inf).astype(np.float32)


def fit(shown: Requests, judged: Requests, schedule: dcn_v2.Schedule, seed: int) -> tuple[Transformer, int]:
    """The model, and after how many epochs it was kept: by the rule that DCN-V2 is kept by."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    rows = shown.rows
    able = np.flatnonzero(rows.liked.any(axis=1))
    whole = shown.batch(able)
    linear = linear_start.fit(whole.inputs, torch.from_numpy(rows.liked[able]), torch.from_numpy(rows.there[able]))
    model = Transformer(shown.inputs.item.shape[1], whole.user.shape[1], whole.inputs.shape[2], linear)
    averaged, step = copy.deepcopy(model), 0
    optimiser = torch.optim.AdamW(model.parameters(), lr=schedule.learning_rate, weight_decay=schedule.weight_decay)
    best, kept, at = dcn_v2.ndcg_each(judged.rows, logits(model, judged)), copy.deepcopy(model), 0
    for epoch in range(1, schedule.epochs + 1):
        model.train()
        order = rng.permutation(able)
        for start in range(0, len(order), schedule.requests):
            loss = _loss(model, shown, order[start : start + schedule.requests], schedule.negatives, rng)
            optimiser.zero_grad()
            torch.autograd.backward(loss)
            optimiser.step()
            step += 1
            _follow(averaged, model, min(schedule.averaging, step / (step + dcn_v2.WARM_STEPS)))
        quality = dcn_v2.ndcg_each(judged.rows, logits(averaged, judged))
        difference = quality - best
        if difference.mean() > difference.std() / np.sqrt(len(difference)):
            best, kept, at = quality, copy.deepcopy(averaged), epoch
        elif epoch - at >= schedule.patience:
            break
    return kept, at


def _loss(
    model: Transformer, shown: Requests, at: NDArray[np.intp], negatives: int, rng: np.random.Generator
) -> torch.Tensor:
    """Of all positives of the requests and ``negatives`` others, as DCN-V2's steps are made up."""
    rows = shown.rows
    keys = rng.random(rows.liked[at].shape) - rows.liked[at] + 2.0 * ~rows.there[at]
    places = np.argsort(keys, axis=1)[:, : int(rows.liked[at].sum(axis=1).max()) + negatives]
    liked, there = (torch.from_numpy(np.take_along_axis(mask[at], places, axis=1)) for mask in (rows.liked, rows.there))
    return linear_start.listwise_loss(model(*shown.batch(at, places).arguments()), liked, there)


def _follow(averaged: nn.Module, model: nn.Module, keep: float) -> None:
    with torch.no_grad():
        for mean, weight in zip(averaged.parameters(), model.parameters(), strict=True):
            mean.lerp_(weight, 1.0 - keep)


def export(model: Transformer, example: Batch, path: Path) -> None:
    """One request as ONNX, for the clock alone."""
    model.eval()
    names = ["event", "liked", "user", "candidate", "inputs"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torch's older exporter, as in training.dcn_v2
        torch.onnx.export(
            model, example.arguments(), str(path), input_names=names, output_names=["score"], opset_version=17,
            dynamo=False,
        )  # fmt: skip


def latencies(transformer: Path, batch: Batch, dcn: Path, rows: RankRows) -> tuple[float, float]:
    """p95 in ms of both graphs for one request of 500 candidates, call about."""
    names = ("event", "liked", "user", "candidate", "inputs")
    one = dict(zip(names, (part.numpy() for part in batch.arguments()), strict=True))
    other = {"user": rows.user[:1], "codes": rows.codes[:1], "item_row": rows.item_row[:1], "columns": rows.columns[:1]}
    graphs = [(dcn_v2.session(transformer), one), (dcn_v2.session(dcn), other)]
    taken = np.zeros((WARM_CALLS + CALLS, 2))
    for call in range(len(taken)):
        for which, (graph, tensors) in enumerate(graphs):
            started = time.perf_counter()
            graph.run(["score"], tensors)
            taken[call, which] = time.perf_counter() - started
    first, second = np.quantile(taken[WARM_CALLS:], 0.95, axis=0) * 1e3
    return float(first), float(second)


def report(dataset: Dataset, seeds: Sequence[int]) -> None:
    """The table, line by line as it is found; what it took at the end."""
    started = time.monotonic()
    print(headline(measured_on()), flush=True)
    windows = rankers.ask(dataset, WINDOWS, 0, lambda _: None)
    fitted = sources.fit(cut(dataset, *JUDGED), windows.content, windows.half_life_days, 0)
    compare(windows, fitted.cut, collect(fitted, 0), fitted.items.features, seeds)
    print(f"\n{len(seeds)} seeds in {(time.monotonic() - started) / 60:.0f} minutes")


def compare(windows: rankers.Asked, judged: Cut, rows: RankRows, item_features: Floats, seeds: Sequence[int]) -> None:
    """Both models on the same ``windows``, judged on ``rows``, whose items are as of the judged cut."""
    print("| model | seed | epochs kept | NDCG@10 | DCN-V2 | paired difference, 95 % |\n" + "|---" * 6 + "|")
    for seed in seeds:
        trained = rankers.learn(windows, rankers.SHAPE, rankers.SCHEDULE, seed, lambda _: None)
        now = dcn_v2.with_items(trained.inputs, trained.inputs.standard_item(item_features)[None])
        ours = dcn_v2.ndcg_each(rows, dcn_v2.logits(trained.model, rows, now))
        held = np.isin(windows.rows.user_row, np.unique(windows.rows.user_row[trained.judged]))
        shown, early = (_requests(windows.cuts, windows.rows.only(mask), trained.inputs) for mask in (~held, held))
        asked = _requests((judged,), rows, now)
        for name, schedule in SCHEDULES.items():
            model, epochs = fit(shown, early, schedule, seed)
            theirs = dcn_v2.ndcg_each(rows, logits(model, asked))
            low, high = interval((theirs - ours).astype(np.float32))
            print(
                f"| transformer, {name} | {seed} | {epochs} | {theirs.mean():.4f} | {ours.mean():.4f} "
                f"| {low:+.4f} to {high:+.4f} |",
                flush=True,
            )
    with tempfile.TemporaryDirectory() as scratch:
        one, other = Path(scratch, "transformer.onnx"), Path(scratch, "dcn_v2.onnx")
        batch = asked.batch(np.array([0]))
        export(model, batch, one)
        dcn_v2.export(trained.exported(item_features), rows.only(np.arange(len(rows)) < 2), other)
        transformer, dcn = latencies(one, batch, other, rows)
    print(f"\np95 for {rows.item_row.shape[1]} candidates, one thread: transformer {transformer:.2f} ms, "
          f"DCN-V2 {dcn:.2f} ms, ratio {transformer / dcn:.2f}")  # fmt: skip


def _requests(cuts: tuple[Cut, ...], rows: RankRows, inputs: dcn_v2.Inputs) -> Requests:
    return Requests(rows, Histories.of(cuts, rows), inputs)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/movielens-small"))
    parser.add_argument("--seeds", default=",".join(map(str, SEEDS)), metavar="0,1,2")
    single_threaded()
    told = parser.parse_args()
    report(read(told.data), [int(seed) for seed in told.seeds.split(",")])


if __name__ == "__main__":
    main()
