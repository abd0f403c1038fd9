"""What one model alone reaches on the same split, each tuned on validation: what the pipeline has to beat.

Every baseline is a score for every user and item; it ranks all that the user has not met before the cut. It is tuned by
NDCG@10 on validation (fitted on train), then fitted again on train and validation with the parameters that won.

popularity     events before the cut
item-kNN       cosine of item columns with shrinkage: Sarwar et al., WWW 2001; Bell and Koren, KDD Cup 2007
ALS            implicit-feedback matrix factorisation: Hu, Koren and Volinsky, ICDM 2008; the library ``implicit``
EASE           Steck, WWW 2019; on all events and on positives alone, without truncation
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import scipy.linalg
import scipy.sparse as sp
from implicit.cpu.als import AlternatingLeastSquares
from numpy.typing import NDArray

from domain.arrays import Floats, Rows
from training import collaborative, popularity
from training.quality import RANKED, Quality, quality
from training.split import Cut
from training.threads import single_threaded

RIDGES = (50.0, 100.0, 200.0, 300.0, 500.0, 1000.0, 2000.0, 5000.0)
NEIGHBOURS = (50, 100, 200)
SHRINKS = (0.0, 20.0)
HALF = 0.5  # what ALS hears of an event that is no like
OTHERS = (("on positives", 0.0), ("on all events", 1.0))
FACTORS = (16, 32, 64)
ALPHAS = (1.0, 5.0)
REGULARISATIONS = (1.0, 10.0, 50.0)
SWEEPS = 15
LEAST_LENGTH = np.float32(1e-9)
BLOCK_ROWS = 1024

Score = Callable[[Cut], Floats]


@dataclass(frozen=True, slots=True, eq=False)
class Baseline:
    """A tuned baseline on the judged part."""

    name: str
    parameters: str
    validation_ndcg_at_10: float
    quality: Quality


def judged(cut: Cut) -> list[int]:
    """The users who liked anything in what is held out."""
    return [user for user in range(len(cut.length)) if len(cut.liked(user))]


def tuned(validation: Cut, final: Cut, seed: int, echo: Callable[[str], None]) -> list[Baseline]:
    """Every baseline with its best parameters, judged on ``final``."""
    families = {"popularity": popularities(), "item-kNN": kinds_of_neighbours(), "ALS": factorisations(seed)}
    families |= {f"EASE {name}": eases(weight) for name, weight in OTHERS}
    found = []
    for name, family in families.items():
        found.append(_best(name, family, validation, final))
        echo(f"baseline {name}: {found[-1].parameters or 'nothing to tune'}")
    return found


def _best(name: str, family: Mapping[str, Score], validation: Cut, final: Cut) -> Baseline:
    """The first of equals; a family of one is not tuned."""
    tried = {words: _ndcg(of_scores(validation, score(validation))) for words, score in family.items()}
    words = max(tried, key=lambda words: tried[words])
    return Baseline(name, words, tried[words], of_scores(final, family[words](final)))


def _ndcg(found: Quality) -> float:
    return float(found.ndcg_at_10.mean()) if len(found.ndcg_at_10) else 0.0


def of_scores(cut: Cut, scores: Floats) -> Quality:
    """Of the order by ``scores`` ``(users, items)`` over everything that a user has not met before the cut."""
    users = judged(cut)
    return quality((best_unseen(cut, user, scores[user]) for user in users), [cut.liked(user) for user in users])


def best_unseen(cut: Cut, user: int, score: Floats) -> Rows:
    """The ``RANKED`` best by score, equal ones by row, without what the user has met."""
    left = score.copy()
    left[cut.history(user).item_row] = -np.inf
    order = np.argsort(-left, kind="stable")[:RANKED]
    return order[np.isfinite(left[order])].astype(np.int32)


def popularities() -> dict[str, Score]:
    def score(cut: Cut) -> Floats:
        counts = popularity.decayed_counts(cut, np.inf)
        return np.broadcast_to(counts, (len(cut.length), len(counts)))

    return {"": score}


def kinds_of_neighbours() -> dict[str, Score]:
    def of(weight: float, k: int, shrink: float) -> Score:
        return lambda cut: neighbour_scores(collaborative.interactions(cut, weight), k, shrink)

    return {
        f"{name}, {k} neighbours, shrinkage {shrink:g}": of(weight, k, shrink)
        for name, weight in OTHERS
        for shrink in SHRINKS
        for k in NEIGHBOURS
    }


def neighbour_scores(X: Floats, k: int, shrink: float) -> Floats:
    """``(users, items)``: per item, the similarities of its ``k`` nearest that are in the user's row of X, summed."""
    sparse, scores = sp.csr_matrix(X), np.zeros_like(X)
    length = np.sqrt(np.einsum("ui,ui->i", X, X))
    for start in range(0, X.shape[1], BLOCK_ROWS):
        columns = slice(start, start + BLOCK_ROWS)
        similar = (sparse[:, columns].T @ sparse).toarray()
        similar /= np.maximum(length[columns, None] * length + np.float32(shrink), LEAST_LENGTH)
        similar[np.arange(len(similar)), start + np.arange(len(similar))] = 0.0
        scores[:, columns] = (sparse @ _nearest(similar, k).T).toarray()
    return scores


def _nearest(similar: Floats, k: int) -> sp.csr_matrix:
    """The ``k`` largest of each row."""
    k = min(k, similar.shape[1])
    at = np.argpartition(-similar, k - 1, axis=1)[:, :k]
    indptr = np.arange(len(similar) + 1) * k
    return sp.csr_matrix((np.take_along_axis(similar, at, axis=1).ravel(), at.ravel(), indptr), shape=similar.shape)


def factorisations(seed: int) -> dict[str, Score]:
    def of(factors: int, alpha: float, regularisation: float) -> Score:
        return lambda cut: factor_scores(collaborative.interactions(cut, HALF), factors, alpha, regularisation, seed)

    return {
        f"{factors} factors, alpha {alpha:g}, regularisation {regularisation:g}": of(factors, alpha, regularisation)
        for factors in FACTORS
        for alpha in ALPHAS
        for regularisation in REGULARISATIONS
    }


def factor_scores(X: Floats, factors: int, alpha: float, regularisation: float, seed: int) -> Floats:
    """``(users, items)``: the products of ALS's factors; X weighs what was liked fully, other events half."""
    single_threaded()  # the library warns of anything else
    model = AlternatingLeastSquares(
        factors, regularization=regularisation, alpha=alpha, iterations=SWEEPS, num_threads=1, random_state=seed
    )
    model.fit(sp.csr_matrix(X), show_progress=False)
    scores: Floats = model.user_factors @ model.item_factors.T
    return scores


def eases(others_weight: float) -> dict[str, Score]:
    def of(ridge: float) -> Score:
        return lambda cut: ease_scores(collaborative.interactions(cut, others_weight), ridge)

    return {f"lambda {ridge:g}": of(ridge) for ridge in RIDGES}


def ease_scores(X: Floats, ridge: float) -> Floats:
    """``(users, items)``: X B without any truncation. Where users are fewer than items B is never made:

    with G = X X' and Y = (G + lambda I)^-1 X, X B is G Y / d less X times what would stand on B's diagonal.
    """
    if len(X) >= X.shape[1]:
        return _through_blocks(X, ridge)
    gram = (X @ X.T).astype(np.float64)
    shifted = gram + ridge * np.eye(len(gram))
    Y: NDArray[np.float64] = scipy.linalg.cho_solve(scipy.linalg.cho_factor(shifted), X.astype(np.float64))
    own = np.einsum("ui,ui->i", X, Y)
    return ((gram @ Y - X * own) / (1.0 - own)).astype(np.float32)


def _through_blocks(X: Floats, ridge: float) -> Floats:
    scores, start = np.zeros_like(X), 0
    for B in collaborative.weight_blocks(X, ridge):
        scores += X[:, start : start + len(B)] @ B
        start += len(B)
    return scores


def best(baselines: Sequence[Baseline]) -> Baseline:
    """The one that its NDCG@10 on the judged part makes hardest to beat."""
    return max(baselines, key=lambda baseline: _ndcg(baseline.quality))
