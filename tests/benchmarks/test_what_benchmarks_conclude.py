"""What the benchmarks say of their figures; the figures themselves are for a quiet machine."""

from __future__ import annotations

from typing import Any

import pytest

from benchmarks.capacity import Inputs, check, need, page
from benchmarks.peers.compare import saturation
from benchmarks.stages import regressions
from loadtests.load_result import LoadResult, Sample


def document(api_high: float = 2.0) -> dict[str, Any]:
    low = {"rate": 50.0, "api_ms": 2.0, "triton_ms": 2.0, "redis_ms": 0.1}
    high = {"rate": 100.0, "api_ms": api_high, "triton_ms": 1.0, "redis_ms": 0.1}
    redis = {"bytes_a_user": 1024.0, "sent_bytes_a_read": 400.0, "received_bytes_a_read": 600.0}
    measured = {"machine": "2 cores", "date": "2026-11-21", "commit": "abc"}
    return {"requests": [high, low], "candidates": 500, "redis": redis, "measured": measured}


def test_cores_are_the_rate_times_the_dearer_cost_of_cores_half_full() -> None:
    found = need(Inputs.of(document()), 10_000, 50e6)
    assert (found.api_cores, found.triton_instances, found.redis_cores) == (40, 40, 2)
    assert found.redis_gib == pytest.approx(50e6 * 1024 * 2 / 2**30)
    assert found.redis_gbit == pytest.approx(10_000 * 1000 * 8 / 1e9)


def test_the_model_is_checked_on_the_rate_it_was_not_made_from() -> None:
    rows = {part: (foretold, measured, error) for part, foretold, measured, error in check(Inputs.of(document()))}
    assert rows["api"] == pytest.approx((0.2, 0.2, 0.0))
    assert rows["triton"] == pytest.approx((0.2, 0.1, 1.0))


def test_one_rate_is_no_check() -> None:
    with pytest.raises(ValueError, match="two rates"):
        Inputs.of({**document(), "requests": document()["requests"][:1]})


def test_the_page_tells_what_was_measured_and_what_it_foretells() -> None:
    text = page(document(), 10_000, 50e6)
    assert "| API, CPU ms a request | 2.000 | 2.000 |" in text
    assert "| triton | 0.200 | 0.100 | +100% |" in text
    assert "| API workers, a core each | 40 |" in text


@pytest.mark.parametrize(("now", "found"), [(1.19, 0), (1.21, 1), (0.5, 0)])
def test_a_fifth_more_than_the_baseline_is_a_regression(now: float, found: int) -> None:
    assert len(regressions({"merge": now}, {"merge": 1.0})) == found


def test_a_stage_too_small_to_measure_is_no_regression() -> None:
    assert not regressions({"decode": 0.03}, {"decode": 0.01})


def test_a_stage_that_is_gone_is_no_regression() -> None:
    assert not regressions({}, {"merge": 1.0})


@pytest.mark.parametrize("limit", [33.0, 77.0, 437.0])
@pytest.mark.parametrize("refuses", [True, False], ids=["refuses the rest", "is late with the rest"])
def test_saturation_is_the_highest_rate_held_by_a_twentieth(limit: float, refuses: bool) -> None:
    def offer(rate: float) -> LoadResult:
        held = min(1.0, limit / rate)
        answers = range(int(rate * 10))
        if refuses:
            taken = [int((k + 1) * held) > int(k * held) for k in answers]
            return LoadResult(rate, 10.0, [Sample(k / rate, 0.0, 200 if taken[k] else 503, "") for k in answers])
        return LoadResult(rate, 10.0, [Sample(k / rate, k / rate * (1 / held - 1), 200, "") for k in answers])

    assert limit / 1.05 < saturation(offer) < limit * 1.09  # 95 % of it, or a moment longer, is as good as held
