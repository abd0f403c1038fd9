"""How models and settings are chosen, without the test part: ``python -m benchmarks.selection [--data DIR]``.

The test's protocol, a fifth of every history earlier. Sources are fitted on what lies before 60 % of each user's events
and everybody is asked about the 60 to 80 % part; the rankers learn from the three windows that end at 60 %. What comes
after 80 % is never looked at. The best baseline is the one that is best on the judged part itself, which favours it.

``--shapes`` leaves baselines and sources out and compares the shapes of DCN-V2 with its linear start, seed by seed.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from domain.arrays import Floats, Rows
from retrieval.filters import allowed
from retrieval.merge import merge
from training import collaborative, dcn_v2, logistic, popularity, rankers, sources
from training.dataset import Dataset, read
from training.rank_rows import RankRows, collect
from training.split import Cut, cut
from training.threads import single_threaded

WINDOWS = ((20, 40), (30, 50), (40, 60))
JUDGED = (60, 80)
RIDGES = (50.0, 100.0, 150.0, 200.0, 300.0, 500.0, 800.0)
RESAMPLES = 5_000
RANKED = 500
SEEDS = (0, 1, 2)
GENTLE = rankers.SCHEDULE
LONGER = replace(GENTLE, learning_rate=1e-4, patience=GENTLE.epochs)
FROM_NOTHING = replace(GENTLE, learning_rate=1e-3, epochs=10, patience=3)  # a stacked network has no linear start
SHAPES = {
    "linear start alone": (rankers.SHAPE, replace(GENTLE, epochs=0)),
    "parallel, 3 full crosses, deep 64-32": (rankers.SHAPE, GENTLE),
    "low-rank mixture": (replace(rankers.SHAPE, crossing="mixture"), GENTLE),
    "1 cross": (replace(rankers.SHAPE, crosses=1), GENTLE),
    "deep 128-64": (replace(rankers.SHAPE, deep=(128, 64)), GENTLE),
    "deep 256-128": (replace(rankers.SHAPE, deep=(256, 128)), GENTLE),
    "deep 16-8": (replace(rankers.SHAPE, deep=(16, 8)), GENTLE),
    "six epochs at 1e-4": (rankers.SHAPE, LONGER),
    "deep 256-128, six epochs at 1e-4": (replace(rankers.SHAPE, deep=(256, 128)), LONGER),
    "stacked, ten epochs at 1e-3": (replace(rankers.SHAPE, structure="stacked"), FROM_NOTHING),
}
"""The first is what the others are compared with in ``--shapes``."""


@dataclass(frozen=True, slots=True, eq=False)
class Judged:
    """A model's numbers, one a user: ``(users,)`` each."""

    recall: Floats
    hit: Floats
    ndcg: Floats

    def line(self, name: str, baseline: Judged | None = None) -> str:
        means = f"| {name} | {self.recall.mean():.3f} | {self.hit.mean():.3f} | {self.ndcg.mean():.4f} |"
        if baseline is None:
            return f"{means} | |"
        low, high = interval(self.ndcg - baseline.ndcg)
        return f"{means} {self.ndcg.mean() / baseline.ndcg.mean():.3f} | {low:+.4f} to {high:+.4f} |"


def interval(difference: Floats) -> tuple[float, float]:
    """The middle 95 % of the mean ``difference`` ``(users,)`` over resampled users."""
    rng = np.random.default_rng(0)
    means = [difference[rng.integers(0, len(difference), len(difference))].mean() for _ in range(RESAMPLES)]
    low, high = np.quantile(means, (0.025, 0.975))
    return float(low), float(high)


def judge(ranked: Sequence[Rows], liked: Sequence[Rows]) -> Judged:
    """Orders of items, best first, against what was liked; both in the order of the users."""
    discount = 1.0 / np.log2(np.arange(2, 12))
    rows = []
    for order, positives in zip(ranked, liked, strict=True):
        found = np.isin(order[:RANKED], positives)
        gain = (found[:10] * discount[: len(found[:10])]).sum() / discount[: min(10, len(positives))].sum()
        rows.append((found.sum() / len(positives), float(found[:10].any()), gain))
    recall, hit, ndcg = np.array(rows, np.float64).T
    return Judged(recall, hit, ndcg)


def of_scores(asked: Cut, users: Sequence[int], scores: Floats) -> Judged:
    """Of the order by ``scores`` ``(users, items)`` over everything a user had not met."""
    ranked = []
    for user in users:
        left = scores[user].copy()
        left[asked.history(user).item_row] = -np.inf
        ranked.append(np.argsort(-left, kind="stable")[:RANKED].astype(np.int32))
    return judge(ranked, [asked.liked(user) for user in users])


def baselines(asked: Cut, users: Sequence[int]) -> dict[str, Judged]:
    """Popularity, and EASE on positives, on graded and on all events over the grid."""
    counts = popularity.decayed_counts(asked, np.inf)
    found = {"popularity": of_scores(asked, users, np.broadcast_to(counts, (len(asked.length), len(counts))))}
    matrices = {
        "positives": collaborative.interactions(asked, 0.0),
        "graded": collaborative.graded(asked),
        "all": collaborative.interactions(asked, 1.0),
    }
    for name, met in matrices.items():
        for ridge in RIDGES:
            scores = met @ np.concatenate(list(collaborative.weight_blocks(met, ridge)))
            found[f"EASE, {name}, lambda {ridge:g}"] = of_scores(asked, users, scores)
    return found


def retrieved(fitted: sources.Fitted, users: Sequence[int]) -> dict[str, Judged]:
    """Every source alone, and merged."""
    liked = [fitted.cut.liked(user) for user in users]
    found = sources.retrieve_all(fitted, users)
    keeps = [allowed(fitted.items.eligible, request.user.seen) for request in found]
    alone = {
        f"source {name}": judge(
            [merge([r.found[at]], [0], keep, RANKED).item_row for r, keep in zip(found, keeps, strict=True)], liked
        )
        for at, name in enumerate(sources.NAMES)
    }
    return alone | {"merged, unranked": judge([request.candidates.item_row for request in found], liked)}


def ranked(rows: RankRows, score: Floats, fitted: sources.Fitted) -> Judged:
    """The candidates in the order of ``score`` ``(r, n)``."""
    order = np.argsort(-score, axis=1, kind="stable")
    orders = [rows.item_row[at][order[at]][: rows.there[at].sum()] for at in range(len(rows))]
    return judge(orders, [fitted.cut.liked(user) for user in rows.user_row.tolist()])


def report(dataset: Dataset) -> None:
    """The table, line by line as it is found."""
    asked = cut(dataset, *JUDGED)
    users = [user for user in range(len(asked.length)) if len(asked.liked(user))]
    print(f"{len(users)} users, {sum(len(asked.liked(user)) for user in users)} positives\n")
    print(
        "| model | Recall@500 | Hit@10 | NDCG@10 | of the best baseline | paired difference, 95 % |\n"
        + "|---" * 6
        + "|"
    )
    single = baselines(asked, users)
    best = max(single.values(), key=lambda model: float(model.ndcg.mean()))
    for name, model in single.items():
        print(model.line(name, best), flush=True)
    windows = rankers.ask(dataset, WINDOWS, 0, lambda _: None)
    fitted = sources.fit(asked, windows.content, windows.half_life_days, 0)
    for name, model in retrieved(fitted, users).items():
        print(model.line(name, best), flush=True)
    rows = collect(fitted, 0)
    for name, (shape, schedule) in SHAPES.items():
        for seed in SEEDS:
            trained = rankers.learn(windows, shape, schedule, seed, lambda _: None)
            of_now = dcn_v2.with_items(trained.inputs, trained.inputs.standard_item(fitted.items.features)[None])
            score = dcn_v2.logits(trained.model, rows, of_now)
            print(ranked(rows, score, fitted).line(f"DCN-V2, {name}, seed {seed}", best), flush=True)
            if schedule is GENTLE and shape is rankers.SHAPE:
                simple = logistic.scores(trained.logistic, rows, fitted.items.features[None])
                print(ranked(rows, simple, fitted).line(f"logistic, seed {seed}", best), flush=True)


def report_shapes(dataset: Dataset) -> None:
    """Every shape beside the linear start of the same seed, with the width of the input."""
    windows = rankers.ask(dataset, WINDOWS, 0, lambda _: None)
    fitted = sources.fit(cut(dataset, *JUDGED), windows.content, windows.half_life_days, 0)
    compare_shapes(windows, collect(fitted, 0), fitted.items.features, SEEDS[:2])


def compare_shapes(windows: rankers.Asked, rows: RankRows, item_features: Floats, seeds: Sequence[int]) -> None:
    """The table over ``windows``, judged on ``rows`` with the items as of then."""
    starts = dict[int, Floats]()
    print("| shape | inputs | seed | NDCG@10 | less the linear start, paired 95 % |\n" + "|---" * 5 + "|", flush=True)
    for name, (shape, schedule) in SHAPES.items():
        for seed in seeds:
            trained = rankers.learn(windows, shape, schedule, seed, lambda _: None)
            of_now = dcn_v2.with_items(trained.inputs, trained.inputs.standard_item(item_features)[None])
            found = dcn_v2.ndcg_each(rows, dcn_v2.logits(trained.model, rows, of_now)).astype(np.float32)
            low, high = interval(found - starts.setdefault(seed, found))
            line = f"| {name} | {trained.model.width} | {seed} | {found.mean():.4f} | {low:+.4f} to {high:+.4f} |"
            print(line, flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/movielens-small"))
    parser.add_argument("--shapes", action="store_true")
    single_threaded()
    told = parser.parse_args()
    (report_shapes if told.shapes else report)(read(told.data))


if __name__ == "__main__":
    main()
