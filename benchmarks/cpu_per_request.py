"""What a request costs in CPU, part by part, in units of a no-op FastAPI + orjson endpoint under the same client.

    python -m benchmarks.cpu_per_request [--bundle FOLDER] [--rates 50 100] [--seconds 20] [--json FILE] [--gate]
                                         [--set STREAMREC_RULES=none ...]

Method: Redis, Triton and one worker as they serve, with the default deadline, the no-op endpoint and the floor beside
them; the open-loop generator offers each rate to no-op, floor and service in turn, ``rounds`` times. Counted is the CPU
of each part with its children, as the scheduler knows it. The floor is a worker that reads the user and asks Triton as
the service does and computes nothing in between (``benchmarks.floor``). Only answers at FULL count: more than 1 %
others and the run says nothing; nor does it where Triton did not rank them, all 500 candidates, by the reference graph,
which is what the bundle is given where none is named. ``--json`` also keeps what Redis holds and sends, which
``benchmarks.capacity`` reads; ``--write`` puts the table into RESULTS.md; ``--gate`` ends with status 1 above 6 units
for the worker or 14 for all parts together, at the lowest rate; ``--set`` serves with another setting: what that
costs is told by several runs with and without it, by turns, since runs differ by themselves.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import redis
import uvloop

from app.processes.process import Part
from benchmarks.cpu import cpu_seconds, own_bytes
from benchmarks.machine import headline, measured_on
from benchmarks.reference import reference_bundle
from benchmarks.results import write_block
from benchmarks.rig import HOST, Rig, running
from loadtests.evidence import Witness, doubts
from loadtests.load_result import LoadResult
from loadtests.open_loop import HttpDoor, offer
from loadtests.traffic import Traffic, users_of
from release.bundle import read_manifest

WORKER_UNITS, ALL_UNITS = 6.0, 14.0
MIN_FULL_RATIO = 0.99
WARM_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class RequestCost:
    """At one offered rate; CPU milliseconds a request."""

    rate: float
    unit_ms: float
    floor_ms: float
    api_ms: float
    triton_ms: float
    redis_ms: float
    full_ratio: float
    p95_ms: float

    @property
    def all_ms(self) -> float:
        return self.api_ms + self.triton_ms + self.redis_ms

    def units(self, milliseconds: float) -> float:
        return milliseconds / self.unit_ms


def load(port: int, traffic: Traffic, rate: float, seconds: float) -> LoadResult:
    """An open loop on a loop of its own, so that nothing of the last one is left."""

    async def run() -> LoadResult:
        door = HttpDoor(HOST, port, traffic)
        try:
            return await offer(door, rate, seconds)
        finally:
            await door.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())


def costs_at(
    rig: Rig, rates: list[float], seconds: float, rounds: int, environment: Mapping[str, str]
) -> tuple[list[RequestCost], Part, list[str]]:
    """The cost of a request at each rate, medians over the rounds, the worker that served, and what is in doubt."""
    worker = rig.worker(environment)
    (noop, noop_port), (floor, floor_port) = rig.unit("noop"), rig.unit("floor")
    traffic = Traffic(users_of(rig.settings.bundle))
    parts = {"api": worker, "triton": rig.triton, "redis": rig.redis}
    for port in (noop_port, floor_port, rig.settings.http_port):
        load(port, traffic, min(rates), WARM_SECONDS)
    taken: dict[float, list[RequestCost]] = {rate: [] for rate in rates}
    witness, doubtful = Witness(rig.settings.http_address), set[str]()
    version = read_manifest(rig.settings.bundle).version
    for _ in range(rounds):
        for rate in rates:
            unit, _ = _spent({"unit": noop}, noop_port, traffic, rate, seconds)
            least, _ = _spent({"floor": floor}, floor_port, traffic, rate, seconds)
            witness.begin()
            spent, result = _spent(parts, rig.settings.http_port, traffic, rate, seconds)
            witness.end()
            doubtful.update(doubts(result, witness, traffic.users, version, rig.settings.candidates))
            milliseconds = {f"{name}_ms": value for name, value in {**unit, **least, **spent}.items()}
            taken[rate].append(
                RequestCost(
                    rate, full_ratio=result.level_ratio("FULL"), p95_ms=result.quantile(95) * 1000, **milliseconds
                )
            )
    return [_median(costs) for costs in taken.values()], worker, sorted(doubtful)


def _spent(
    parts: Mapping[str, Part], port: int, traffic: Traffic, rate: float, seconds: float
) -> tuple[dict[str, float], LoadResult]:
    before = {name: cpu_seconds(part) for name, part in parts.items()}
    result = load(port, traffic, rate, seconds)
    n = max(1, result.count(200))
    return {name: (cpu_seconds(part) - before[name]) / n * 1000 for name, part in parts.items()}, result


def _median(costs: list[RequestCost]) -> RequestCost:
    return RequestCost(**{name: statistics.median(asdict(cost)[name] for cost in costs) for name in asdict(costs[0])})


def redis_counters(url: str) -> dict[str, float]:
    """Bytes in and out so far, reads of users so far, and bytes held."""
    with redis.Redis.from_url(url) as client:
        memory, stats = client.info("memory"), client.info("stats")
        reads = client.info("commandstats").get("cmdstat_hmget", {}).get("calls", 0)
    return {
        "sent": stats["total_net_output_bytes"],
        "received": stats["total_net_input_bytes"],
        "reads": reads,
        "held": memory["used_memory_dataset"],
    }


def redis_figures(before: Mapping[str, float], after: Mapping[str, float], users: int) -> dict[str, float]:
    """Bytes that Redis keeps a user, and that it moves for one read of a user."""
    reads = max(1.0, after["reads"] - before["reads"])
    return {
        "bytes_a_user": before["held"] / max(1, users),
        "sent_bytes_a_read": (after["sent"] - before["sent"]) / reads,
        "received_bytes_a_read": (after["received"] - before["received"]) / reads,
    }


def markdown(costs: list[RequestCost], where: dict[str, str]) -> str:
    """The section for RESULTS.md."""
    parts = ("floor", "api", "triton", "redis", "all")
    rows = [
        f"| {cost.rate:g} | {cost.unit_ms:.3f} | "
        + " | ".join(_both(cost, getattr(cost, f"{part}_ms")) for part in parts)
        + f" | {cost.full_ratio:.3f} | {cost.p95_ms:.1f} |"
        for cost in costs
    ]
    return (
        "## CPU a request\n\n`python -m benchmarks.cpu_per_request`: CPU milliseconds a request, in units of the no-op "
        "endpoint in brackets.\nThe floor is the API's where nothing is computed between its read of the user and its "
        f"call to Triton.\n{headline(where)}\n"
        "| requests/s | unit | floor | API | Triton | Redis | all | FULL | p95 ms |\n"
        "|---|---|---|---|---|---|---|---|---|\n"
        + "\n".join(rows) + "\n"
    )  # fmt: skip


def _both(cost: RequestCost, milliseconds: float) -> str:
    return f"{milliseconds:.2f} ({cost.units(milliseconds):.1f})"


def document(
    rig: Rig, costs: list[RequestCost], worker: Part, where: dict[str, str], before: Mapping[str, float]
) -> dict[str, Any]:
    """Everything that the capacity model needs, in JSON's types."""
    users = len(users_of(rig.settings.bundle))
    return {
        "measured": where,
        "candidates": rig.settings.candidates,
        "requests": [asdict(cost) for cost in costs],
        "redis": redis_figures(before, redis_counters(rig.settings.redis_address), users),
        "worker_own_bytes": own_bytes(worker),
    }


def main() -> int:
    asking = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asking.add_argument("--bundle", type=Path, help="default: the newest one's data under the reference graph")
    asking.add_argument("--rates", type=float, nargs="+", default=[50.0, 100.0])
    asking.add_argument("--seconds", type=float, default=20.0)
    asking.add_argument("--rounds", type=int, default=3)
    asking.add_argument("--instances", type=int, default=1, help="of the model in Triton")
    asking.add_argument("--set", action="append", default=[], metavar="NAME=VALUE", help="a setting of the worker")
    asking.add_argument("--json", type=Path)
    asking.add_argument("--gate", action="store_true")
    asking.add_argument("--write", action="store_true", help="put the table into benchmarks/RESULTS.md")
    asked = asking.parse_args()
    environment = dict(setting.split("=", 1) for setting in asked.set)
    if asked.write and environment:
        asking.error("--write is for the settings that everybody has")
    where = measured_on()
    with running(reference_bundle(asked.bundle), asked.instances) as rig:
        before = redis_counters(rig.settings.redis_address)
        costs, worker, doubtful = costs_at(rig, asked.rates, asked.seconds, asked.rounds, environment)
        told = document(rig, costs, worker, where, before)
    print(markdown(costs, where))
    if asked.write:
        write_block("cpu_per_request", markdown(costs, where))
    if asked.json:
        asked.json.write_text(json.dumps(told, indent=1) + "\n")
    lowest = min(costs, key=lambda cost: cost.rate)
    if lowest.full_ratio < MIN_FULL_RATIO:
        print(f"only {lowest.full_ratio:.1%} of the answers were FULL: this says nothing", file=sys.stderr)
        return 1
    print(*(f"BROKEN: {doubt}" for doubt in doubtful), sep="\n", end="\n" if doubtful else "")
    over = bool(doubtful) or lowest.units(lowest.api_ms) > WORKER_UNITS or lowest.units(lowest.all_ms) > ALL_UNITS
    return int(asked.gate and over)


if __name__ == "__main__":
    sys.exit(main())
