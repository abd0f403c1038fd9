"""The rungs that need no I/O cost what they show, not what the catalogue holds."""

from __future__ import annotations

import numpy as np
import pytest

from domain.arrays import NO_ROWS, Mask, Rows
from domain.request import Context, Request
from fallbacks.batch_lists import BatchList, BatchListTables
from fallbacks.popular_list import PopularList

N = 100_000
POPULAR = PopularList(np.arange(N, dtype=np.int32), np.linspace(1, 0, N, dtype=np.float32))
LISTED = BatchListTables(np.array([0, 50]), np.arange(50, dtype=np.int32), np.linspace(1, 0, 50, dtype=np.float32))


class Asked:
    """What may be shown by a rule, and how many rows it was asked about."""

    def __init__(self, allowed: Mask) -> None:
        self.allowed, self.rows = allowed, 0

    def __call__(self, rows: Rows) -> Mask:
        self.rows += len(rows)
        return self.allowed[rows]


def request(limit: int = 10) -> Request:
    return Request("u", 0, limit, Context(), 0.0)


@pytest.mark.parametrize("rung", [POPULAR, BatchList(LISTED, np.ones(N, np.bool_))])
def test_only_the_head_of_a_list_is_asked_about(rung: PopularList | BatchList) -> None:
    may = Asked(np.arange(N) % 2 == 0)
    assert rung.slate(request(), np.array([2, 4], np.int32), may).item_row.tolist() == [0, *range(6, 24, 2)]
    assert may.rows <= 50


def test_popular_items_are_looked_for_further_down_when_most_may_not_be_shown() -> None:
    slate = POPULAR.slate(request(3), np.array([70_001], np.int32), Asked(np.arange(N) >= 70_000))
    assert slate.item_row.tolist() == [70_000, 70_002, 70_003]
    assert slate.score.tolist() == POPULAR.score[slate.item_row].tolist()


def test_a_list_of_which_nothing_may_be_shown_is_empty() -> None:
    assert not len(POPULAR.slate(request(), NO_ROWS, Asked(np.zeros(N, np.bool_))))
