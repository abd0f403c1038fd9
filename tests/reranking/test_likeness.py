"""MMR and DPP against what they are by definition."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from domain.stages import Rule
from reranking.dpp import Dpp
from reranking.mmr import Mmr
from tests.reranking.slates import shown, slate

TWINS = np.repeat(np.eye(5, dtype=np.float32), 2, axis=0)  # items 0 and 1 are alike, 2 and 3, ...


@pytest.mark.parametrize("rule", [Mmr(relevance_weight=0.5), Dpp(relevance_weight=0.1)], ids=repr)
def test_twins_do_not_stand_together(rule: Rule) -> None:
    assert shown(rule.apply(slate(vectors=TWINS))) == [0, 2, 4, 6, 8]


@pytest.mark.parametrize("rule", [Mmr(relevance_weight=1.0), Dpp(relevance_weight=20.0)], ids=repr)
def test_relevance_alone_changes_nothing(rule: Rule) -> None:
    apart = slate(vectors=np.eye(10, dtype=np.float32))
    assert rule.apply(apart) is apart


@pytest.mark.parametrize("rule", [Mmr(), Dpp()], ids=repr)
def test_without_vectors_there_is_no_likeness(rule: Rule) -> None:
    bare = slate()
    assert rule.apply(bare) is bare


def test_the_greedy_choice_is_the_largest_determinant_by_definition() -> None:
    vectors = np.random.default_rng(0).normal(size=(10, 6)).astype(np.float32)
    rule = Dpp(relevance_weight=1.0, window=10)
    unit = vectors / np.linalg.norm(vectors, axis=1, keepdims=True)
    quality = np.exp(np.linspace(1, 0, 10))
    kernel = quality[:, None] * (unit @ unit.T) * quality
    chosen: list[int] = []
    for _ in range(5):
        gains = {
            at: np.linalg.det(kernel[np.ix_([*chosen, at], [*chosen, at])]) for at in range(10) if at not in chosen
        }
        chosen.append(max(gains, key=gains.__getitem__))
    assert shown(rule.apply(slate(vectors=vectors))) == chosen


def test_a_window_forgets_what_lies_behind_it() -> None:
    three = np.eye(3, dtype=np.float32)[np.arange(10) % 3]
    order = shown(Dpp(relevance_weight=0.1, window=3).apply(slate(limit=9, vectors=three)))
    for window in (order[start : start + 3] for start in range(7)):
        assert all(a % 3 != b % 3 for a, b in itertools.combinations(window, 2))
