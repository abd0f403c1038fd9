"""The adaptive limit: which samples move it, and where it settles."""

from __future__ import annotations

import pytest

from app.limit import PROBE_MOST_SECONDS, PROBE_SAMPLES, LimitPolicy, Outcome, Vegas

POLICY = LimitPolicy(initial=20, least=4, most=100, alpha_seconds=0.03, beta_seconds=0.06)
FAST = 0.01


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def limit(clock: Clock) -> Vegas:
    """A limit that has seen how fast it can be."""
    made = Vegas(POLICY, clock)
    made.on_sample(FAST, 1, Outcome.SUCCESS)
    return made


def test_it_grows_quickly_while_nobody_waits_and_slowly_when_they_begin_to(limit: Vegas) -> None:
    limit.on_sample(FAST, 20, Outcome.SUCCESS)
    assert limit.estimate == 21
    limit.on_sample(FAST + 0.02, 20, Outcome.SUCCESS)
    assert 21 < limit.estimate < 21.1


def test_between_the_thresholds_it_stays(limit: Vegas) -> None:
    limit.on_sample(FAST + 0.045, 20, Outcome.SUCCESS)
    assert limit.estimate == 20


def test_it_shrinks_while_requests_wait_too_long(limit: Vegas) -> None:
    for _ in range(1000):
        limit.on_sample(FAST + 0.07, 20, Outcome.SUCCESS)
    assert limit.limit == POLICY.least


def test_it_does_not_grow_while_it_is_not_used(limit: Vegas) -> None:
    for _ in range(100):
        limit.on_sample(FAST, 9, Outcome.SUCCESS)
    assert limit.estimate == 20


def test_a_failure_beside_successes_cuts_it_once_in_a_while(limit: Vegas, clock: Clock) -> None:
    for _ in range(5):
        limit.on_sample(0.15, 20, Outcome.FAILURE)
    assert limit.estimate == pytest.approx(18)
    clock.now += 0.11
    limit.on_sample(0.15, 20, Outcome.FAILURE)
    assert limit.estimate == pytest.approx(16.2)


def test_where_nothing_succeeds_fewer_requests_would_mend_nothing(limit: Vegas, clock: Clock) -> None:
    clock.now += 0.3
    for _ in range(100):
        clock.now += 0.2
        limit.on_sample(0.15, 20, Outcome.FAILURE)
    assert limit.estimate == 20


def test_answers_that_went_around_a_fault_do_not_make_it_look_like_a_crowd(limit: Vegas, clock: Clock) -> None:
    clock.now += 0.3
    for _ in range(100):
        clock.now += 0.1
        limit.on_sample(FAST, 1, Outcome.ASIDE)
        limit.on_sample(0.15, 20, Outcome.FAILURE)
    assert limit.estimate == 20


def test_answers_that_the_ranker_had_no_part_in_never_let_it_grow(limit: Vegas, clock: Clock) -> None:
    for _ in range(100):
        clock.now += 0.01
        limit.on_sample(FAST / 2, 20, Outcome.ASIDE)
    assert limit.estimate == 20
    limit.on_sample(FAST, 20, Outcome.SUCCESS)
    assert limit.estimate > 20


def test_answers_that_went_around_a_fault_tell_of_waiting_all_the_same(limit: Vegas) -> None:
    limit.on_sample(FAST + 0.07, 20, Outcome.ASIDE)
    assert limit.estimate < 20


def test_what_says_nothing_changes_nothing(limit: Vegas) -> None:
    before = limit.estimate
    limit.on_sample(9.0, 20, Outcome.IGNORE)
    assert limit.estimate == before


def test_it_learns_anew_what_fast_is_with_a_quarter_of_the_load(limit: Vegas, clock: Clock) -> None:
    clock.now += POLICY.probe_seconds
    limit.on_sample(0.03, 20, Outcome.SUCCESS)
    assert limit.limit == 5
    limit.on_sample(0.09, 20, Outcome.SUCCESS)  # it began in the old crowd
    for _ in range(PROBE_SAMPLES):
        limit.on_sample(0.03, 4, Outcome.SUCCESS)
    assert limit.no_load == 0.03
    assert limit.limit > 15


def test_a_service_at_ease_learns_it_without_a_cut(limit: Vegas, clock: Clock) -> None:
    for _ in range(PROBE_SAMPLES):
        limit.on_sample(0.02, 1, Outcome.SUCCESS)
    clock.now += POLICY.probe_seconds
    limit.on_sample(0.03, 20, Outcome.SUCCESS)
    assert limit.limit >= 20
    assert limit.no_load == 0.02


def test_a_small_limit_is_measured_with_one_request_alone(clock: Clock) -> None:
    limit = Vegas(LimitPolicy(initial=3, least=2), clock)
    clock.now += POLICY.probe_seconds
    limit.on_sample(0.06, 3, Outcome.SUCCESS)
    assert limit.limit == 1
    for _ in range(PROBE_SAMPLES):
        limit.on_sample(0.02, 1, Outcome.SUCCESS)
    assert (limit.limit, limit.no_load) == (3, 0.02)


def test_a_probe_is_given_up_after_a_while(limit: Vegas, clock: Clock) -> None:
    clock.now += POLICY.probe_seconds
    limit.on_sample(0.03, 20, Outcome.SUCCESS)
    assert limit.limit == 5
    clock.now += PROBE_MOST_SECONDS
    limit.on_sample(0.03, 20, Outcome.SUCCESS)
    assert limit.limit >= 20


def test_what_hangs_leaves_its_callers_places_until_it_answers_again(clock: Clock) -> None:
    limit = Vegas(LimitPolicy(initial=8, least=2), clock)
    limit.on_sample(FAST, 1, Outcome.SUCCESS)
    for _ in range(1000):
        limit.on_sample(FAST + 0.1, 8, Outcome.ASIDE)
    assert limit.limit == 2
    clock.now += 0.3
    assert limit.limit == 8
    limit.on_sample(FAST, 8, Outcome.SUCCESS)
    assert limit.limit == 3


def test_a_policy_that_makes_no_sense_is_refused() -> None:
    with pytest.raises(ValueError, match="no sense"):
        LimitPolicy(initial=300)
