"""How good an order and a probability are: the numbers that gates and evaluation share.

Everything is one number a request or one number over all of its candidates; nothing here knows of models or data.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from scipy.stats import rankdata

from domain.arrays import Floats, Mask, Rows

RANKED = 500
BINS = 15
LEAST_PROBABILITY = 1e-7  # log loss of a sure mistake stays finite

Numbers = NDArray[np.float64]


@dataclass(frozen=True, slots=True, eq=False)
class Quality:
    """One number a request: ``(r,)`` each, aligned with the requests that were judged."""

    recall_at_500: Numbers
    hit_at_10: Numbers
    ndcg_at_10: Numbers
    ndcg_at_20: Numbers

    def means(self) -> dict[str, float]:
        """Over the requests; nothing where there are none."""
        names = ("recall_at_500", "hit_at_10", "ndcg_at_10", "ndcg_at_20")
        return {name: float(getattr(self, name).mean()) for name in names} if len(self.hit_at_10) else {}


def quality(ranked: Iterable[Rows], liked: Sequence[Rows]) -> Quality:
    """``ranked[i]`` is an order of items, best first; ``liked[i]`` what was liked, never empty.

    NDCG with binary gains (Jarvelin and Kekalainen, 2002): the ideal holds min(k, positives) of them.
    """
    discount = 1.0 / np.log2(np.arange(2, 22))
    rows = np.zeros((len(liked), 4))
    for at, (order, positives) in enumerate(zip(ranked, liked, strict=True)):
        hit = np.isin(order[:RANKED], positives)
        gains = [
            (hit[:k] * discount[: len(hit[:k])]).sum() / discount[: min(k, len(positives))].sum() for k in (10, 20)
        ]
        rows[at] = hit.sum() / len(positives), hit[:10].any(), *gains
    return Quality(*rows.T)


@dataclass(frozen=True, slots=True, eq=False)
class Reliability:
    """Bins of equal size by predicted probability: ``(b,)`` each."""

    predicted: Numbers
    observed: Numbers
    size: Numbers

    @property
    def error(self) -> float:
        """The expected calibration error: the mean distance of prediction and observation, weighted by size."""
        whole = self.size.sum()
        return float((self.size * np.abs(self.predicted - self.observed)).sum() / whole) if whole else float("nan")


def reliability(probability: Floats, liked: Mask, bins: int = BINS) -> Reliability:
    """``(n,)`` each. Bins hold equally many, because positives are rare: of equal width nearly all would share one.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017; equal bins: Nguyen and O'Connor, EMNLP 2015.
    """
    order = np.argsort(probability, kind="stable")
    parts = [part for part in np.array_split(order, bins) if len(part)]
    return Reliability(
        np.array([probability[part].mean(dtype=np.float64) for part in parts]),
        np.array([liked[part].mean() for part in parts]),
        np.array([float(len(part)) for part in parts]),
    )


def log_loss(probability: Floats, liked: Mask) -> float:
    """Mean negative log-likelihood over ``(n,)``."""
    p = np.clip(probability.astype(np.float64), LEAST_PROBABILITY, 1.0 - LEAST_PROBABILITY)
    return float(-np.where(liked, np.log(p), np.log1p(-p)).mean())


def auc(score: Floats, liked: Mask) -> float:
    """The chance that a positive stands above a negative, ties counting half; NaN without both."""
    positives, negatives = int(liked.sum()), int((~liked).sum())
    if not positives or not negatives:
        return float("nan")
    ranks = rankdata(score)
    return float((ranks[liked].sum() - positives * (positives + 1) / 2) / (positives * negatives))
