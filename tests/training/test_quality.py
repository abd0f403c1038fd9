"""Ranking and calibration numbers whose right answers are known without computing."""

from __future__ import annotations

import numpy as np
import pytest

from training.quality import auc, log_loss, quality, reliability

LIKED = [np.array([3, 5], np.int32), np.array([1], np.int32)]


def test_quality_is_perfect_for_the_perfect_order_and_zero_for_the_empty_one() -> None:
    perfect = quality([np.array([5, 3, 9]), np.array([1, 0])], LIKED)
    assert set(perfect.means().values()) == {1.0}
    assert set(quality([np.array([], np.int32)] * 2, LIKED).means().values()) == {0.0}


def test_ndcg_by_hand() -> None:
    found = quality([np.array([9, 3, 8, 5], np.int32)], LIKED[:1])
    ideal = 1.0 + 1.0 / np.log2(3)
    assert found.ndcg_at_10[0] == pytest.approx((1 / np.log2(3) + 1 / np.log2(5)) / ideal)
    assert found.hit_at_10[0] == 1.0


def test_a_positive_at_place_eleven_is_no_hit_but_counts_at_twenty() -> None:
    found = quality([np.array([*range(10, 20), 1], np.int32)], LIKED[1:])
    assert (found.hit_at_10[0], found.ndcg_at_10[0]) == (0.0, 0.0)
    assert found.ndcg_at_20[0] == pytest.approx(1 / np.log2(12))


def test_only_the_first_five_hundred_count_as_recalled() -> None:
    liked = [np.array([1000, 1499, 1500, 1599], np.int32)]
    assert quality([np.arange(1000, 1600, dtype=np.int32)], liked).recall_at_500[0] == 0.5


def test_calibration_error_by_hand() -> None:
    """Two bins of two: 0.1 predicted and 0.5 observed, 0.9 predicted and 1 observed."""
    found = reliability(np.array([0.9, 0.1, 0.1, 0.9], np.float32), np.array([True, True, False, True]), bins=2)
    np.testing.assert_allclose(found.predicted, [0.1, 0.9], atol=1e-6)
    np.testing.assert_allclose(found.observed, [0.5, 1.0])
    assert found.error == pytest.approx((0.4 + 0.1) / 2, abs=1e-6)


def test_auc_and_log_loss_by_hand() -> None:
    score, liked = np.array([0.1, 0.4, 0.35, 0.8], np.float32), np.array([False, False, True, True])
    assert auc(score, liked) == 0.75
    assert auc(np.zeros(4, np.float32), liked) == 0.5
    assert np.isnan(auc(score, np.ones(4, np.bool_)))
    assert log_loss(np.array([0.5, 0.25], np.float32), np.array([True, False])) == pytest.approx(
        -(np.log(0.5) + np.log(0.75)) / 2
    )
