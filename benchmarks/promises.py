"""The promises of speed, kept or broken, on a service of its own: one command for a quiet machine.

    python -m benchmarks.promises [--bundle FOLDER] [--only steady highest start swap] [--write]

Method: Redis, Triton, one worker and the generator share the machine; the bundle is the reference graph over the newest
bundle's data unless one is named. ``steady`` and ``highest`` are the tables of ``loadtests/budget.toml``, with the
evidence that the answers were ranked. ``start``: from starting a worker to its readiness, the bundle being there; the
slowest of three. ``swap``: another bundle is published by a program of its own under 100 requests/s; the p99 around the
swap is compared with the p99 before the publication began. Ends with status 1 if a promise is broken.
"""

from __future__ import annotations

import argparse
import asyncio
import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path

import uvloop

from app.processes.process import start_child
from benchmarks.machine import headline, measured_on
from benchmarks.reference import reference_bundle
from benchmarks.results import bullets, write_block
from benchmarks.rig import HOST, MEASURED, Rig, running
from loadtests.evidence import Witness, doubts
from loadtests.http_connection import Response
from loadtests.load_result import LoadResult
from loadtests.open_loop import HttpDoor, broken_promises, budget, measured, offer, promises
from loadtests.traffic import Traffic, users_of
from release.bundle import read_manifest

START_SECONDS = 5.0
STARTS = 3
SWAP_RATE, SWAP_RATIO = 100.0, 2.0
CALM_SECONDS, SWAP_SECONDS = 15.0, 60.0  # before the publication begins, and in all
AROUND_SECONDS = 1.0
BUNDLE = re.compile(rb'"bundle":"([^"]*)"')


@dataclass(frozen=True, slots=True)
class Told:
    """One part of the report: rows of its table, and what of it was broken."""

    rows: list[tuple[str, str]]
    broken: list[str] = field(default_factory=list)


def gate(rig: Rig, name: str) -> Told:
    """One table of the budget."""
    table, traffic = budget(name), Traffic(users_of(rig.settings.bundle))
    witness = Witness(rig.settings.http_address)
    result = measured(lambda: HttpDoor(HOST, rig.settings.http_port, traffic), table["rate"], table["seconds"], witness)
    version = read_manifest(rig.settings.bundle).version
    broken = [f"{name}: {line}" for line in broken_promises(result, promises(table))]
    broken += [f"{name}: {line}" for line in doubts(result, witness, traffic.users, version, rig.settings.candidates)]
    latency = ", ".join(f"p{percent} {_ms(result, percent)}" for percent in (50, 95, 99))
    wanted = ", ".join(f"{what} {limit:g}" for what, limit in promises(table).items())
    rows = [
        (f"{name}: {table['rate']:g}/s for {table['seconds']:g} s", f"{latency} ms"),
        (f"{name}: promised", wanted),
        (f"{name}: answered, at FULL", f"{result.availability:.2%}, {result.level_ratio('FULL'):.2%}"),
        (f"{name}: levels and reasons", _told(result)),
        (f"{name}: calls that Triton answered", f"{witness.ranked:g} of {len(result.samples)} requests"),
        (f"{name}: sent late, p99", f"{result.sending_delay * 1000:.1f} ms"),
    ]
    return Told(rows, broken)


def _told(result: LoadResult) -> str:
    """What kept answers from FULL, the most frequent first."""
    counts = [*result.levels.most_common(), *result.reasons.most_common(6)]
    return ", ".join(f"{name} {count / len(result.samples):.2%}" for name, count in counts)


def start(rig: Rig) -> Told:
    """How long a worker takes until it is ready; it is ended again."""
    took = []
    for _ in range(STARTS):
        began = time.monotonic()
        worker = rig.worker()
        took.append(time.monotonic() - began)
        worker.stop()
    slowest = max(took)
    broken = [f"start: {slowest:.1f} s, promised {START_SECONDS:g}"] if slowest > START_SECONDS else []
    each = ", ".join(f"{seconds:.2f}" for seconds in took)
    return Told([(f"start: seconds to ready, promised {START_SECONDS:g}", each)], broken)


@dataclass(slots=True, eq=False)
class Swap:
    """When, in seconds of a load that began at ``began``, the publication began, switched, and was first answered."""

    began: float = 0.0
    publishing: float = 0.0
    switched: float | None = None
    answered: float | None = None
    _serving: bytes = b""

    def inspect(self, _user: str, response: Response) -> None:
        """Of each answer: is it the first from another bundle?"""
        if self.answered is None and (found := BUNDLE.search(response.body)):
            self._serving = self._serving or found[1]
            if found[1] != self._serving:
                self.answered = self.now()

    def now(self) -> float:
        return asyncio.get_running_loop().time() - self.began

    @property
    def around(self) -> tuple[float, float]:
        """From the switch, or a second before the first answer from the new bundle, to a second after that."""
        if self.answered is None or self.switched is None:
            raise RuntimeError("the worker never answered from the new bundle")
        return min(self.switched, self.answered - AROUND_SECONDS), self.answered + AROUND_SECONDS


def swap(rig: Rig, other: Path) -> Told:
    """Publish ``other`` under load."""
    seen = Swap()
    door = HttpDoor(HOST, rig.settings.http_port, Traffic(users_of(rig.settings.bundle)), inspect=seen.inspect)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        result = runner.run(_swapped(rig, other, door, seen))
    return judged(result, seen)


async def _swapped(rig: Rig, other: Path, door: HttpDoor, seen: Swap) -> LoadResult:
    loop = asyncio.get_running_loop()
    await offer(door, 20.0, 1.0)
    seen.began = loop.time()
    load = loop.create_task(offer(door, SWAP_RATE, SWAP_SECONDS, seen.began))
    await asyncio.sleep(CALM_SECONDS)
    seen.publishing, before = seen.now(), rig.settings.bundle.resolve()
    child = start_child(["app.cli", "publish", str(other), "--accept-because", MEASURED], rig.settings)
    try:
        while not load.done():
            if seen.switched is None and rig.settings.bundle.resolve() != before:
                seen.switched = seen.now()
            await asyncio.sleep(0.01)
    finally:
        child.kill()
        child.wait()
        await door.close()
    return await load


def judged(result: LoadResult, seen: Swap) -> Told:
    """The p99 before the publication began, while it went on, and around the swap."""
    calm, publishing = result.between(0.0, seen.publishing), result.between(seen.publishing, seen.around[0])
    around = result.between(*seen.around)
    ratio = around.quantile(99) / calm.quantile(99)
    rows = [
        (f"swap: p99 before, {calm.seconds:.0f} s at {SWAP_RATE:g}/s", f"{_ms(calm, 99)} ms"),
        (f"swap: p99 while it is published, {publishing.seconds:.0f} s", f"{_ms(publishing, 99)} ms"),
        (
            f"swap: p99, p99.9 and worst in the {around.seconds:.1f} s around it",
            f"{_ms(around, 99)}, {_ms(around, 99.9)}, {_ms(around, 100)} ms",
        ),
        (f"swap: p99 around it over p99 before, promised {SWAP_RATIO:g}", f"{ratio:.2f}"),
        ("swap: answered", f"{result.availability:.2%}"),
    ]
    broken = [f"swap: p99 around it is {ratio:.2f} times that before"] if not ratio <= SWAP_RATIO else []
    broken += ["swap: not every request was answered"] if result.availability < 1.0 else []
    return Told(rows, broken)


def _ms(result: LoadResult, percent: float) -> str:
    return f"{result.quantile(percent) * 1000:.1f}"


def markdown(told: list[Told], version: str, where: dict[str, str]) -> str:
    """The section for RESULTS.md."""
    rows = "\n".join(f"| {what} | {value} |" for part in told for what, value in part.rows)
    broken = [line for part in told for line in part.broken]
    return (
        f"## The promises of speed\n\n`make promises`, bundle {version}.\n{headline(where)}\n"
        f"| what | |\n|---|---|\n{rows}\n\n{bullets(broken)}\n"
    )


def main() -> int:
    parts = ("start", "steady", "highest", "swap")
    asking = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asking.add_argument("--bundle", type=Path)
    asking.add_argument("--only", nargs="+", choices=parts, default=parts)
    asking.add_argument("--write", action="store_true", help="put the table into benchmarks/RESULTS.md")
    asked = asking.parse_args()
    where, bundle = measured_on(), reference_bundle(asked.bundle)
    with tempfile.TemporaryDirectory(prefix="streamrec-swap-") as scratch, running(bundle) as rig:
        told = [start(rig)] if "start" in asked.only else []
        rig.worker()
        told += [gate(rig, name) for name in ("steady", "highest") if name in asked.only]
        if "swap" in asked.only:
            told.append(swap(rig, _another(bundle, Path(scratch, "another"))))
    report = markdown(told, read_manifest(bundle).version, where)
    print(report)
    if asked.write:
        write_block("promises", report)
    return int(any(part.broken for part in told))


def _another(bundle: Path, out: Path) -> Path:
    """The same data under a reference graph of other weights, written by a program of its own."""
    words = ["synth", "--like", str(bundle), "--seed", "1", "--out", str(out)]
    subprocess.run([sys.executable, "-m", "app.cli", *words], check=True, stdout=subprocess.DEVNULL)
    return out


if __name__ == "__main__":
    sys.exit(main())
