"""Measuring by turns: whatever slows the machine down slows all of them alike, and leaves the ratios as they are."""

from __future__ import annotations

import asyncio
import gc
import statistics
import time
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from app.processes.process import Part
from benchmarks.cpu import cpu_seconds

TURN_SECONDS = 0.1
UNIT_REQUESTS = 300


class Door(Protocol):
    """How the unit's server is asked."""

    async def ask(self, number: int) -> Any: ...


@dataclass(frozen=True, slots=True)
class Stage:
    """Something to run again and again. ``run`` gives an awaitable."""

    name: str
    run: Callable[[], Awaitable[Any]]

    @classmethod
    def plain(cls, name: str, run: Callable[[], Any]) -> Stage:
        """A stage that waits for nothing."""

        async def once() -> None:
            run()

        return cls(name, once)


@dataclass(frozen=True, slots=True)
class Server:
    """The unit: a process that answers, and the door to ask it through."""

    part: Part
    door: Door


@dataclass(frozen=True, slots=True)
class Cost:
    """Of one call, medians over the rounds. ``units`` is CPU over the CPU of the unit in the same round."""

    cpu_us: float
    wall_us: float
    units: float


@dataclass(frozen=True, slots=True)
class Turn:
    cpu: float
    wall: float


async def in_turns(stages: Sequence[Stage], unit: Server, rounds: int) -> dict[str, Cost]:
    """Each stage's cost, in their order, and the unit's first."""
    calls = {stage.name: await _calls(stage) for stage in stages}
    await _unit(unit)
    gc.collect()
    gc.freeze()  # as a worker does
    units, turns = [], {stage.name: list[Turn]() for stage in stages}
    for _ in range(rounds):
        units.append(await _unit(unit))
        for stage in stages:
            turns[stage.name].append(await _turn(stage, calls[stage.name]))
    costs = {name: _cost(taken, units) for name, taken in turns.items()}
    return {"unit": _cost(units, units), **costs}


async def _calls(stage: Stage) -> int:
    """How many calls fill a turn; the first ones warm up."""
    for _ in range(3):
        await stage.run()
    turn = await _turn(stage, 20)
    return max(20, min(20_000, int(TURN_SECONDS / max(turn.wall, 1e-7))))


async def _turn(stage: Stage, calls: int) -> Turn:
    run = stage.run
    cpu, wall = time.process_time(), time.perf_counter()
    for _ in range(calls):
        await run()
    return Turn((time.process_time() - cpu) / calls, (time.perf_counter() - wall) / calls)


async def _unit(unit: Server) -> Turn:
    cpu, wall = cpu_seconds(unit.part), time.perf_counter()
    for number in range(UNIT_REQUESTS):
        await unit.door.ask(number)
    await asyncio.sleep(0)
    return Turn((cpu_seconds(unit.part) - cpu) / UNIT_REQUESTS, (time.perf_counter() - wall) / UNIT_REQUESTS)


def _cost(turns: Sequence[Turn], units: Sequence[Turn]) -> Cost:
    """The unit of a single round is coarse, so the ratio is taken of what all rounds say of it."""
    unit = statistics.median(turn.cpu for turn in units)
    cpu = statistics.median(turn.cpu for turn in turns)
    return Cost(cpu * 1e6, statistics.median(turn.wall for turn in turns) * 1e6, cpu / unit)
