"""Baselines whose scores can be had another way."""

from __future__ import annotations

import numpy as np

from evaluation import baselines
from tests.training.conftest import MakeFolder
from training import collaborative
from training.dataset import read
from training.split import final_cut, validation_cut


def interactions(users: int, items: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    return (np.random.default_rng(3).random((users, items)) < 0.2).astype(np.float32)


def test_ease_through_the_users_equals_ease_through_the_items() -> None:
    X = interactions(30, 80)
    B = np.concatenate(list(collaborative.weight_blocks(X, 20.0)))
    np.testing.assert_allclose(baselines.ease_scores(X, 20.0), X @ B, atol=1e-4)


def test_ease_of_more_users_than_items_is_the_same_product() -> None:
    X = interactions(80, 30)
    B = np.concatenate(list(collaborative.weight_blocks(X, 20.0)))
    np.testing.assert_allclose(baselines.ease_scores(X, 20.0), X @ B, atol=1e-4)


def test_neighbours_by_hand() -> None:
    """Items 0 and 1 are always together, 2 is alone: who has 0 is offered 1 with the cosine 1."""
    X = np.array([[1, 1, 0], [1, 1, 0], [0, 0, 1]], np.float32)
    scores = baselines.neighbour_scores(np.vstack([X, [[1, 0, 0]]]).astype(np.float32), k=1, shrink=0.0)
    np.testing.assert_allclose(scores[3], [0.0, 2 / np.sqrt(6), 0.0], atol=1e-6)
    shrunk = baselines.neighbour_scores(X, k=3, shrink=2.0)
    np.testing.assert_allclose(shrunk[0], [0.5, 0.5, 0.0], atol=1e-6)


def test_als_puts_what_like_minded_users_have_first() -> None:
    X = np.zeros((20, 10), np.float32)
    X[:10, :5], X[10:, 5:] = 1.0, 1.0
    X[0, 4] = 0.0
    scores = baselines.factor_scores(X, factors=2, alpha=5.0, regularisation=0.1, seed=0)
    assert scores[0, 4] > scores[0, 5:].max()


def test_every_family_is_tuned_on_validation_and_judged_on_the_last_part(make_random_folder: MakeFolder) -> None:
    dataset = read(make_random_folder())
    said: list[str] = []
    found = baselines.tuned(validation_cut(dataset), final_cut(dataset), 0, said.append)
    assert [part.name for part in found] == ["popularity", "item-kNN", "ALS", "EASE on positives", "EASE on all events"]
    judged = len(baselines.judged(final_cut(dataset)))
    assert {len(part.quality.ndcg_at_10) for part in found} == {judged}
    assert baselines.best(found).quality.ndcg_at_10.mean() == max(part.quality.ndcg_at_10.mean() for part in found)
    assert "lambda" in said[-1]
