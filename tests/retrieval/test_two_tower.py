"""What the source makes of the index's answer; the tower itself is held against the trained one in tests/training."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
from numpy.typing import NDArray

from domain.arrays import Floats
from domain.catalogue import History
from domain.errors import BadAnswer
from domain.request import Context, Request
from domain.user import Freshness, UserFeatures
from features.contract import CONTRACT
from retrieval.two_tower import TwoTower, UserTower

U = CONTRACT.numeric.width
REQUEST = Request("u", 0, 5, Context(), 0.0)


@dataclass
class Answering:
    """An index whose answer is known before."""

    rows: list[int]
    asked: Floats | None = None

    def search(self, x: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
        self.asked = x
        if not self.rows:
            raise RuntimeError("broken")
        score = np.arange(len(self.rows), 0, -1, dtype=np.float32)
        return score[None, :k], np.array([self.rows], np.int64)[:, :k]


def tower() -> UserTower:
    random = np.random.default_rng(0)

    def made(*shape: int) -> Floats:
        return random.normal(size=shape).astype(np.float32)

    return UserTower(made(9, 4), made(U), np.ones(U, np.float32), made(6, 4 + U), made(6), made(3, 6), made(3))


def user(stars: list[float]) -> UserFeatures:
    rows = np.arange(len(stars), dtype=np.int32)
    history = History(rows, np.array(stars, np.float32), rows.astype(np.float64))
    codes = np.zeros(len(CONTRACT.context), np.int32)
    return UserFeatures(0, CONTRACT.numeric.defaults, codes, history, 0.0, Freshness.FRESH)


def test_rows_of_minus_one_are_dropped_with_their_scores() -> None:
    found = TwoTower(tower(), Answering([4, -1, 2, -1]), 4.0, 10).propose(REQUEST, user([5.0]))
    assert (found.item_row.tolist(), found.score.tolist()) == ([4, 2], [4.0, 2.0])


def test_the_index_is_asked_with_the_unit_vector_of_the_likes() -> None:
    index, asking = Answering([1]), user([5.0, 1.0, 4.0])
    TwoTower(tower(), index, 4.0, 10).propose(REQUEST, asking)
    assert index.asked is not None
    assert np.isclose(np.linalg.norm(index.asked), 1.0)
    liked = asking.history.only(np.array([True, False, True]))
    assert index.asked.tolist() == [tower().vector(liked, asking.numeric).tolist()]


def test_who_liked_nothing_is_not_searched_for_and_a_broken_index_is_a_bad_answer() -> None:
    broken = TwoTower(tower(), Answering([]), 4.0, 10)
    assert not len(broken.propose(REQUEST, user([1.0])))
    with pytest.raises(BadAnswer):
        broken.propose(REQUEST, user([5.0]))
