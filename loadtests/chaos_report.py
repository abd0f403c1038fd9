"""The table, the picture and the page of a chaos run."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from app.table import table
from benchmarks.machine import headline
from domain.degradation import DegradationLevel
from loadtests.scenarios import Outcome

BIN_SECONDS = 0.5
COLOURS = ("#2a9d5c", "#8ab94a", "#e3c13c", "#e58a2e", "#d2472f", "#7d1d3f")
HEADINGS = ("scenario", "expected", "available", "p50", "p95", "p99 ms", "levels", "FULL again s", "promise")

BEGIN, END = "<!-- make chaos writes from here -->", "<!-- to here -->"

METHOD = """
Method: Redis, Triton and one worker (two under overload and SIGTERM) are real processes on one machine, with a fault
proxy of the project's own before Redis and Triton; sources and ranker are broken at their Protocols by
`loadtests/chaos_app.py`. The load is open-loop (latency from the moment a request was due) and shares the machine.
Faults last 6 s, `both_hung` and `both_slow` 60 s: until a breaker opens requests find out by waiting, which is a second
of any outage. Figures are of the time under the fault, mending included; "FULL again" counts from the dependency's
return to the first of 20 answers in a row at `FULL`. Overload has its capacity fixed by a ranker of 4 slots of 20 ms
(2 where it is 100 requests/s), half of them in each worker, which works on for callers that have given up; "on the full
path" means ranked by it, if need be fewer candidates. The promises are in `loadtests/budget.toml`.
"""


def rows_of(outcomes: Sequence[Outcome]) -> list[tuple[str, ...]]:
    return [
        (
            outcome.scenario,
            outcome.expected,
            f"{outcome.during.availability:.2%}",
            *(f"{outcome.during.quantile(percent) * 1000:.1f}" for percent in (50, 95, 99)),
            _levels(outcome),
            "-" if math.isnan(outcome.recovery_seconds) else f"{outcome.recovery_seconds:.1f}",
            "; ".join(outcome.broken) or "kept",
        )
        for outcome in outcomes
    ]


def _levels(outcome: Outcome) -> str:
    n = len(outcome.during.samples)
    mix = ", ".join(f"{level} {count / n:.1%}" for level, count in outcome.during.levels.most_common())
    return f"{mix}; {outcome.told}" if outcome.told else mix


def chaos_table(outcomes: Sequence[Outcome]) -> str:
    """For a terminal."""
    return table(list(HEADINGS), rows_of(outcomes), right=frozenset({2, 3, 4, 5, 7}))


def write_report(outcomes: Sequence[Outcome], file: Path, where: dict[str, str], bundle: Path) -> None:
    """The whole page: machine, date, commit, method, table."""
    head = f"# Chaos\n\n{headline(where)}Bundle: {bundle.name}. "
    picture = "![rate, latency and levels over the run](../docs/img/chaos.png)"
    file.write_text(
        f"{head}Written by `make chaos`.\n{METHOD}\n{_verdict(outcomes)}\n\n{_markdown(outcomes)}\n\n{picture}\n"
    )


def show_in(readme: Path, outcomes: Sequence[Outcome], where: dict[str, str]) -> None:
    """Put table and picture between the two marks of the README; raises ``ValueError`` where they are not."""
    before, begin, rest = readme.read_text().partition(BEGIN)
    _, end, after = rest.partition(END)
    if not end:
        raise ValueError(f"{readme} has no marks for the table")
    made = f"`make chaos` on {where['date']}, commit {where['commit']}"
    told = f"{made}: {_verdict(outcomes)} Method: [CHAOS.md](benchmarks/CHAOS.md)."
    picture = "![rate, latency and levels over the run](docs/img/chaos.png)"
    readme.write_text(f"{before}{begin}\n{told}\n\n{_markdown(outcomes)}\n\n{picture}\n{end}{after}")


def _verdict(outcomes: Sequence[Outcome]) -> str:
    broken = sum(bool(outcome.broken) for outcome in outcomes)
    return f"{broken} of {len(outcomes)} scenarios broke a promise." if broken else "Every promise was kept."


def _markdown(outcomes: Sequence[Outcome]) -> str:
    lines = ["| " + " | ".join(HEADINGS) + " |", "|" + " --- |" * len(HEADINGS)]
    return "\n".join([*lines, *("| " + " | ".join(row) + " |" for row in rows_of(outcomes))])


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
    levels.legend(loc="upper center", bbox_to_anchor=(0.5, -0.2), ncols=6)
    for outcome in outcomes:
        for axis in (rate, latency, levels):
            axis.axvline(outcome.offset, color="#ccc", linewidth=0.8)
        rate.annotate(outcome.scenario, (outcome.offset, 1.0), xycoords=("data", "axes fraction"), rotation=60, size=7)
    file.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(file, dpi=90)
    plt.close(figure)
