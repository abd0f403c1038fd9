"""The evaluation of a dataset folder: the protocol, run for every seed, and what came out.

Per user, by time: the last 20 % of the events are the test, positives are what was liked among them, every item not met
before is a candidate, one ranking a user. Sources are fitted on what lies before; rankers and every choice saw nothing
of the test. Other users' later events are visible to every model alike.

``--part validation`` rehearses the same on each user's first 80 %, as if they were everything: the judged part is then
64 to 80 %, and the test part is not opened. Choices are made by it; the test is for the end.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np

from domain.arrays import Floats, Rows
from domain.stages import Rule
from evaluation import baselines
from evaluation.baselines import Baseline
from evaluation.served import LIMIT, Order, Served, probabilities, serve
from ranking.logistic import LogisticTables
from training import dcn_v2, fairness, rankers, sources
from training.dataset import Dataset, read
from training.quality import Numbers, Quality, Reliability, auc, log_loss, quality, reliability
from training.split import VALIDATION_PERCENT, Cut, final_cut, lengths, validation_cut
from training.threads import single_threaded

Part = Literal["test", "validation"]
Echo = Callable[[str], None]
COLD_EVENTS = 20  # a user with fewer known events is cold
COLD_ITEM_EVENTS = 5

DCN, DCN_SHOWN = "DCN-V2, as ranked", "DCN-V2, after the rules"
LOGISTIC, LOGISTIC_SHOWN = "logistic, as ranked", "logistic, after the rules"
MERGED = "merged, unranked"


@dataclass(frozen=True, slots=True, eq=False)
class RankerNumbers:
    """Over all candidates of all judged users; ``auc_within_user`` is the mean of each user's own."""

    auc: float
    auc_within_user: float
    log_loss: float
    reliability: Reliability


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What the slates of ``LIMIT`` items look like together."""

    coverage: float  # the share of the eligible items that is in anybody's slate
    novelty_bits: float  # mean of -log2(share of users who know the item): Castells et al., RecSys 2011 workshop
    cold_item_share: float  # of the places, given to items with fewer than COLD_ITEM_EVENTS known events


@dataclass(frozen=True, slots=True, eq=False)
class Slice:
    """Some of the judged users, or of their positives."""

    name: str
    size: int
    recall_at_500: float
    hit_at_10: float
    ndcg_at_10: float


@dataclass(frozen=True, slots=True, eq=False)
class Run:
    """One seed."""

    seed: int
    models: dict[str, Quality]
    rankers: dict[str, RankerNumbers]
    shown: Shown
    slices: list[Slice]
    user_groups: dict[str, list[fairness.UserGroup]]
    item_groups: dict[str, list[fairness.ItemGroup]]
    logistic: LogisticTables  # to compare with a bundle's

    @property
    def hit_disparity(self) -> float:
        return max(map(fairness.disparity, self.user_groups.values()))

    @property
    def exposure_equity(self) -> float:
        return min(map(fairness.equity, self.item_groups.values()))


@dataclass(frozen=True, slots=True, eq=False)
class Evaluation:
    """All seeds beside the baselines, which depend on none but ALS on the first."""

    dataset: str
    data_sha256: str
    part: Part
    users: int
    positives: int
    baselines: list[Baseline]
    runs: list[Run]
    activity: fairness.Groups  # of the judged users

    def mean(self, model: str, metric: str) -> Numbers:
        """``(users,)``: each user's mean over the seeds."""
        return np.mean([getattr(run.models[model], metric) for run in self.runs], axis=0)

    def by_seed(self, model: str, metric: str) -> list[float]:
        return [float(getattr(run.models[model], metric).mean()) for run in self.runs]


def evaluate(
    data: Path, rules: Sequence[Rule], *, part: Part = "test", seeds: Sequence[int] = (0,), echo: Echo = print
) -> Evaluation:
    """Train without the judged part and measure on it, once a seed; raises ``DatasetError``."""
    single_threaded()
    dataset = part_of(read(data), part)
    cut = final_cut(dataset)
    echo(f"{dataset.settings.name}, {part}: {len(baselines.judged(cut))} judged users")
    found = baselines.tuned(validation_cut(dataset), cut, seeds[0], echo)
    runs = []
    for seed in seeds:
        echo(f"seed {seed}")
        runs.append(_run(data, dataset, cut, rules, seed, echo))
    users = baselines.judged(cut)
    positives = sum(len(cut.liked(user)) for user in users)
    activity = fairness.user_groups(data, cut)["activity"].only(users)
    return Evaluation(dataset.settings.name, dataset.sha256, part, len(users), positives, found, runs, activity)


def part_of(dataset: Dataset, part: Part) -> Dataset:
    """The dataset itself for the test; for validation each user's events before the test part."""
    if part == "test":
        return dataset
    kept = lengths(dataset, VALIDATION_PERCENT)
    known = Cut(dataset, kept, kept).known
    indptr = np.concatenate(([0], np.cumsum(kept)))
    columns = {name: getattr(dataset, name)[known] for name in ("item_row", "rating", "timestamp")}
    return replace(dataset, indptr=indptr, **columns)


def _run(data: Path, dataset: Dataset, cut: Cut, rules: Sequence[Rule], seed: int, echo: Echo) -> Run:
    trained = rankers.fit(dataset, seed, echo)
    fitted = sources.fit(cut, trained.content, trained.half_life_days, seed)
    echo("sources fitted up to the judged part; serving")
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch, "model.onnx")
        example = trained.rows.only(np.arange(len(trained.rows)) < 2)
        dcn_v2.export(trained.exported(fitted.items.features), example, model)
        served = serve(fitted, model, trained.logistic, rules, baselines.judged(cut))
    run = _measured(data, fitted, served, seed, trained.logistic)
    means = run.models[DCN].means()
    echo("served: " + ", ".join(f"{name} {value:.4f}" for name, value in means.items()))
    return run


def _measured(data: Path, fitted: sources.Fitted, served: Served, seed: int, logistic: LogisticTables) -> Run:
    orders = {f"source {name}": rows for name, rows in served.alone.items()} | {
        MERGED: served.merged,
        DCN: served.dcn_v2.rows(),
        DCN_SHOWN: served.dcn_v2.shown_first(),
        LOGISTIC: served.logistic.rows(),
        LOGISTIC_SHOWN: served.logistic.shown_first(),
    }
    models = {name: quality(rows, served.liked) for name, rows in orders.items()}
    shown, groups = served.dcn_v2.shown, fairness.user_groups(data, fitted.cut)
    return Run(
        seed,
        models,
        {"DCN-V2": ranker_numbers(served.dcn_v2, served), "logistic": ranker_numbers(served.logistic, served)},
        shown_numbers(fitted.cut, shown, fitted.items.eligible),
        slices(fitted.cut, served, models[DCN_SHOWN]),
        {name: fairness.by_user_group(part, served.users, shown, served.liked) for name, part in groups.items()},
        {
            name: fairness.by_item_group(part, shown, served.liked)
            for name, part in fairness.item_groups(data, fitted.cut.dataset).items()
        },
        logistic,
    )


def ranker_numbers(order: Order, served: Served) -> RankerNumbers:
    """The ranker's probabilities against what was liked."""
    probability, liked = probabilities(order, served.liked)
    pairs = zip(order.ranked, served.liked, strict=True)
    own = [auc(candidates.score, np.isin(candidates.item_row, rows)) for candidates, rows in pairs]
    sound = [value for value in own if not np.isnan(value)]
    within = float(np.mean(sound)) if sound else float("nan")
    return RankerNumbers(auc(probability, liked), within, log_loss(probability, liked), reliability(probability, liked))


def shown_numbers(cut: Cut, shown: Sequence[Rows], eligible: np.ndarray[tuple[int], np.dtype[np.bool_]]) -> Shown:
    """Of the slates of all judged users; at least one item was shown."""
    rows = np.concatenate(shown) if shown else np.empty(0, np.int32)
    known = np.bincount(cut.dataset.item_row[cut.known], minlength=len(eligible))
    share = np.maximum(known, 1) / len(cut.length)  # an item nobody knows is as novel as one that a single user does
    novelty: Floats = -np.log2(share[rows])
    if not len(rows):
        return Shown(0.0, float("nan"), float("nan"))
    coverage = len(np.unique(rows)) / int(eligible.sum())
    return Shown(coverage, float(novelty.mean()), float((known[rows] < COLD_ITEM_EVENTS).mean()))


def slices(cut: Cut, served: Served, found: Quality) -> list[Slice]:
    """Cold and warm users by what the slate gave them, and cold and warm items by what became of those liked."""
    few = cut.length[served.users] < COLD_EVENTS
    parts = {f"users with fewer than {COLD_EVENTS} known events": few, f"users with {COLD_EVENTS} and more": ~few}
    rows = [
        Slice(name, int(mask.sum()), *(float(getattr(found, metric)[mask].mean()) for metric in SLICED))
        for name, mask in parts.items()
        if mask.any()
    ]
    known = np.bincount(cut.dataset.item_row[cut.known], minlength=len(cut.dataset.item_ids))
    cold = known < COLD_ITEM_EVENTS
    rows.append(_of_items(f"liked items with fewer than {COLD_ITEM_EVENTS} known events", cold, served))
    return [*rows, _of_items(f"liked items with {COLD_ITEM_EVENTS} and more", ~cold, served)]


SLICED = ("recall_at_500", "hit_at_10", "ndcg_at_10")


def _of_items(name: str, kind: np.ndarray[tuple[int], np.dtype[np.bool_]], served: Served) -> Slice:
    """Over the users who liked any such item, only those counting as positives."""
    liked = [rows[kind[rows]] for rows in served.liked]
    some = [at for at, rows in enumerate(liked) if len(rows)]
    orders = served.dcn_v2.shown_first()
    means = quality([orders[at] for at in some], [liked[at] for at in some]).means()
    return Slice(name, sum(map(len, liked)), *(means.get(metric, float("nan")) for metric in SLICED))


__all__ = ["LIMIT", "Evaluation", "Run", "evaluate"]
