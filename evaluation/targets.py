"""What the pipeline has to reach, and whether it does.

Relative targets hold for every dataset; absolute ones stand under ``[targets]`` in the dataset folder's ``gates.toml``.
All are of DCN-V2's order as ranked, means over the seeds; fairness is of what is shown after the rules.
"""

from __future__ import annotations

import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np

from domain.errors import DatasetError
from evaluation.baselines import best
from evaluation.intervals import Comparison, compare
from evaluation.protocol import DCN, LOGISTIC, MERGED, Evaluation
from release.gates import FILE

RATIO = 1.10
RECALL_OVER_BEST_SOURCE = 0.01
LOGISTIC_SHARE = 0.85
DISPARITY = 0.10
EQUITY = 0.60
ABSOLUTE = ("ndcg_at_10", "hit_at_10", "recall_at_500")


@dataclass(frozen=True, slots=True)
class Target:
    name: str
    wanted: str
    found: str
    met: bool


def against_best(evaluation: Evaluation) -> Comparison:
    """NDCG@10 over the best baseline, paired by user, each user's mean over the seeds."""
    return compare(evaluation.mean(DCN, "ndcg_at_10"), best(evaluation.baselines).quality.ndcg_at_10)


def read_absolute(folder: Path) -> dict[str, float]:
    """``[targets]`` of ``gates.toml``; raises ``DatasetError`` on one that is not known."""
    path = folder / FILE
    table = tomllib.loads(path.read_text("utf-8")).get("targets", {}) if path.exists() else {}
    unknown = [name for name in table if name not in ABSOLUTE]
    if unknown:
        raise DatasetError([f"{FILE}: targets has no {', '.join(unknown)}; there are {', '.join(ABSOLUTE)}"])
    return {name: float(value) for name, value in table.items()}


def targets(evaluation: Evaluation, absolute: Mapping[str, float]) -> list[Target]:
    """Every target with its verdict; needs at least one judged user."""
    comparison, means = against_best(evaluation), partial(_mean, evaluation)
    ndcg = means(DCN, "ndcg_at_10")
    source = max(means(name, "recall_at_500") for name in evaluation.runs[0].models if name.startswith("source "))
    share = means(LOGISTIC, "ndcg_at_10") / ndcg if ndcg else float("nan")
    popularity = float(evaluation.baselines[0].quality.ndcg_at_10.mean())
    disparity = float(np.mean([run.hit_disparity for run in evaluation.runs]))
    equity = float(np.mean([run.exposure_equity for run in evaluation.runs]))
    interval = comparison.difference
    return [
        _least(f"NDCG@10 over the best baseline ({best(evaluation.baselines).name})", comparison.ratio.value, RATIO),
        Target("paired interval of the difference", "above 0", str(interval), interval.low > 0),
        *(_least(f"{name} on this dataset", means(_ranked(name), name), value) for name, value in absolute.items()),
        _least("merged Recall@500", means(MERGED, "recall_at_500"), source + RECALL_OVER_BEST_SOURCE),
        _least("logistic's share of DCN-V2's NDCG@10", share, LOGISTIC_SHARE),
        _least("logistic's NDCG@10 over popularity's", means(LOGISTIC, "ndcg_at_10"), popularity),
        Target("user Hit@10 disparity", f"<= {DISPARITY:g}", f"{disparity:.3f}", disparity <= DISPARITY),
        _least("exposure equity of item groups (overlap with merit)", equity, EQUITY),
    ]


def _ranked(metric: str) -> str:
    return MERGED if metric == "recall_at_500" else DCN


def _mean(evaluation: Evaluation, model: str, metric: str) -> float:
    return float(np.mean(evaluation.by_seed(model, metric)))


def _least(name: str, found: float, wanted: float) -> Target:
    return Target(name, f">= {wanted:.4g}", f"{found:.4f}", found >= wanted)
