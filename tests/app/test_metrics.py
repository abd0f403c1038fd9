"""Metrics: what an answer adds to them, and several workers counting as one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from app import metrics
from app.metrics import REGISTRY
from domain.answer import Answer
from domain.degradation import DegradationLevel

ROOT = Path(__file__).parents[2]
WORKER = """
from app import metrics
metrics.request_finished("http", "200", 0.18)
metrics.breaker_is("ranking", "open")
metrics.bundle_is("v1", 1, 1.7e9)
metrics.bundle_is("v2", 2, 1.8e9)
"""
SCRAPE = "from app import metrics; print(metrics.exposition()[0].decode())"


def value(name: str, **labels: str) -> float:
    return REGISTRY.get_sample_value(name, labels) or 0.0


def test_an_answer_is_counted_by_level_reason_and_stage() -> None:
    answer = Answer(
        "r", "b", (), DegradationLevel.BATCH_LIST, ("ranking.open", "cold_start"), {"ranking": 0.003}, {"content": 7}, 0
    )

    def counted() -> list[float]:
        return [
            value("streamrec_answers_total", level="BATCH_LIST"),
            value("streamrec_reasons_total", part="ranking", cause="open"),
            value("streamrec_reasons_total", part="cold_start", cause=""),
            value("streamrec_stage_seconds_count", stage="ranking"),
        ]

    before = counted()
    metrics.answered(answer)
    assert counted() == [count + 1 for count in before]


def test_the_target_can_be_computed_from_the_bounds() -> None:
    assert {0.15, 0.2, 0.3} <= set(metrics.REQUEST_BOUNDS)
    assert {0.15, 0.2, 0.3} <= set(metrics.STAGE_BOUNDS)


def test_every_level_is_shown_from_the_start() -> None:
    text = metrics.exposition()[0].decode()
    assert all(f'level="{level.name}"' in text for level in DegradationLevel)


def test_a_breaker_is_in_one_state_at_a_time() -> None:
    metrics.breaker_is("features", "open")
    metrics.breaker_is("features", "half-open")
    states = {
        state: value("streamrec_breaker_workers", part="features", state=state) for state in metrics.BREAKER_STATES
    }
    assert states == {"closed": 0, "half-open": 1, "open": 0}


def test_a_worker_serves_one_bundle_at_a_time() -> None:
    metrics.bundle_is("v1", 1, 1.7e9)
    metrics.bundle_is("v2", 2, 1.8e9)
    assert value("streamrec_bundle_workers", version="v1", number="1") == 0
    assert value("streamrec_bundle_workers", version="v2", number="2") == 1
    assert value("streamrec_bundle_published_timestamp_seconds") == 1.8e9


def run(program: str, folder: Path) -> tuple[int, str]:
    """Run a program as a worker of the supervisor; its pid and what it printed."""
    environ = {**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(folder), "PYTHONPATH": str(ROOT)}
    with subprocess.Popen([sys.executable, "-c", program], env=environ, stdout=subprocess.PIPE, text=True) as process:
        printed, _ = process.communicate(timeout=60)
        assert process.returncode == 0
    return process.pid, printed


def test_several_workers_count_as_one_and_a_dead_ones_gauges_do_not(tmp_path: Path) -> None:
    pids = [run(WORKER, tmp_path)[0] for _ in range(2)]
    text = run(SCRAPE, tmp_path)[1]
    assert 'streamrec_requests_total{status="200",transport="http"} 2.0' in text
    assert 'streamrec_request_seconds_bucket{le="0.2",transport="http"} 2.0' in text
    assert 'streamrec_breaker_workers{part="ranking",state="open"} 2.0' in text
    assert 'streamrec_bundle_workers{number="1",version="v1"} 0.0' in text
    assert 'streamrec_bundle_workers{number="2",version="v2"} 2.0' in text
    metrics.worker_died(pids[0], tmp_path)
    text = run(SCRAPE, tmp_path)[1]
    assert 'streamrec_requests_total{status="200",transport="http"} 2.0' in text
    assert 'streamrec_breaker_workers{part="ranking",state="open"} 1.0' in text


def test_processes_that_measured_no_recall_do_not_hide_the_one_that_did(tmp_path: Path) -> None:
    """A consumer never measures, a worker whom nobody asked cannot; whichever of the files is read first."""
    measured = "metrics.index_recall_is(0.5)"
    for program in ("metrics.event_lag_is(0)", measured, 'metrics.index_recall_is(float("nan"))'):
        run(f"from app import metrics; {program}", tmp_path)
    assert "streamrec_index_recall_ratio 0.5" in run(SCRAPE, tmp_path)[1]


def test_a_recall_that_nobody_measured_is_no_alert(tmp_path: Path) -> None:
    assert "streamrec_index_recall_ratio +Inf" in run(SCRAPE, tmp_path)[1]
