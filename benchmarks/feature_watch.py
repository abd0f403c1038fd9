"""What the skew watch costs a request, in CPU time of the worker.

    python benchmarks/feature_watch.py [--requests 64000] [--rounds 7]

Method: one made-up user over random bins of the real shape; ``rounds`` times ``requests`` calls, the median told. The
batches that are counted now and then are in it, and told by themselves as well: they are the longest pause.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from app.beside.feature_watch import BATCH, FeatureWatch
from domain.catalogue import History
from domain.clock import LiveClock
from domain.user import Freshness, UserFeatures
from features.contract import CONTRACT
from features.counts import Bins

EDGES, AGES = 12, 12
NOW = 1_500_000_000.0


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--requests", type=int, default=64_000)
    asked.add_argument("--rounds", type=int, default=7)
    options = asked.parse_args()
    random = np.random.default_rng(0)
    edges = np.sort(random.random((CONTRACT.numeric.width, EDGES)), axis=1).astype(np.float32)
    watch = FeatureWatch("benchmark", Bins(edges, np.geomspace(1800, 4e6, AGES)), LiveClock())
    numeric = random.random(CONTRACT.numeric.width).astype(np.float32)
    history = History(np.zeros(1, np.int32), np.ones(1, np.float32), np.array([NOW - 60]))
    codes = np.ones(len(CONTRACT.context), np.int32)
    user = UserFeatures(0, numeric, codes, history, NOW, Freshness.FRESH)
    requests = [request_seconds(watch, user, options.requests) for _ in range(options.rounds)]
    batches = [batch_seconds(watch, user) for _ in range(100)]
    told = {
        "request_us": round(statistics.median(requests) * 1e6, 2),
        f"batch_of_{BATCH}_us": round(statistics.median(batches) * 1e6, 1),
        "flushed_bytes": len(watch.count().packed()),
    }
    print(json.dumps(told, indent=1))


def request_seconds(watch: FeatureWatch, user: UserFeatures, n: int) -> float:
    started = time.process_time()
    for _ in range(n):
        watch.read(whole=True)
        watch.saw(user, NOW)
    return (time.process_time() - started) / n


def batch_seconds(watch: FeatureWatch, user: UserFeatures) -> float:
    """The request that fills the buffer."""
    watch.count()
    for _ in range(BATCH - 1):
        watch.saw(user, NOW)
    started = time.perf_counter()
    watch.saw(user, NOW)
    return time.perf_counter() - started


if __name__ == "__main__":
    main()
