"""The report's pictures, drawn without a screen."""

from __future__ import annotations

from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from evaluation.protocol import DCN, DCN_SHOWN, LOGISTIC, MERGED, Evaluation

mpl.use("Agg")

WIDTH, HEIGHT = 8.0, 4.5


def draw(evaluation: Evaluation, folder: Path) -> list[str]:
    """Writes the pictures; their file names."""
    pictures = {
        "ranking.png": _ranking,
        "recall.png": _recall,
        "calibration.png": _calibration,
        "exposure.png": _exposure,
    }
    for name, picture in pictures.items():
        figure = Figure(figsize=(WIDTH, HEIGHT), layout="constrained")
        picture(evaluation, figure.add_subplot())
        figure.savefig(folder / name, dpi=110, metadata={"Software": None})
    return list(pictures)


def _ranking(evaluation: Evaluation, axes: Axes) -> None:
    """NDCG@10 of baselines and pipeline; the line is the spread over seeds."""
    rows = [(baseline.name, [float(baseline.quality.ndcg_at_10.mean())]) for baseline in evaluation.baselines]
    rows += [(model, evaluation.by_seed(model, "ndcg_at_10")) for model in (LOGISTIC, DCN, DCN_SHOWN)]
    _bars(axes, rows, "NDCG@10")


def _recall(evaluation: Evaluation, axes: Axes) -> None:
    models = [name for name in evaluation.runs[0].models if name.startswith("source ")] + [MERGED]
    _bars(axes, [(model, evaluation.by_seed(model, "recall_at_500")) for model in models], "Recall@500")


def _bars(axes: Axes, rows: list[tuple[str, list[float]]], label: str) -> None:
    means = np.array([np.mean(values) for _, values in rows])
    spread = np.array([[mean - min(values), max(values) - mean] for mean, (_, values) in zip(means, rows, strict=True)])
    axes.barh([name for name, _ in rows], means, xerr=np.maximum(spread.T, 0.0), color="#4878a8", ecolor="black")
    axes.invert_yaxis()
    axes.set_xlabel(label)


def _calibration(evaluation: Evaluation, axes: Axes) -> None:
    """Predicted against observed."""
    for name, ranker in evaluation.runs[0].rankers.items():
        bins = ranker.reliability
        axes.plot(bins.predicted, bins.observed, marker="o", label=f"{name}, error {bins.error:.4f}")
    axes.axline((0.0, 0.0), slope=1.0, color="grey", linewidth=0.8)
    axes.set(xlabel="predicted probability", ylabel="share that was liked")
    axes.legend()


def _exposure(evaluation: Evaluation, axes: Axes) -> None:
    """Share of merit beside share of exposure, along the first axis of item groups."""
    name, groups = next(iter(evaluation.runs[0].item_groups.items()))
    at = np.arange(len(groups))
    axes.bar(at - 0.2, [group.merit_share for group in groups], 0.4, label="merit (liked)", color="#888888")
    axes.bar(at + 0.2, [group.exposure_share for group in groups], 0.4, label="exposure (shown)", color="#4878a8")
    axes.set_xticks(at, [group.name for group in groups], rotation=60, ha="right")
    axes.set(ylabel="share", xlabel=name)
    axes.legend()
