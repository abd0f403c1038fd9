"""What the rules cost a request, in CPU time of the worker: 500 candidates, a slate of 20.

    python -m benchmarks.reranking [--slates 2000]

Method: random slates over 10,000 items with every optional column, vectors of 64 numbers, a running campaign and 5 %
promised to five of forty groups; each rule alone, on the order that the ranker left, and all defaults in their order.
Told are the median and the 95th percentile of the CPU time of one application, after a warm-up.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence

import numpy as np

from domain.candidates import Candidates
from domain.catalogue import Facets
from domain.deadline import Deadline
from domain.slate import Audience, Campaign, ExposureQuota, Slate, SlateContext
from domain.stages import Rule
from reranking.apply import apply
from reranking.configured import DEFAULT, RULES, configured
from training.threads import single_threaded

ITEMS, CANDIDATES, LIMIT, GROUPS, DAY = 10_000, 500, 20, 40, 86_400.0
WARM_UP = 50


def slates(n: int) -> list[Slate]:
    random = np.random.default_rng(0)
    owed = np.zeros(GROUPS, np.float32)
    owed[:5] = 1.0
    facets = Facets(
        random.integers(0, 1000, ITEMS).astype(np.int32),
        tuple(map(str, range(1000))),
        np.zeros(ITEMS, np.int32),
        ("en",),
        random.choice(np.array([0, 6, 12, 16, 18], np.float32), ITEMS),
        True,
        random.random((ITEMS, 5)) < 0.5,
        ("DE", "FR", "IT", "ES", "PL"),
        -random.exponential(100 * DAY, ITEMS),
    )
    context = SlateContext(
        now=0.0,
        genres=random.random((ITEMS, 20)) < 0.15,
        campaigns=(Campaign("one", random.permutation(ITEMS)[:50].astype(np.int32), (2, 11), -1.0, 1.0, 0.1),),
        vectors=random.normal(size=(ITEMS, 64)).astype(np.float32),
        removed=random.random(ITEMS) < 0.01,
        facets=facets,
        audience=Audience(16.0, "DE"),
        quota=ExposureQuota(0.05, random.integers(0, GROUPS, ITEMS).astype(np.int32), owed),
    )
    return [Slate(_candidates(random), LIMIT, context) for _ in range(n)]


def _candidates(random: np.random.Generator) -> Candidates:
    rows = random.permutation(ITEMS)[:CANDIDATES].astype(np.int32)
    columns = random.random((CANDIDATES, 4)).astype(np.float32)
    return Candidates(rows, -np.sort(-random.random(CANDIDATES)).astype(np.float32), columns, columns)


def seconds(rules: Sequence[Rule], made: Sequence[Slate]) -> tuple[float, float]:
    """Median and 95th percentile of one application."""
    taken = []
    for slate in [*made[:WARM_UP], *made]:
        started = time.process_time_ns()
        apply(rules, slate, Deadline.after(60))
        taken.append((time.process_time_ns() - started) / 1e9)
    return float(np.median(taken[WARM_UP:])), float(np.percentile(taken[WARM_UP:], 95))


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--slates", type=int, default=2000)
    options = asked.parse_args()
    single_threaded()
    made = slates(options.slates)
    print("| rules | median | p95 |\n|---|---|---|")
    for order in (*RULES, DEFAULT):
        median, p95 = seconds(configured(order), made)
        print(f"| `{order}` | {median * 1e6:.0f} us | {p95 * 1e6:.0f} us |")


if __name__ == "__main__":
    main()
