"""The exposure report, and the controller in a simulated week over a skewed catalogue."""

from __future__ import annotations

import math

import numpy as np
import pytest

from domain.candidates import Candidates
from domain.slate import ExposureQuota, Slate, SlateContext
from monitoring.exposure import (
    FEW_PLACES,
    ControlState,
    Counted,
    Gains,
    equity,
    gini,
    quota_of,
    report,
    step,
)
from reranking.exposure import MinimumExposure
from reranking.groups import Groups
from reranking.ledger import Totals

ITEMS, GROUPS, LIMIT, CANDIDATES = 2000, 8, 20, 200
WORST_EQUITY, PROMISED = 0.11, 0.05
ALL = np.ones(ITEMS, np.bool_)


def groups(sizes: list[int]) -> Groups:
    code = np.repeat(np.arange(len(sizes), dtype=np.int32), sizes)
    return Groups(code, tuple(f"g{at}" for at in range(len(sizes))))


def floats(*values: float) -> np.ndarray[tuple[int], np.dtype[np.float32]]:
    return np.array(values, np.float32)


def test_equity_is_the_share_of_impressions_by_the_share_of_the_catalogue() -> None:
    shown = floats(6, 0, 2, 0)
    np.testing.assert_allclose(equity(shown, groups([2, 2]), np.ones(4, np.bool_)), [1.5, 0.5])


def test_items_that_may_not_be_shown_are_in_no_denominator() -> None:
    told = report(Counted(floats(6, 0, 2, 0), Totals(1, 8)), groups([2, 2]), np.array([True, False, True, True]))
    assert told.coverage_ratio == pytest.approx(2 / 3)
    assert [(line.name, line.items) for line in told.groups] == [("g1", 2), ("g0", 1)]


@pytest.mark.parametrize(("counts", "expected"), [((1, 1, 1, 1), 0.0), ((0, 0, 0, 4), 0.75), ((0, 0, 2, 2), 0.5)])
def test_gini_is_that_of_the_textbook(counts: tuple[float, ...], expected: float) -> None:
    assert gini(floats(*counts)) == pytest.approx(expected)


def test_a_week_without_slates_is_told_as_unknown_and_alarms_nobody() -> None:
    told = report(Counted(np.zeros(4, np.float32), Totals()), groups([2, 2]), np.ones(4, np.bool_))
    assert math.isnan(told.gini)
    assert math.isnan(told.delivered_ratio)
    assert told.kept


def test_a_broken_promise_is_told_once_there_is_enough_to_tell() -> None:
    counted = Counted(floats(5, 1), Totals(50, FEW_PLACES, round(1000 * 0.05 * FEW_PLACES), 3))
    assert not report(counted, groups([1, 1]), np.ones(2, np.bool_)).kept


def test_groups_far_below_their_share_are_owed_by_what_they_lack() -> None:
    quota = quota_of(0.05, floats(97, 1, 1, 1), groups([1, 1, 2]), np.ones(4, np.bool_))
    assert quota.owed[0] == 0
    assert quota.owed[2] > quota.owed[1] > 0
    assert not len(quota.explore)


def test_what_nobody_was_shown_is_tried_out_until_coverage_is_reached() -> None:
    shown = np.ones(100, np.float32)
    shown[:10] = 0
    quota = quota_of(0.05, shown, groups([50, 50]), np.ones(100, np.bool_))
    assert quota.explore.tolist() == list(range(10))
    assert set(quota.group[:10].tolist()) == {2}
    shown[:6] = 1
    assert not len(quota_of(0.05, shown, groups([50, 50]), np.ones(100, np.bool_)).explore)


def test_the_controller_asks_for_the_promise_when_it_is_kept() -> None:
    assert step(0.05, 0.05)[0] == pytest.approx(0.05)


def test_the_controller_makes_up_for_slates_that_no_rule_went_over() -> None:
    share, state = PROMISED, ControlState()
    for _ in range(60):
        share, state = step(PROMISED, 0.7 * share, state)
    assert 0.7 * share == pytest.approx(PROMISED, rel=0.01)


def test_the_controller_comes_back_at_once_after_a_time_when_nothing_could_be_delivered() -> None:
    state = ControlState()
    for _ in range(1000):
        share, state = step(PROMISED, 0.0, state)
    assert share <= Gains().most
    steps = 0
    while share > 1.5 * PROMISED:
        share, state = step(PROMISED, share, state)
        steps += 1
    assert steps < 15  # wound up, a thousand errors would take hundreds


class Market:
    """A catalogue whose groups are liked very unequally, and users who like the best of it."""

    def __init__(self) -> None:
        self.random = np.random.default_rng(7)
        self.groups = groups([ITEMS // GROUPS] * GROUPS)
        handicap = np.linspace(0.9, 0.0, GROUPS)  # the first group is the one that nobody puts first
        self.appeal = self.random.normal(size=ITEMS) + 1.0 - handicap[self.groups.code]
        self.ruled = 0.7  # the share of slates that rules go over: the rest are precomputed lists

    def visit(self, quota: ExposureQuota | None, seed: int) -> tuple[Slate, bool]:
        """A slate, and whether one of its first ten was liked."""
        taste = self.appeal + self.random.normal(size=ITEMS) * 0.9
        best = np.argsort(-taste)[:CANDIDATES].astype(np.int32)
        score = taste[best].astype(np.float32)
        context = SlateContext(0.0, np.zeros((ITEMS, 1), np.bool_), seed=seed, quota=quota)
        slate = Slate(Candidates.proposed(best, score), LIMIT, context)
        if self.random.random() < self.ruled:
            slate = MinimumExposure().apply(slate)
        liked = self.random.random(LIMIT) < 0.08
        return slate, bool((liked & np.isin(slate.shown.item_row, best[:LIMIT]))[:10].any())

    def week(self, share: float | None, visits: int) -> tuple[float, float, float]:
        """The worst group's equity, Hit@10, and the share delivered in the second half; ``share`` None: no rule."""
        self.random = np.random.default_rng(11)
        shown, state = np.zeros(ITEMS, np.float32), ControlState()
        quota = None if share is None else quota_of(share, shown, self.groups, ALL)
        hits, delivered, places, late = 0, 0, 0, [0, 0]
        for at in range(visits):
            slate, hit = self.visit(quota, at)
            rows = slate.shown.item_row
            shown[rows] += 1
            hits += hit
            if quota is not None and share is not None:
                count = int((quota.owed[quota.group[rows]] > 0).sum())
                delivered, places = delivered + count, places + len(rows)
                late = [late[0] + count * (at * 2 > visits), late[1] + len(rows) * (at * 2 > visits)]
                if places >= FEW_PLACES * 5:
                    asked, state = step(share, delivered / places, state) if (quota.owed > 0).any() else (share, state)
                    quota, delivered, places = quota_of(asked, shown, self.groups, ALL), 0, 0
        return float(equity(shown, self.groups, ALL).min()), hits / visits, late[0] / max(1, late[1])


def test_a_controlled_quota_lifts_the_worst_group_at_almost_no_cost() -> None:
    market, visits = Market(), 2500
    before, hit_before, _ = market.week(None, visits)
    after, hit_after, delivered = market.week(PROMISED, visits)
    assert before == pytest.approx(WORST_EQUITY, abs=0.02)
    assert after >= 0.23
    assert delivered >= 0.9 * PROMISED
    assert (hit_before - hit_after) / hit_before < 0.015
