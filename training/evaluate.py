"""How good the served order is on what each user did last, beside what single models reach.

The protocol: per user the last 20 % of the events are the test, positives are what was liked among them, every item
that the user has not met before is a candidate, one ranking a user at the cut. Sources are fitted on train and
validation; rankers and every choice were made without the test part. Other users' later events are visible to every
model alike. The baselines rank the whole catalogue; what they are tuned by is the validation part.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from domain.arrays import Floats, Rows
from retrieval.filters import allowed
from retrieval.merge import merge
from training import collaborative, dcn_v2, logistic, popularity, rankers, sources
from training.dataset import Dataset, read
from training.rank_rows import collect
from training.split import Cut, final_cut, validation_cut
from training.threads import single_threaded

RIDGES = (100.0, 200.0, 500.0, 1000.0)
RANKED = 500


@dataclass(frozen=True, slots=True)
class Quality:
    """Means over the users who liked anything in the held-out part."""

    recall_at_500: float
    hit_at_10: float
    ndcg_at_10: float
    ndcg_at_20: float


@dataclass(frozen=True, slots=True)
class Evaluation:
    """One row a model; for a single source only its recall means something."""

    users: int
    positives: int
    models: dict[str, Quality]

    def __str__(self) -> str:
        """The table as a person reads it."""
        lines = [f"{self.users} users with {self.positives} positives"]
        lines.append(f"{'':28s} Recall@500  Hit@10  NDCG@10  NDCG@20")
        for name, q in self.models.items():
            numbers = f"{q.recall_at_500:10.3f} {q.hit_at_10:7.3f} {q.ndcg_at_10:8.4f} {q.ndcg_at_20:8.4f}"
            lines.append(f"{name:28s} {numbers}")
        return "\n".join(lines)


def evaluate(data: Path, *, seed: int = 0, echo: Callable[[str], None] = print) -> Evaluation:
    """Train on the dataset folder without its test part and measure on that; raises ``DatasetError``."""
    single_threaded()
    dataset = read(data)
    trained = rankers.fit(dataset, seed, echo)
    echo("baselines")
    models = baselines(dataset)
    echo("the served order")
    cut = final_cut(dataset)
    fitted = sources.fit(cut, trained.content, trained.half_life_days, seed)
    models |= served(fitted, trained)
    liked = [cut.liked(user) for user in range(len(cut.length))]
    return Evaluation(sum(bool(len(rows)) for rows in liked), sum(map(len, liked)), models)


def served(fitted: sources.Fitted, trained: rankers.Rankers) -> dict[str, Quality]:
    """The sources one by one, merged, and in the order of each ranker."""
    users = _judged(fitted.cut)
    liked = [fitted.cut.liked(user) for user in users]
    found = sources.retrieve_all(fitted, users)
    models = {}
    for number, name in enumerate(sources.NAMES):
        keeps = (allowed(fitted.items.eligible, request.user.seen) for request in found)
        alone = [merge([r.found[number]], [0], keep, RANKED).item_row for r, keep in zip(found, keeps, strict=True)]
        models[f"source {name}"] = quality(alone, liked)
    models["merged, unranked"] = quality([request.candidates.item_row for request in found], liked)
    rows = collect(fitted, 0)
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch, "model.onnx")
        dcn_v2.export(trained.exported(fitted.items.features), rows.only(np.arange(len(rows)) < 2), model)
        by_dcn = dcn_v2.scores(model, rows)
    by_logistic = logistic.scores(trained.logistic, rows, fitted.items.features[None])
    for name, score in (("served: DCN-V2", by_dcn), ("served: logistic", by_logistic)):
        order = np.argsort(-score, axis=1, kind="stable")
        ranked = [rows.item_row[at][order[at]][: rows.there[at].sum()] for at in range(len(rows))]
        models[name] = quality(ranked, liked)
    return models


def baselines(dataset: Dataset) -> dict[str, Quality]:
    """Popularity, and EASE on all events and on positives only, each with the ridge that is best on validation."""
    validation, test = validation_cut(dataset), final_cut(dataset)
    models = {"popularity": of_scores(test, np.broadcast_to(_counts(test), (len(test.length), len(_counts(test)))))}
    for name, others_weight in (("EASE on all events", 1.0), ("EASE on positives", 0.0)):
        tried = {ridge: of_scores(validation, ease_scores(validation, others_weight, ridge)) for ridge in RIDGES}
        ridge = max(tried, key=lambda ridge: tried[ridge].ndcg_at_10)
        models[f"{name}, lambda {ridge:g}"] = of_scores(test, ease_scores(test, others_weight, ridge))
    return models


def _counts(cut: Cut) -> Floats:
    return popularity.decayed_counts(cut, np.inf)


def ease_scores(cut: Cut, others_weight: float, ridge: float) -> Floats:
    """``(users, items)``: EASE without any truncation, asked with the rows it was fitted on."""
    X = collaborative.interactions(cut, others_weight)
    scores, start = np.zeros_like(X), 0
    for B in collaborative.weight_blocks(X, ridge):
        scores += X[:, start : start + len(B)] @ B
        start += len(B)
    return scores


def of_scores(cut: Cut, scores: Floats) -> Quality:
    """Of the order by ``scores`` ``(users, items)`` over everything that a user has not met before the cut."""
    users = _judged(cut)
    return quality((_best_unseen(cut, user, scores[user]) for user in users), [cut.liked(user) for user in users])


def _best_unseen(cut: Cut, user: int, score: Floats) -> Rows:
    left = score.copy()
    left[cut.history(user).item_row] = -np.inf
    order = np.argsort(-left, kind="stable")[:RANKED]
    return order[np.isfinite(left[order])].astype(np.int32)


def _judged(cut: Cut) -> list[int]:
    return [user for user in range(len(cut.length)) if len(cut.liked(user))]


def quality(ranked: Iterable[Rows], liked: Sequence[Rows]) -> Quality:
    """``ranked[i]`` is an order of items, best first, ``liked[i]`` what was liked: never empty."""
    discount = 1.0 / np.log2(np.arange(2, 22))
    rows = []
    for order, positives in zip(ranked, liked, strict=True):
        hit = np.isin(order[:RANKED], positives)
        gains = [
            (hit[:k] * discount[: len(hit[:k])]).sum() / discount[: min(k, len(positives))].sum() for k in (10, 20)
        ]
        rows.append((hit.sum() / len(positives), hit[:10].any(), *gains))
    means = np.mean(rows, axis=0) if rows else np.zeros(4)
    return Quality(*(float(mean) for mean in means))
