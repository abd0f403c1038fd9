"""Logistic regression on what retrieval returned: what ranks when DCN-V2 cannot be reached."""

from __future__ import annotations

import numpy as np
from sklearn.linear_model import LogisticRegression

from domain.arrays import Floats, Mask
from features.contract import CONTRACT
from ranking.logistic import LogisticTables
from training.rank_rows import RankRows

INVERSE_REGULARISATION = 0.01
NEGATIVES = 100
"""A request gives its positives and so many of its other candidates; the bias is put right afterwards."""


def fit(rows: RankRows, item_features: Floats, seed: int) -> LogisticTables:
    """``item_features`` ``(cuts, n, I)`` raw."""
    chosen, share = _sampled(rows, np.random.default_rng(seed))
    inputs = _inputs(rows, item_features, chosen)
    mean, scale = inputs.mean(axis=0), inputs.std(axis=0)
    scale = np.where(scale < 1e-4, 1.0, scale).astype(np.float32)
    label = rows.liked[chosen]
    if label.all() or not label.any():
        nothing = np.zeros(len(mean), np.float32)
        return LogisticTables(mean, scale, nothing, np.zeros(1, np.float32))
    model = LogisticRegression(C=INVERSE_REGULARISATION, max_iter=500)
    model.fit((inputs - mean) / scale, label)
    # negatives were kept with probability ``share``, which lifts the odds by 1 / share
    bias = np.asarray(model.intercept_ + np.log(share), np.float32)
    return LogisticTables(mean, scale, model.coef_[0].astype(np.float32), bias)


def _sampled(rows: RankRows, rng: np.random.Generator) -> tuple[Mask, float]:
    """``(r, n)`` which candidates are used, and the share of the negatives among them."""
    negatives = rows.there & ~rows.liked
    share = min(1.0, NEGATIVES * len(rows) / max(int(negatives.sum()), 1))
    return rows.liked | (negatives & (rng.random(negatives.shape) < share)), share


def _inputs(rows: RankRows, item_features: Floats, chosen: Mask) -> Floats:
    request, position = np.nonzero(chosen)
    features = item_features[rows.cut[request], rows.item_row[request, position]]
    return np.concatenate([rows.columns[chosen], CONTRACT.item.scaled(features)], axis=1)


def scores(tables: LogisticTables, rows: RankRows, item_features: Floats) -> Floats:
    """``(r, n)`` logits; -inf where there is no candidate."""
    score = np.full(rows.there.shape, -np.inf, np.float32)
    inputs = (_inputs(rows, item_features, rows.there) - tables.mean) / tables.scale
    score[rows.there] = inputs @ tables.weight + tables.bias[0]
    return score
