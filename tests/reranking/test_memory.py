"""What was just shown gives way, for a while."""

from typing import Any

import numpy as np
import pytest

from domain.user import Shown
from reranking.memory import Memory
from tests.reranking.slates import shown, slate


def seen(*rows: int, minutes: float = 0.0) -> Shown:
    return Shown(np.array(rows, np.int32), np.full(len(rows), minutes * 60.0))


def test_a_refresh_begins_where_the_last_slate_ended() -> None:
    before = slate(limit=5)
    after = Memory().apply(slate(limit=5, shown=seen(*shown(before))))
    assert shown(after) == [5, 6, 7, 8, 9]
    assert set(after.moved) == {5, 6, 7, 8, 9}


def test_after_one_half_life_old_and_new_take_turns() -> None:
    after = Memory(half_life_minutes=10).apply(slate(limit=5, shown=seen(0, 1, 2, 3, 4, minutes=10)))
    assert shown(after) == [0, 5, 1, 6, 2]


def test_after_many_half_lives_nothing_is_left_of_it() -> None:
    after = Memory(half_life_minutes=10).apply(slate(limit=5, shown=seen(0, 1, 2, 3, 4, minutes=120)))
    assert shown(after) == [0, 1, 2, 3, 4]
    assert not after.moved


def test_of_several_times_the_last_one_counts() -> None:
    twice = Shown(np.array([0, 0], np.int32), np.array([9e9, 0.0]))
    assert shown(Memory().apply(slate(limit=5, shown=twice)))[0] == 1
    assert shown(Memory().apply(slate(limit=5, shown=seen(0))))[0] == 1


def test_items_that_are_no_candidates_change_nothing() -> None:
    assert shown(Memory().apply(slate(limit=3, n=4, shown=seen(8, 9)))) == [0, 1, 2]


@pytest.mark.parametrize("fields", [{"slates": -1}, {"slates": 11}, {"half_life_minutes": 0}])
def test_fields_that_make_no_sense_are_refused(fields: dict[str, Any]) -> None:
    with pytest.raises(ValueError, match="slates must be"):
        Memory(**fields)
