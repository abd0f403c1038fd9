"""A model that gave bad scores is asked again beside requests, and trusted after several good answers."""

from __future__ import annotations

import pytest

from fallbacks.model_mark import PROBE_SECONDS, PROBES, ModelMark


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def told() -> list[bool]:
    return []


@pytest.fixture
def mark(clock: Clock, told: list[bool]) -> ModelMark:
    return ModelMark(told.append, clock)


def test_a_good_model_needs_no_probe(mark: ModelMark, clock: Clock) -> None:
    clock.now += 100
    assert not mark.bad
    assert not mark.probe_due()


def test_a_bad_one_is_asked_again_now_and_then(mark: ModelMark, clock: Clock) -> None:
    mark.spoil("all the same")
    due = []
    for _ in range(10):
        due.append(mark.probe_due())
        clock.now += PROBE_SECONDS / 2
    assert (mark.bad, mark.why) == (True, "all the same")
    assert due == [False, False, True, False, True, False, True, False, True, False]


def test_only_good_answers_in_a_row_take_the_mark_away(mark: ModelMark, told: list[bool]) -> None:
    mark.spoil("not finite")
    for _ in range(PROBES - 1):
        mark.good()
    mark.spoil("not finite")
    for _ in range(PROBES - 1):
        mark.good()
    assert told == [True]
    mark.good()
    assert told == [True, False]
    assert mark.why is None
