"""The table, the picture and the page of a chaos run."""

from __future__ import annotations

import math
import os
import platform
import shutil
import subprocess
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app.table import table
from domain.degradation import DegradationLevel
from loadtests.scenarios import Outcome

BIN_SECONDS = 0.5
COLOURS = ("#2a9d5c", "#8ab94a", "#e3c13c", "#e58a2e", "#d2472f", "#7d1d3f")
HEADINGS = ("scenario", "expected", "available", "p50", "p95", "p99 ms", "levels", "FULL again s", "promise")

METHOD = """
Method: Redis, Triton and one worker are real processes on one machine, with a fault proxy of the project's own before
Redis and Triton; sources and ranker are broken at their Protocols by `loadtests/chaos_app.py`. The load is open-loop
(latency from the moment a request was due) and shares the machine. Figures are of the time under the fault, mending
included; "FULL again" counts from the dependency's return to the first of 20 answers in a row at `FULL`. Overload has
its capacity fixed by a ranker of 8 slots of 40 ms. The promises are in `loadtests/budget.toml`.
"""


def rows_of(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    return [
        (
            outcome.scenario,
            outcome.expected,
            f"{outcome.during.availability:.2%}",
            *(f"{outcome.during.quantile(percent) * 1000:.1f}" for percent in (50, 95, 99)),
            ", ".join(f"{level} {n / len(outcome.during.samples):.1%}" for level, n in _mix(outcome)),
            "-" if math.isnan(outcome.recovery_seconds) else f"{outcome.recovery_seconds:.1f}",
            "; ".join(outcome.broken) or "kept",
        )
        for outcome in outcomes
    ]


def _mix(outcome: Outcome) -> list[tuple[str, int]]:
    return outcome.during.levels.most_common()


def chaos_table(outcomes: Sequence[Outcome]) -> str:
    """For a terminal."""
    return table(list(HEADINGS), rows_of(outcomes), right=frozenset({2, 3, 4, 5, 7}))


def write_report(outcomes: Sequence[Outcome], file: Path, started: float, bundle: Path) -> None:
    """The page that the README shows: machine, date, commit, method, table."""
    when = time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(started))
    machine = f"{os.cpu_count()} cores, {_processor()}, Python {platform.python_version()}"
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + " --- |" * len(HEADINGS)]
    lines += ["| " + " | ".join(row) + " |" for row in rows_of(outcomes)]
    broken = sum(bool(outcome.broken) for outcome in outcomes)
    verdict = "Every promise was kept." if not broken else f"{broken} scenarios broke a promise."
    head = f"# Chaos\n\nMachine: {machine}. Date: {when}. Commit: {_commit()}. Bundle: {bundle.name}.\n"
    picture = "![rate, latency and levels over the run](../docs/img/chaos.png)"
    file.write_text(f"{head}Written by `make chaos`.\n{METHOD}\n{verdict}\n\n" + "\n".join(lines) + f"\n\n{picture}\n")


def _processor() -> str:
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.machine()


def _commit() -> str:
    git = shutil.which("git")
    if git is None:
        return "unknown"
    told = subprocess.run([git, "describe", "--always", "--dirty"], capture_output=True, text=True, check=False)  # noqa: S603
    return told.stdout.strip() or "unknown"


def draw(outcomes: Sequence[Outcome], file: Path) -> None:
    """Rate, latency and levels over the whole run, a bin every half second. Needs matplotlib (extra ``load``)."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    samples = [(outcome.offset + part.due, part) for outcome in outcomes for part in outcome.whole.samples]
    samples.sort(key=lambda pair: pair[0])
    end = samples[-1][0] + BIN_SECONDS if samples else 1.0
    edges = np.arange(0.0, end + BIN_SECONDS, BIN_SECONDS)
    which = np.digitize([at for at, _ in samples], edges) - 1
    bins = [[part for (_, part), place in zip(samples, which, strict=True) if place == i] for i in range(len(edges))]
    figure, (rate, latency, levels) = plt.subplots(3, 1, figsize=(16, 9), sharex=True, layout="constrained")
    rate.step(edges, [len(held) / BIN_SECONDS for held in bins], where="post", color="#345")
    rate.set_ylabel("requests/s")
    for percent, colour in ((50, "#2a9d5c"), (95, "#d2472f")):
        quantiles = [
            np.percentile([part.seconds * 1000 for part in held], percent) if held else np.nan for held in bins
        ]
        latency.step(edges, quantiles, where="post", color=colour, label=f"p{percent}")
    latency.axhline(200, color="#999", linestyle="--", linewidth=1)
    latency.set_yscale("log")
    latency.set_ylabel("latency, ms")
    latency.legend(loc="upper right")
    below = np.zeros(len(edges))
    for level, colour in zip(DegradationLevel, COLOURS, strict=True):
        share = np.array([sum(part.level == level.name for part in held) / max(1, len(held)) for held in bins])
        levels.bar(edges, share, BIN_SECONDS, below, align="edge", color=colour, label=level.name)
        below += share
    levels.set_ylabel("share of answers")
    levels.set_xlabel("seconds")
    levels.legend(loc="upper center", bbox_to_anchor=(0.5, -0.15), ncols=6)
    for outcome in outcomes:
        for axis in (rate, latency, levels):
            axis.axvline(outcome.offset, color="#ccc", linewidth=0.8)
        rate.annotate(outcome.scenario, (outcome.offset, 1.0), xycoords=("data", "axes fraction"), rotation=60, size=7)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=90)
    plt.close(figure)
