"""`make chaos`: the real service, everything that can go wrong with it, and what must hold all the same.

    python -m loadtests.chaos [SCENARIO ...] [--bundle FOLDER] [--write]

Redis, Triton and the workers are real processes, with a fault proxy before each dependency; the load is open-loop, and
every scenario names the level it expects. Prints a table; with ``--write`` also ``benchmarks/CHAOS.md``, the picture in
``docs/img`` and what the README shows of both. Ends with status 1 if a promise of ``loadtests/budget.toml`` is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import tempfile
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeAlias

import uvloop

from app.settings import Settings
from benchmarks.machine import measured_on
from loadtests.chaos_report import chaos_table, draw, show_in, write_report
from loadtests.load_result import LoadResult
from loadtests.open_loop import HttpDoor, budget, offer
from loadtests.rig import HOST, Rig, running
from loadtests.scenarios import SINGLE_FAULTS, Outcome, Scenario, judged, recovery_seconds
from loadtests.special_scenarios import SPECIAL
from loadtests.traffic import Traffic, users_of

ROOT = Path(__file__).resolve().parents[1]
WARM_SECONDS = 2.0
BETWEEN_SECONDS = 0.5

Play: TypeAlias = Callable[[Rig, Sequence[str], dict[str, Any]], Awaitable[Outcome]]


def single_fault(scenario: Scenario) -> Play:
    """The load under a fault, while it is mended, and afterwards until it must be well again."""

    async def play(rig: Rig, users: Sequence[str], promises: dict[str, Any]) -> Outcome:
        rate, door = promises["rate"], _door(rig, scenario, users)
        clock = asyncio.get_running_loop().time
        start = clock()

        async def load(seconds: float) -> LoadResult:
            return await offer(door, rate, seconds, start)

        async def mend() -> float:
            await scenario.end(rig)
            return clock() - start  # told from in here: the load around it goes on for a while

        try:
            await scenario.begin(rig)
            parts = [await load(promises["fault_seconds"] * scenario.lasts)]
            mending = asyncio.ensure_future(mend())
            await asyncio.wait({mending}, timeout=0.01)  # most are at once
            while not mending.done():
                parts.append(await load(BETWEEN_SECONDS))
            mended = await mending
            if scenario.recovers:
                parts.append(await load(promises["recovery_seconds"] + 2.0))
        finally:
            await door.close()
        during, after = parted(joined(parts), mended)
        recovery = recovery_seconds(after) if scenario.recovers else float("nan")
        broken = judged(scenario, during, recovery, promises)
        broken += [f"{after.count(0)} requests failed afterwards"] if after.count(0) else []
        return Outcome(scenario.name, scenario.level.name, during, recovery, tuple(broken), whole=joined(parts))

    return play


def _door(rig: Rig, scenario: Scenario, users: Sequence[str]) -> HttpDoor:
    traffic = Traffic(users, cold=1.0 if scenario.strangers else 0.0, headers=scenario.headers)
    return HttpDoor(HOST, rig.port, traffic, keep_alive=scenario.keep_alive)


def joined(parts: Sequence[LoadResult]) -> LoadResult:
    """Loads one after the other as one."""
    samples = [sample for part in parts for sample in part.samples]
    return LoadResult(parts[0].offered, sum(part.seconds for part in parts), samples)


def parted(whole: LoadResult, mended: float) -> tuple[LoadResult, LoadResult]:
    """What was due until then, and what was due from then on, its due times counted from then."""
    after = whole.between(mended, float("inf"))
    moved = [sample._replace(due=sample.due - mended) for sample in after.samples]
    return whole.between(0.0, mended), LoadResult(whole.offered, max(0.0, whole.seconds - mended), moved)


PLAYS: dict[str, Play] = {scenario.name: single_fault(scenario) for scenario in SINGLE_FAULTS} | SPECIAL


async def play_all(
    names: Sequence[str], bundle: Path, triton_venv: Path, promises: dict[str, Any], say: Callable[[str], object]
) -> list[Outcome]:
    """The scenarios in order, on one service; it is calm again before each."""
    users, outcomes = users_of(bundle), []
    with tempfile.TemporaryDirectory(prefix="streamrec-chaos-") as home:
        async with running(bundle, Path(home), triton_venv, workers=1) as rig:
            began = asyncio.get_running_loop().time()
            for name in names:
                await _calm(rig, users)
                offset = asyncio.get_running_loop().time() - began
                outcome = replace(await PLAYS[name](rig, users, promises), offset=offset)
                await rig.heal()
                if not rig.triton_part.running:
                    outcome = replace(outcome, broken=(*outcome.broken, "Triton died of it"))
                    await rig.start_triton()
                outcomes.append(outcome)
                say(f"{name:32} {'; '.join(outcome.broken) or 'kept'}")
    return outcomes


async def _calm(rig: Rig, users: Sequence[str]) -> None:
    """Requests until they are FULL again, a few seconds at most: what is not, the next scenario will say."""
    door = HttpDoor(HOST, rig.port, Traffic(users, cold=0.0))
    try:
        for _ in range(10):
            found = await offer(door, 20, WARM_SECONDS / 2)
            if found.level_ratio("FULL") == 1.0:
                return
    finally:
        await door.close()


def main() -> int:
    asking = argparse.ArgumentParser(description="What breaks, and what holds all the same")
    asking.add_argument("scenarios", nargs="*", metavar="SCENARIO", help=f"of {', '.join(PLAYS)}; none: all")
    asking.add_argument("--bundle", type=Path, help="trained bundle (default: the served one)")
    asking.add_argument("--write", action="store_true", help="write CHAOS.md, README's table and the picture")
    asked = asking.parse_args()
    if unknown := set(asked.scenarios) - set(PLAYS):
        asking.error(f"no scenario {', '.join(sorted(unknown))}")
    settings, promises = Settings.from_environment(os.environ), budget("chaos")
    names, where = asked.scenarios or list(PLAYS), measured_on()
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        bundle = (asked.bundle or settings.bundle).resolve()
        outcomes = runner.run(play_all(names, bundle, settings.triton_venv, promises, _say))
    print(f"\n{chaos_table(outcomes)}")
    if asked.write:
        draw(outcomes, ROOT / "docs" / "img" / "chaos.png")
        write_report(outcomes, ROOT / "benchmarks" / "CHAOS.md", where, bundle)
        show_in(ROOT / "README.md", outcomes, where)
    return 1 if any(outcome.broken for outcome in outcomes) else 0


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
