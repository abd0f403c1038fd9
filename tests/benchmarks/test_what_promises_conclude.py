"""What the scripts of speed say of samples; the figures themselves are for a quiet machine."""

from __future__ import annotations

import numpy as np
import pytest

from benchmarks import million
from benchmarks.million import Found, Sampled
from benchmarks.promises import Swap, judged
from benchmarks.triton_options import DEFAULT, OPTIONS, Cost, Option, agreement, exchanged, markdown
from domain.catalogue import IdTable, Users
from loadtests.load_result import LoadResult, Sample

WHERE = {"machine": "m", "system": "s", "date": "d", "commit": "c", "load_average_before": "0.1"}


def swapped(around_ms: float) -> LoadResult:
    """A load of 20 s at 10 ms, but for the second after 15 s."""
    slow = (15.0, 16.0)
    return LoadResult(
        100,
        20.0,
        [
            Sample(at / 100, around_ms / 1000 if slow[0] <= at / 100 < slow[1] else 0.010, 200, "FULL")
            for at in range(2000)
        ],
    )


@pytest.mark.parametrize(("around_ms", "broken"), [(19.0, 0), (21.0, 1)])
def test_a_swap_may_double_the_p99_and_no_more(around_ms: float, broken: int) -> None:
    seen = Swap(publishing=10.0, switched=14.8, answered=15.0)
    told = judged(swapped(around_ms), seen)
    assert len(told.broken) == broken


def test_a_swap_that_never_came_is_an_error() -> None:
    with pytest.raises(RuntimeError, match="never answered"):
        judged(swapped(10.0), Swap(publishing=10.0, switched=14.8))


def test_every_bound_of_a_million_can_be_broken() -> None:
    kept = Found({"made up": 14.0, "movielens": 10.0}, {"Private": 200.0}, 0.96, [])
    assert kept.broken == []
    lost = Found({"made up": 16.0, "movielens": 10.0}, {"Private": 250.0}, 0.94, ["made up: unranked"])
    assert len(lost.broken) == 4
    assert "BROKEN: p95 is 1.60 times" in million.markdown(lost, ["a", "b"], "", 10, WHERE)


def test_the_users_who_are_written_are_spread_over_all() -> None:
    features = np.arange(10, dtype=np.float32)[:, None]
    empty = np.zeros(0)
    users = Users(
        IdTable.of(f"u{row}" for row in range(10)), features, np.zeros(11, np.int64), empty.astype(np.int32),
        empty.astype(np.float32), empty, 0.0,
    )  # fmt: skip
    chosen = Sampled(3).users(users)
    assert [chosen.ids.text(row) for row in range(len(chosen.ids))] == ["u0", "u3", "u6", "u9"]
    assert chosen.features[:, 0].tolist() == [0, 3, 6, 9]


def test_the_same_scores_agree_and_reversed_ones_do_not() -> None:
    exact = np.linspace(1.0, 0.01, 100, dtype=np.float32)[None]
    assert agreement(exact, exact) == pytest.approx((1.0, 1.0))
    ndcg, auc = agreement(exact, -exact)
    assert ndcg < 0.3
    assert auc == 0.0


def test_an_option_is_told_in_ratios_to_the_default() -> None:
    costs = {DEFAULT.name: Cost(2.0, 2.0, 10.0), "int8": Cost(1.0, 2.0, 5.0)}
    text = markdown(costs, [("bundle", 0.999, 1.0)], 100, WHERE)
    assert "| int8 | 1.00 | 2.00 | 5.0 | 0.75 | 0.50 | 0.50 |" in text


def test_a_text_that_has_changed_is_not_silently_left_as_it_was() -> None:
    assert exchanged("a b", "b", "c") == "a c"
    with pytest.raises(ValueError, match="0 times"):
        exchanged("a", "b", "c")


def test_every_option_differs_from_the_default_in_one_thing() -> None:
    fields = [name for name in Option.__dataclass_fields__ if name != "name"]
    for option in OPTIONS[1:]:
        assert sum(getattr(option, name) != getattr(DEFAULT, name) for name in fields) == 1
