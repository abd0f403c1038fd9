import contextlib

import pytest

from domain.errors import BreakerOpen
from fallbacks.breakers import Breaker, BreakerPolicy

POLICY = BreakerPolicy(
    window_seconds=10, minimum_calls=20, threshold_ratio=0.5, slow_seconds=0.1, open_seconds=1, open_seconds_limit=2
)


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def breaker(clock: Clock) -> Breaker:
    return Breaker("redis", POLICY, clock=clock, jitter=lambda: 0.5)


def call(breaker: Breaker, *, ok: bool, seconds: float = 0.01) -> None:
    probe = breaker.admit()
    breaker.succeed(seconds, probe=probe) if ok else breaker.fail(probe=probe)


def trip(breaker: Breaker) -> None:
    for _ in range(20):
        call(breaker, ok=False)


def test_it_trips_on_a_failure_rate_not_on_a_row_of_failures(breaker: Breaker) -> None:
    for _ in range(30):
        call(breaker, ok=True)
    for _ in range(29):
        call(breaker, ok=False)
    assert breaker.state == "closed"
    call(breaker, ok=False)
    assert breaker.state == "open"


def test_however_well_it_was_before_a_second_of_faults_is_enough(breaker: Breaker, clock: Clock) -> None:
    for _ in range(200):
        clock.now += 0.025
        call(breaker, ok=True)
    for _ in range(39):
        clock.now += 0.025
        call(breaker, ok=False)
    assert breaker.state == "closed"
    clock.now += 0.025
    call(breaker, ok=False)
    assert breaker.state == "open"


def test_a_short_burst_of_faults_is_not_enough_where_hundreds_come_in_a_second(breaker: Breaker, clock: Clock) -> None:
    for _ in range(1000):
        clock.now += 0.002
        call(breaker, ok=True)
    for _ in range(400):
        clock.now += 0.002
        call(breaker, ok=False)
    assert breaker.state == "closed"
    with contextlib.suppress(BreakerOpen):
        for _ in range(150):
            clock.now += 0.002
            call(breaker, ok=False)
    assert breaker.state == "open"


def test_too_few_calls_say_nothing(breaker: Breaker) -> None:
    for _ in range(19):
        call(breaker, ok=False)
    assert breaker.state == "closed"


def test_failures_outside_the_window_are_forgotten(breaker: Breaker, clock: Clock) -> None:
    for _ in range(19):
        call(breaker, ok=False)
    clock.now += 10.1
    call(breaker, ok=False)
    assert breaker.state == "closed"


def test_slow_is_as_bad_as_wrong(breaker: Breaker) -> None:
    for _ in range(20):
        call(breaker, ok=True, seconds=0.2)
    assert breaker.state == "open"


def test_open_lets_nobody_through_until_its_time_has_passed(breaker: Breaker, clock: Clock) -> None:
    trip(breaker)
    clock.now += 0.99
    with pytest.raises(BreakerOpen):
        breaker.admit()
    clock.now += 0.02
    assert breaker.admit()


def test_half_open_lets_a_handful_of_200_callers_through(breaker: Breaker, clock: Clock) -> None:
    trip(breaker)
    clock.now += 1.1
    through = 0
    for _ in range(200):
        try:
            through += breaker.admit()
        except BreakerOpen:
            continue
    assert through == POLICY.probes


def test_good_probes_close_it(breaker: Breaker, clock: Clock) -> None:
    trip(breaker)
    clock.now += 1.1
    for _ in range(POLICY.probes):
        call(breaker, ok=True)
    assert breaker.state == "closed"
    call(breaker, ok=False)
    assert breaker.state == "closed"


def test_a_failed_probe_doubles_the_time_up_to_its_limit(breaker: Breaker, clock: Clock) -> None:
    trip(breaker)
    waits = []
    for _ in range(4):
        started = clock.now
        while True:
            clock.now += 0.05
            try:
                probe = breaker.admit()
            except BreakerOpen:
                continue
            waits.append(round(clock.now - started))
            breaker.fail(probe=probe)
            break
    assert waits == [1, 2, 2, 2]


def test_a_probe_whose_caller_left_gives_its_place_back(breaker: Breaker, clock: Clock) -> None:
    trip(breaker)
    clock.now += 1.1
    for _ in range(10):
        breaker.forget(probe=breaker.admit())
    assert breaker.state == "half-open"
    for _ in range(POLICY.probes):
        call(breaker, ok=True)
    assert breaker.state == "closed"


def test_a_probe_of_an_earlier_round_says_nothing_about_this_one(breaker: Breaker, clock: Clock) -> None:
    trip(breaker)
    clock.now += 1.1
    stale = [breaker.admit() for _ in range(POLICY.probes)]
    breaker.fail(probe=stale.pop())
    clock.now += 2.1
    for _ in range(POLICY.probes):
        breaker.admit()
    breaker.forget(probe=stale[0])
    breaker.succeed(0.01, probe=stale[1])
    with pytest.raises(BreakerOpen):  # all places of this round are still taken
        breaker.admit()
    breaker.fail(probe=stale[0])
    assert breaker.state == "half-open"


def test_an_answer_from_before_the_trip_closes_nothing(breaker: Breaker, clock: Clock) -> None:
    early = breaker.admit()
    trip(breaker)
    clock.now += 1.1
    breaker.admit()
    breaker.succeed(0.01, probe=early)
    assert breaker.state == "half-open"


def test_an_outage_of_any_length_ends(breaker: Breaker, clock: Clock) -> None:
    trip(breaker)
    for _ in range(1_100):
        clock.now += 3.0
        breaker.fail(probe=breaker.admit())
    clock.now += 3.0
    for _ in range(POLICY.probes):
        call(breaker, ok=True)
    assert breaker.state == "closed"


def test_after_an_outage_of_any_length_it_is_closed_within_three_seconds(clock: Clock) -> None:
    """At the worst moment: a probe fails just before the dependency is back, and the jitter is at its longest."""
    breaker = Breaker("redis", BreakerPolicy(), clock=clock, jitter=lambda: 1.0)
    trip(breaker)
    for _ in range(50):
        clock.now += 2.0
        breaker.fail(probe=breaker.admit())
    back = clock.now
    while breaker.state != "closed":
        clock.now += 0.05
        with contextlib.suppress(BreakerOpen):
            call(breaker, ok=True)
    assert clock.now - back < 3.0
