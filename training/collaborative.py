"""EASE: an item-item model in closed form, shipped as each item's strongest neighbours.

H. Steck, "Embarrassingly Shallow Autoencoders for Sparse Data", WWW 2019. With the weighted interactions X (users,
items) and P = (X'X + lambda I)^-1, item i speaks for item j with B[i, j] = -P[i, j] / P[j, j], and B[i, i] = 0.

A row of X is what the user says with their whole history, all events alike in age: positives count fully, the others
the less the worse they were rated, because having looked at an item tells much of what one looks at next. At serving
the same history speaks through ``history_weights``, which adds recency.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import scipy.linalg

from domain.arrays import Floats, Rows
from retrieval.neighbours import Neighbours
from training.split import Cut

LAMBDA = 200.0
STARS_ABOVE_POSITIVE = (-3.5, -1.5, -1.0, -0.5, 0.0)
COUNTED = (0.2, 0.3, 0.5, 0.7, 1.0)
"""How much an event counts in X, by how far its rating lies above the least positive one."""
TOP_K = 300
BLOCK_ROWS = 1024  # rows of B held at once


def fit(cut: Cut) -> Neighbours:
    """The neighbours learned from the events before the cut."""
    return strongest_neighbours(graded(cut), LAMBDA, TOP_K)


def graded(cut: Cut) -> Floats:
    """``(users, items)``: 1 where a user liked an item, less where they met it and liked it less, 0 elsewhere."""
    above = cut.dataset.rating[cut.known] - cut.dataset.settings.positive_stars
    return _matrix(cut, np.interp(np.nan_to_num(above, nan=0.0), STARS_ABOVE_POSITIVE, COUNTED))


def interactions(cut: Cut, others_weight: float) -> Floats:
    """``(users, items)``: 1 where a user liked an item, ``others_weight`` where they met it otherwise, 0 elsewhere."""
    stars = cut.dataset.rating[cut.known]
    positive = np.isnan(stars) | (stars >= cut.dataset.settings.positive_stars)
    return _matrix(cut, np.where(positive, 1.0, others_weight))


def _matrix(cut: Cut, weight: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Floats:
    """``(users, items)`` of the known events' ``weight``; of an item met twice the greater one."""
    dataset, known = cut.dataset, cut.known
    X = np.zeros((len(dataset.user_ids), len(dataset.item_ids)), np.float32)
    np.maximum.at(X, (dataset.user_row[known], dataset.item_row[known]), weight.astype(np.float32))
    return X


def strongest_neighbours(X: Floats, ridge: float, top_k: int) -> Neighbours:
    """The ``top_k`` weights of greatest magnitude in every row of EASE's B, for ``X`` ``(users, items)``."""
    kept = [_strongest(row, top_k) for B in weight_blocks(X, ridge) for row in B]
    indptr = np.concatenate(([0], np.cumsum([len(rows) for rows, _ in kept])))
    rows = np.concatenate([rows for rows, _ in kept])
    return Neighbours(indptr.astype(np.int64), rows, np.concatenate([weights for _, weights in kept]))


def weight_blocks(X: Floats, ridge: float) -> Iterator[Floats]:
    """B, ``BLOCK_ROWS`` rows at a time, top to bottom, each block ``(rows, items)``."""
    blocks = _from_users(X, ridge) if len(X) < X.shape[1] else _from_items(X, ridge)
    start = 0
    for B in blocks:
        B[np.arange(len(B)), start + np.arange(len(B))] = 0.0
        start += len(B)
        yield B


def _from_users(X: Floats, ridge: float) -> Iterator[Floats]:
    """When users are fewer than items only a (users, users) matrix is solved, and (items, items) is never held.

    By Woodbury, lambda P = I - X'Y with Y = (X X' + lambda I)^-1 X; the factor lambda cancels in B.
    """
    gram = (X @ X.T).astype(np.float64)
    gram[np.diag_indices_from(gram)] += ridge
    Y = scipy.linalg.cho_solve(scipy.linalg.cho_factor(gram), X.astype(np.float64)).astype(np.float32)
    diagonal = 1.0 - np.einsum("ui,ui->i", X, Y)
    for start in range(0, X.shape[1], BLOCK_ROWS):
        yield (X[:, start : start + BLOCK_ROWS].T @ Y) / diagonal


def _from_items(X: Floats, ridge: float) -> Iterator[Floats]:
    """When items are fewer than users: the (items, items) inverse itself."""
    gram = (X.T @ X).astype(np.float64)
    gram[np.diag_indices_from(gram)] += ridge
    P = scipy.linalg.cho_solve(scipy.linalg.cho_factor(gram), np.eye(len(gram)))
    for start in range(0, len(P), BLOCK_ROWS):
        yield (-P[start : start + BLOCK_ROWS] / P.diagonal()).astype(np.float32)


def _strongest(row: Floats, top_k: int) -> tuple[Rows, Floats]:
    rows = np.flatnonzero(row)
    if len(rows) > top_k:
        rows = np.sort(rows[np.argpartition(-np.abs(row[rows]), top_k - 1)[:top_k]])
    return rows.astype(np.int32), row[rows]
