"""What the gates ask about a bundle: measured on the users that took no part in training the rankers.

The requests are those of the last cut. The calibration was fitted on the same users, so its error is what is left after
two parameters, not what new users would see; `streamrec evaluate` measures that.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from domain.arrays import Floats, Rows
from training import dcn_v2, fairness
from training.dataset import Dataset
from training.quality import quality, reliability
from training.rank_rows import RankRows
from training.rankers import CUTS, Rankers
from training.split import Cut, cut

TIMED_CALLS = 200
WARM_CALLS = 20

Measured = dict[str, dict[str, float]]


def measure(dataset: Dataset, folder: Path, trained: Rankers, model: Path, requests: RankRows) -> Measured:
    """Model -> metric -> value; without held-out users only the latency of the exported graph ``model``.

    ``requests`` are any, of which the one with the most candidates is timed.
    """
    latency = {"latency_p95_ms": latency_p95_ms(model, requests)}
    rows = trained.rows.only(trained.judged)
    if not len(rows):
        return {"dcn_v2": latency}
    logit = dcn_v2.logits(trained.model, rows, trained.inputs)
    probability = (1.0 / (1.0 + np.exp(-(trained.slope * logit + trained.offset)))).astype(np.float32)
    until = cut(dataset, *CUTS[-1])
    liked = [until.liked(user) for user in rows.user_row.tolist()]
    shown = orders(rows, probability)
    served = quality(shown, liked).means()
    error = reliability(probability[rows.there], rows.liked[rows.there]).error
    return {
        "retrieval": {"recall_at_500": served.pop("recall_at_500")},
        "dcn_v2": {**served, "calibration_error": error, **latency},
        "logistic": {"ndcg_at_10": trained.metrics["validation_ndcg_at_10_logistic"]},
        "fairness": _fairness(folder, until, rows, shown, liked),
    }


def orders(rows: RankRows, score: Floats) -> list[Rows]:
    """Each request's candidates, best first."""
    order = np.argsort(-score, axis=1, kind="stable")
    return [rows.item_row[at][order[at]][: int(rows.there[at].sum())] for at in range(len(rows))]


def _fairness(
    folder: Path, until: Cut, rows: RankRows, shown: Sequence[Rows], liked: Sequence[Rows]
) -> dict[str, float]:
    users = rows.user_row.tolist()
    by_user = [
        fairness.by_user_group(groups, users, shown, liked) for groups in fairness.user_groups(folder, until).values()
    ]
    axes = list(fairness.item_groups(folder, until.dataset).values())[:2]  # so few users say nothing of intersections
    by_item = [fairness.by_item_group(groups, shown, liked) for groups in axes]
    return {
        "hit_disparity": max(map(fairness.disparity, by_user)),
        "hit_of_one_disparity": max(map(fairness.disparity_of_one, by_user)),
        "exposure_equity": min(map(fairness.equity, by_item)),
    }


def latency_p95_ms(model: Path, requests: RankRows) -> float:
    """Of the exported graph alone on one thread, for the request with the most candidates."""
    graph, at = dcn_v2.session(model), int(requests.there.sum(axis=1).argmax())
    n = int(requests.there[at].sum())
    tensors = {"user": requests.user[at : at + 1], "codes": requests.codes[at : at + 1]}
    tensors |= {name: getattr(requests, name)[at : at + 1, :n] for name in ("item_row", "columns")}
    taken = []
    for _ in range(WARM_CALLS + TIMED_CALLS):
        started = time.perf_counter()
        graph.run(["score"], tensors)
        taken.append(time.perf_counter() - started)
    return float(np.quantile(taken[WARM_CALLS:], 0.95) * 1e3)
