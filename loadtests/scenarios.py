"""What goes wrong, and what must hold all the same. A scenario names the level it expects; a lower one fails it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Any, TypeAlias

from domain.degradation import DegradationLevel as Level
from loadtests.load_result import LoadResult, Sample
from loadtests.rig import Rig

Act: TypeAlias = Callable[[Rig], Awaitable[None]]
LONG = 10  # for a p99 over an outage, and not over the second in which each request finds out by waiting
STEADY_ANSWERS = 20  # so many in a row at the expected level mean: recovered


async def nothing(_: Rig) -> None:
    pass


@dataclass(frozen=True, slots=True)
class Scenario:
    """``begin`` breaks something, ``end`` mends it; answers in between are at ``level`` or better.

    ``lasts``: how many times as long as the others. ``felt``: at least one answer is exactly at ``level``, or nothing
    was proved. ``strangers``: users without a list.
    """

    name: str
    level: Level
    begin: Act
    end: Act = nothing
    lasts: int = 1
    felt: bool = True
    strangers: bool = False
    keep_alive: bool = True
    headers: tuple[tuple[str, str], ...] = ()
    recovers: bool = True  # back at FULL afterwards, within the promise


@dataclass(frozen=True, slots=True)
class Outcome:
    """What one scenario saw: under the fault, and how long after its end answers were FULL again (NaN: not asked)."""

    scenario: str
    expected: str
    during: LoadResult
    recovery_seconds: float
    broken: tuple[str, ...]
    offset: float = 0.0  # seconds from the start of the whole run, for the timeline
    whole: LoadResult = field(default_factory=lambda: LoadResult(0, 0, []))
    told: str = ""  # what the levels do not say


def lower_than(expected: Level, result: LoadResult) -> list[Sample]:
    """The answers that are worse than promised."""
    return [part for part in result.samples if part.level and Level[part.level] > expected]


def recovery_seconds(after: LoadResult, level: str = "FULL") -> float:
    """Seconds from the start of ``after`` to the first of ``STEADY_ANSWERS`` in a row at ``level``; inf if never.

    Counted from when an answer came back, with due times that start at 0.
    """
    run = 0
    for position, part in enumerate(after.samples):
        run = run + 1 if part.level == level else 0
        if run == STEADY_ANSWERS:
            first = after.samples[position - STEADY_ANSWERS + 1]
            return max(0.0, first.due + first.seconds)
    return float("inf")


def judged(scenario: Scenario, during: LoadResult, recovery: float, promises: dict[str, Any]) -> list[str]:
    """The promises that do not hold, a line each."""
    broken = []
    lower = lower_than(scenario.level, during)
    if lower:
        worst = max(Level[part.level] for part in lower).name
        reasons = sorted({reason for part in lower for reason in part.reasons})
        broken.append(f"{len(lower)} answers below {scenario.level.name}, down to {worst}: {', '.join(reasons)}")
    if scenario.felt and not during.levels[scenario.level.name]:
        broken.append(f"no answer at {scenario.level.name}: the fault was not felt")
    bad = {status: n for status, n in during.statuses.items() if status != 200}
    if bad:
        broken.append(f"answers that are no 200: {bad}")
    if during.quantile(95) * 1000 > promises["max_p95_ms"]:
        broken.append(f"p95 {during.quantile(95) * 1000:.0f} ms")
    limit = promises["p99_ms"].get(scenario.name)
    if limit is not None and during.quantile(99) * 1000 > limit:
        broken.append(f"p99 {during.quantile(99) * 1000:.1f} ms, promised {limit}")
    if scenario.recovers and recovery > promises["recovery_seconds"]:
        broken.append(f"FULL again after {recovery:.1f} s")
    return broken


def proxied(part: str, mode: str, seconds: float = 0.0) -> Act:
    """Break the way to ``redis`` or ``triton``; ``both`` is both."""

    async def begin(rig: Rig) -> None:
        for proxy in [rig.redis, rig.triton] if part == "both" else [getattr(rig, part)]:
            proxy.set(mode, seconds)

    return begin


def inside(**faults: Any) -> Act:
    """Break something inside the workers."""

    async def begin(rig: Rig) -> None:
        await rig.faults(**faults)

    return begin


async def both_wrong(rig: Rig) -> None:
    rig.redis.set("garble")
    await rig.faults(scores="nan")


async def heal(rig: Rig) -> None:
    await rig.heal()


ALL = ("two_tower", "collaborative", "content", "popularity", "preference")
STALE, SIMPLE, PARTIAL = Level.STALE_FEATURES, Level.SIMPLE_RANKING, Level.PARTIAL_RETRIEVAL

SINGLE_FAULTS = (
    Scenario("calm", Level.FULL, nothing),
    Scenario("redis_dead", STALE, proxied("redis", "reset"), heal),
    Scenario("redis_hung", STALE, proxied("redis", "blackhole"), heal),
    Scenario("redis_slow", STALE, proxied("redis", "delay", 0.2), heal),
    Scenario("redis_cut_off", STALE, proxied("redis", "truncate"), heal),
    Scenario("redis_wrong", STALE, proxied("redis", "garble"), heal),
    Scenario("redis_killed", STALE, Rig.kill_redis, Rig.start_redis),
    Scenario("triton_dead", SIMPLE, proxied("triton", "reset"), heal),
    Scenario("triton_hung", SIMPLE, proxied("triton", "blackhole"), heal),
    Scenario("triton_slow", SIMPLE, proxied("triton", "delay", 0.3), heal),
    Scenario("triton_cut_off", SIMPLE, proxied("triton", "truncate"), heal),
    Scenario("triton_wrong", SIMPLE, inside(scores="nan"), heal),
    Scenario("triton_all_equal", SIMPLE, inside(scores="equal"), heal),
    Scenario("triton_killed", SIMPLE, Rig.kill_triton, Rig.start_triton),
    Scenario("both_dead", SIMPLE, proxied("both", "reset"), heal),
    Scenario("both_hung", SIMPLE, proxied("both", "blackhole"), heal, lasts=LONG),
    Scenario("both_slow", SIMPLE, proxied("both", "delay", 0.3), heal, lasts=LONG),
    Scenario("both_wrong", SIMPLE, both_wrong, heal),
    Scenario("one_source_failing", PARTIAL, inside(failing=["two_tower"]), heal),
    Scenario("one_source_hung", PARTIAL, inside(hung=["content"]), heal),
    Scenario("all_sources_failing", Level.BATCH_LIST, inside(failing=ALL), heal),
    Scenario("all_sources_failing_strangers", Level.POPULAR, inside(failing=ALL), heal, strangers=True),
)
