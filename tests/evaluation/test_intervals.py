"""The paired bootstrap knows a sure difference from luck."""

from __future__ import annotations

import numpy as np
import pytest

from evaluation.intervals import compare


def test_a_constant_difference_has_an_interval_of_no_width() -> None:
    theirs = np.random.default_rng(0).random(200)
    found = compare(theirs + 0.1, theirs)
    assert (found.difference.low, found.difference.high) == pytest.approx((0.1, 0.1))
    assert found.ratio.value == pytest.approx((theirs.mean() + 0.1) / theirs.mean())


def test_the_interval_is_as_wide_as_the_normal_one() -> None:
    difference = np.random.default_rng(1).normal(0.02, 0.2, 1000)
    found = compare(difference + 1.0, np.ones(1000)).difference
    half = 1.96 * difference.std() / np.sqrt(1000)
    assert (found.low, found.high) == pytest.approx((difference.mean() - half, difference.mean() + half), abs=half / 5)


def test_pairs_that_only_differ_by_luck_have_zero_inside() -> None:
    a, b = np.random.default_rng(2).random((2, 500))
    found = compare(a, b)
    assert found.difference.low < 0 < found.difference.high
    assert found.ratio.low < 1 < found.ratio.high


def test_the_same_seed_gives_the_same_interval_and_nothing_over_zero_is_no_ratio() -> None:
    a = np.random.default_rng(3).random(50)
    assert compare(a, a / 2, seed=4) == compare(a, a / 2, seed=4)
    assert np.isnan(compare(a, np.zeros(50)).ratio.value)
