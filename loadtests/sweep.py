"""Latency against offered rate, as a table, JSON and a picture: where the knee is.

    python -m loadtests.sweep [--bundle FOLDER] [--rates 25,50,100,150,200,250,300] [--seconds 20] [--write]

On Redis, Triton and one worker of its own, over the reference graph unless ``--bundle`` names a bundle. ``--write``
draws docs/img/latency.png and puts table and picture into benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import sys
from collections.abc import Sequence
from pathlib import Path

import uvloop

from app.table import table
from benchmarks.machine import headline, measured_on
from benchmarks.reference import reference_bundle
from benchmarks.results import write_block
from benchmarks.rig import HOST, running
from loadtests.load_result import QUANTILES, LoadResult
from loadtests.open_loop import HttpDoor, offer
from loadtests.traffic import Traffic, users_of

PICTURE = Path(__file__).resolve().parents[1] / "docs" / "img" / "latency.png"
HEADINGS = ("offered/s", "answered/s", "p50", "p95", "p99 ms", "FULL", "sent late p99 ms")
REST_SECONDS = 2.0  # between two rates, for queues to empty and breakers to close


async def sweep(door: HttpDoor, rates: Sequence[float], seconds: float) -> list[LoadResult]:
    """One load after the other, slowest first."""
    results = []
    await offer(door, min(rates), 1.0)
    for rate in sorted(rates):
        results.append(await offer(door, rate, seconds))
        await asyncio.sleep(REST_SECONDS)
    return results


def sweep_table(results: Sequence[LoadResult]) -> str:
    """For a terminal."""
    return table(list(HEADINGS), _rows(results), right=frozenset(range(7)))


def markdown(results: Sequence[LoadResult], where: dict[str, str]) -> str:
    """The section for RESULTS.md."""
    rows = ["| " + " | ".join(row) + " |" for row in (HEADINGS, *_rows(results))]
    rows.insert(1, "|" + "---|" * len(HEADINGS))
    return (
        "## Latency against offered rate\n\n`python -m loadtests.sweep`: open loop, one worker, every part and the "
        f"generator on the same cores, ranked by the reference graph.\n{headline(where)}\n" + "\n".join(rows)
        + "\n\n![p50, p95 and p99 over the offered rate](../docs/img/latency.png)\n"
    )  # fmt: skip


def _rows(results: Sequence[LoadResult]) -> list[tuple[str, ...]]:
    return [
        (
            f"{result.offered:g}",
            f"{result.achieved:.1f}",
            *(f"{result.quantile(percent) * 1000:.1f}" for percent in QUANTILES),
            f"{result.level_ratio('FULL'):.2%}",
            f"{result.sending_delay * 1000:.1f}",
        )
        for result in results
    ]


def draw_sweep(results: Sequence[LoadResult], file: Path) -> None:
    """p50, p95 and p99 over the offered rate, with the ceiling of 200 ms. Needs matplotlib (extra ``load``)."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    figure, axis = plt.subplots(figsize=(9, 5), layout="constrained")
    rates = [result.offered for result in results]
    for percent, colour in zip(QUANTILES, ("#2a9d5c", "#e58a2e", "#d2472f"), strict=True):
        milliseconds = [result.quantile(percent) * 1000 for result in results]
        axis.plot(rates, milliseconds, marker="o", color=colour, label=f"p{percent}")
    axis.axhline(200, color="#999", linestyle="--", linewidth=1)
    axis.set(xlabel="offered requests/s", ylabel="latency, ms", yscale="log")
    axis.legend()
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=110)
    plt.close(figure)


def main() -> int:
    asking = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asking.add_argument("--bundle", type=Path)
    asking.add_argument("--rates", default="25,50,100,150,200,250,300", help="requests a second, commas between")
    asking.add_argument("--seconds", type=float, default=20.0, help="at each rate")
    asking.add_argument("--json", type=Path)
    asking.add_argument("--write", action="store_true", help="write table and picture")
    asked = asking.parse_args()
    rates, where = [float(rate) for rate in asked.rates.split(",")], measured_on()

    async def run(port: int, traffic: Traffic) -> list[LoadResult]:
        door = HttpDoor(HOST, port, traffic)
        try:
            return await sweep(door, rates, asked.seconds)
        finally:
            await door.close()

    with running(reference_bundle(asked.bundle)) as rig, asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        rig.worker()
        results = runner.run(run(rig.settings.http_port, Traffic(users_of(rig.settings.bundle))))
    print(sweep_table(results))
    if asked.json:
        asked.json.write_text(json.dumps([result.document() for result in results], indent=1) + "\n")
    if asked.write:
        draw_sweep(results, PICTURE)
        write_block("sweep", markdown(results, where))
    return 0


if __name__ == "__main__":
    sys.exit(main())
