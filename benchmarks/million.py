"""A made-up bundle of a million items and users: written, loaded and asked, within the memory stated here.

    python -m benchmarks.million [--items N] [--users N]

Exits 1 if a bound is broken. No Redis and no Triton run, so answers are at SIMPLE_RANKING. What a worker has for itself
is its anonymous memory; the columns are mapped, and the page cache holds them once for all workers.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from app.settings import Settings
from app.wiring import open_serving
from domain.deadline import Deadline
from domain.request import Query
from release.bundle import PUBLICATION, read_manifest

WRITING_GB = 8.0  # peak resident memory while it is written
WORKER_MB = 250.0  # anonymous memory of one worker
RECALL = 0.95
REQUESTS = 200


def main() -> int:
    """0 if every bound holds."""
    arguments = argparse.ArgumentParser(description=__doc__)
    arguments.add_argument("--items", default="1000000")
    arguments.add_argument("--users", default="1000000")
    asked = arguments.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        bundle = Path(scratch, "bundles", "1")
        bundle.parent.mkdir()
        command = ["synth", "--items", asked.items, "--users", asked.users, "--out", str(bundle)]
        subprocess.run([sys.executable, "-m", "app.cli", *command], check=True)
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
        recall = float(read_manifest(bundle).lineage.metrics["two_tower_recall_at_300"])
        size = sum(path.stat().st_size for path in bundle.rglob("*") if path.is_file()) / 1e9
        print(f"written: peak {peak:.2f} GB of {WRITING_GB:g}, folder {size:.2f} GB, recall@300 {recall:.3f}")
        (bundle / PUBLICATION).write_text(json.dumps({"number": 1, "published_at": time.time()}))
        Path(scratch, "current").symlink_to(bundle)
        private = asyncio.run(_served(Path(scratch)))
    return 0 if peak <= WRITING_GB and private <= WORKER_MB and recall >= RECALL else 1


async def _served(home: Path) -> float:
    """The anonymous memory, in MB, of a worker that has answered."""
    started = time.perf_counter()
    serving = await open_serving(Settings(home=home))
    opened = time.perf_counter() - started
    ids = serving.bundle.tables.users.ids
    for at in range(REQUESTS):
        await serving.recommend(Query(ids.text(at * len(ids) // REQUESTS), limit=20), Deadline.after(5))
    await serving.close()
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()[1:]  # noqa: ASYNC240 - nobody is waiting
    held = {line.split(":")[0]: int(line.split()[1]) / 1024 for line in lines}
    print(f"worker: open in {opened:.1f} s, {held['Anonymous']:.0f} MB of its own, {held['Rss']:.0f} MB mapped in all")
    return held["Anonymous"]


if __name__ == "__main__":
    sys.exit(main())
