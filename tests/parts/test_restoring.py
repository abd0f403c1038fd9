"""What a part lost is given back as soon as it answers; what cannot be given is tried less and less often."""

from __future__ import annotations

import threading

from app.processes.restoring import LAST_DELAY_SECONDS, LOOK_SECONDS, Restorer, Restoring
from domain.errors import PublishError


def test_what_is_there_is_left_alone() -> None:
    given: list[str] = []
    assert Restorer("Redis", lambda: False, lambda: given.append("x"), print).look() == LOOK_SECONDS
    assert given == []


def test_a_failure_is_told_and_tried_again_with_growing_delays_until_it_works() -> None:
    said: list[str] = []
    broken = True

    def give() -> None:
        if broken:
            raise PublishError("the model differs")

    restorer = Restorer("Triton", lambda: True, give, said.append)
    delays = [restorer.look() for _ in range(10)]
    assert delays[:3] == [LOOK_SECONDS * 2, LOOK_SECONDS * 4, LOOK_SECONDS * 8]
    assert delays[-1] == LAST_DELAY_SECONDS
    assert said[0] == "Triton cannot be given what it lost: the model differs"
    broken = False
    assert restorer.look() == LOOK_SECONDS


def test_one_part_that_hangs_keeps_the_other_waiting_for_nothing() -> None:
    release, given = threading.Event(), threading.Event()
    hanging = Restorer("Triton", lambda: release.wait(30), given.set, print)
    restoring = Restoring((hanging, Restorer("Redis", lambda: True, given.set, print)))
    restoring.start()
    try:
        assert given.wait(30)
    finally:
        release.set()
        restoring.stop()
