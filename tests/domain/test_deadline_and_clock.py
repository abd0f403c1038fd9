import pytest

from domain.clock import LiveClock, ReplayClock
from domain.deadline import Deadline
from domain.degradation import Degradation, DegradationLevel


class Ticking:
    now = 100.0

    def __call__(self) -> float:
        return self.now


def test_a_stage_gets_its_ceiling_or_what_is_left() -> None:
    clock = Ticking()
    deadline = Deadline.after(0.150, clock)
    assert deadline.within(0.040).remaining == pytest.approx(0.040)
    clock.now += 0.130
    assert deadline.within(0.040).remaining == pytest.approx(0.020)


def test_time_kept_for_the_fallback_comes_off_the_end() -> None:
    clock = Ticking()
    deadline = Deadline.after(0.010, clock).earlier(0.020)
    assert deadline.expired
    assert deadline.remaining == 0.0


async def test_waiting_past_the_deadline_is_a_timeout() -> None:
    import asyncio

    with pytest.raises(TimeoutError):
        async with Deadline.after(0.001).timeout():
            await asyncio.Event().wait()


def test_a_live_user_lives_now() -> None:
    assert LiveClock(lambda: 5.0).now(3.0) == 5.0


def test_a_replayed_user_goes_on_from_their_last_event() -> None:
    clock = ReplayClock(published_at=1000.0, ended_at=50.0, wall=lambda: 1060.0)
    assert clock.now(20.0) == 80.0
    assert clock.now(None) == 110.0


def test_a_replayed_users_last_event_is_always_in_the_past() -> None:
    assert ReplayClock(published_at=1000.0, ended_at=50.0, wall=lambda: 990.0).now(20.0) == 21.0


def test_an_answer_carries_the_worst_level_and_every_reason_once() -> None:
    trail = Degradation()
    trail.step(DegradationLevel.SIMPLE_RANKING, "ranking.timeout")
    trail.step(DegradationLevel.PARTIAL_RETRIEVAL, "content.open")
    trail.note("content.open")
    assert trail.level is DegradationLevel.SIMPLE_RANKING
    assert trail.reasons == ["ranking.timeout", "content.open"]


def test_a_replayed_event_happens_as_long_after_the_users_last_as_it_came_after_publishing() -> None:
    clock = ReplayClock(published_at=1000.0, ended_at=50.0, wall=lambda: 1060.0)
    assert clock.at(1007.0, 20.0) == 27.0
    assert clock.at(900.0, 20.0) == 20.0
    assert LiveClock().at(7.0, 20.0) == 7.0
