"""The quality factor narrows when answers are late, holds the percentile it is asked for, and comes back by itself."""

from __future__ import annotations

import pytest

from app.quality import Quality, QualityPolicy

POLICY = QualityPolicy(target_seconds=0.05, percentile=95, step=0.001)
EARLY, LATE = 0.01, 0.2


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def quality(clock: Clock) -> Quality:
    return Quality(POLICY, clock)


def late(quality: Quality, times: int) -> None:
    for _ in range(times):
        quality.on_sample(LATE, 5)


def test_it_stands_still_when_the_percentile_is_met(quality: Quality) -> None:
    late(quality, 10)
    before = quality.factor
    for _ in range(100):
        late(quality, 1)
        for _ in range(19):
            quality.on_sample(EARLY, 5)
    assert quality.factor == pytest.approx(before)


def test_late_requests_narrow_down_to_the_least(quality: Quality) -> None:
    late(quality, 1000)
    assert quality.factor == POLICY.least
    assert quality.narrowed(500) == 100


def test_a_few_late_requests_change_no_answer(quality: Quality) -> None:
    late(quality, 5)
    assert quality.factor < 1
    assert quality.narrowed(500) == 500


def test_a_request_that_had_the_process_to_itself_says_nothing(quality: Quality) -> None:
    late(quality, 10)
    before = quality.factor
    quality.on_sample(LATE, 1)
    assert quality.factor == before


def test_after_the_worst_peak_everything_is_ranked_again_within_five_seconds(quality: Quality, clock: Clock) -> None:
    late(quality, 1000)
    clock.now += POLICY.calm_seconds
    assert quality.factor == POLICY.least
    clock.now += 3.0
    assert quality.narrowed(500) == 500
    clock.now += 100.0
    assert quality.factor == 1.0


def test_a_steady_trickle_of_late_requests_keeps_it_from_rising_with_time(quality: Quality, clock: Clock) -> None:
    late(quality, 1000)
    for _ in range(100):
        clock.now += POLICY.calm_seconds * 0.9
        late(quality, 1)
    assert quality.factor == POLICY.least


def test_there_is_always_something_to_rank(quality: Quality) -> None:
    late(quality, 1000)
    assert quality.narrowed(1) == 1
