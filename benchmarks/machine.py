"""Where and when a figure was measured: what stands above every result."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]


def measured_on() -> dict[str, str]:
    """Machine, date, commit, and how busy the machine was with other things."""
    return {
        "machine": f"{os.cpu_count()} cores ({_processor()}), {_memory_gib():.0f} GiB",
        "system": f"{platform.system()} {platform.release()}, Python {platform.python_version()}",
        "date": time.strftime("%Y-%m-%d", time.gmtime()),
        "commit": _commit(),
        "load_average_before": f"{os.getloadavg()[0]:.1f}",
    }


def headline(where: dict[str, str]) -> str:
    """The same in two lines of prose."""
    return (
        f"Machine: {where['machine']}, {where['system']}. Date: {where['date']}. Commit: {where['commit']}. "
        f"Load average before: {where['load_average_before']}.\n"
    )


def _processor() -> str:
    lines = Path("/proc/cpuinfo").read_text().splitlines()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "unknown")


def _memory_gib() -> float:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30


def _commit() -> str:
    told = subprocess.run(
        ["git", "describe", "--always", "--dirty"],  # noqa: S607 - whichever git there is
        cwd=ROOT, capture_output=True, text=True, check=False,
    )  # fmt: skip
    return told.stdout.strip() or "unknown"
