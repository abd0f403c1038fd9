"""``streamrec latency``: the budget of the design beside what a running service needs, stage by stage.

The times are those that each answer carries, so stages and total are of the same requests; the histograms of
``/metrics`` are of all requests there were, and too coarse for a p99.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from app.commands.client import call
from app.settings import Settings
from app.table import table
from domain.errors import StreamRecError

CEILING_MS = 200.0
CRITICAL = ("retrieval", "ranking", "reranking")
"""The stages that follow each other; the features are read while retrieval runs and are a part of it."""


class NothingMeasured(StreamRecError):
    """No request was answered."""


@dataclass(frozen=True, slots=True)
class Asked:
    """What ``n`` requests took: milliseconds a stage, and from outside, aligned by request; how many were FULL."""

    stages: Mapping[str, Sequence[float]]
    outside: Sequence[float]
    full: int


def ask(address: str, users: Sequence[str], n: int, limit: int = 20, key: str | None = None) -> Asked:
    """``n`` requests, one after the other, by ``users`` in turn; raises ``NotAnswering`` and ``NothingMeasured``."""
    stages: dict[str, list[float]] = {}
    outside: list[float] = []
    full = 0
    for user in _in_turn(users, n):
        started = time.perf_counter()
        status, answer = call(address, "/v1/recommendations", {"user_id": user, "limit": limit}, key=key)
        if status != 200:
            continue
        outside.append((time.perf_counter() - started) * 1000)
        full += answer["degradation"]["level"] == "FULL"
        for stage, milliseconds in answer["timing_ms"].items():
            stages.setdefault(stage, []).append(milliseconds)
    if not outside:
        raise NothingMeasured(f"{address} answered none of {n} requests with a slate")
    return Asked(stages, outside, full)


def allotments(settings: Settings) -> dict[str, float]:
    """Milliseconds granted to each stage, and in all."""
    granted = {
        "features": settings.features_seconds, "retrieval": settings.retrieval_seconds,
        "ranking": settings.ranking_seconds, "reranking": settings.reranking_seconds,
        "total": settings.deadline_seconds,
    }  # fmt: skip
    return {stage: seconds * 1000 for stage, seconds in granted.items()}


def report(asked: Asked, granted: Mapping[str, float]) -> str:
    """The table, the serial sum, the critical path, and the room left to the ceiling."""
    rows = [_row(stage, asked.stages.get(stage, ()), granted[stage]) for stage in granted]
    rows.append(_row("seen by the client", asked.outside, CEILING_MS))
    p95 = {stage: quantile(values, 95) for stage, values in asked.stages.items()}
    critical = sum(p95.get(stage, 0.0) for stage in CRITICAL)
    serial = critical + p95.get("features", 0.0)
    room = CEILING_MS - quantile(asked.outside, 95)
    return "\n".join(
        [
            table(["stage", "allotted ms", "p50", "p95", "p99", "p95 of it"], rows, right=frozenset({1, 2, 3, 4, 5})),
            "",
            f"requests       {len(asked.outside)}, one after the other; {asked.full} at FULL",
            f"serial sum     {serial:.1f} ms at p95, if no two stages ran at once",
            f"critical path  {critical:.1f} ms at p95: {' + '.join(CRITICAL)}",
            f"headroom       {room:.1f} ms at p95 to the ceiling of {CEILING_MS:g} ms",
        ]
    )


def quantile(values: Sequence[float], percent: float) -> float:
    """The nearest-rank percentile; 0 of nothing."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))] if ordered else 0.0


def _row(stage: str, values: Sequence[float], granted: float) -> tuple[str, ...]:
    if not values:
        return (stage, f"{granted:g}", "-", "-", "-", "-")
    p95 = quantile(values, 95)
    figures = (quantile(values, 50), p95, quantile(values, 99))
    return (stage, f"{granted:g}", *(f"{figure:.2f}" for figure in figures), f"{p95 / granted:.0%}")


def _in_turn(users: Sequence[str], n: int) -> Iterator[str]:
    for number in range(n):
        yield users[number % len(users)]
