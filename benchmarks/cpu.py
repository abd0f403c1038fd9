"""CPU time of other processes, as the kernel's scheduler counts it in ``/proc``.

``schedstat`` counts nanoseconds; the ticks in ``stat`` miss most of a process that runs for less than one at a time.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from app.processes.process import Part

SESSION = 3  # field of /proc/PID/stat, counted after the program's name


def cpu_seconds(part: Part) -> float:
    """What the living threads of a part and of everything it started have used so far: they share a session."""
    return sum(_nanoseconds(pid) for pid in _session(part.process.pid)) / 1e9


def own_bytes(part: Part) -> int:
    """Memory that the part's first process does not share with a file: about what one more of it adds."""
    lines = Path(f"/proc/{part.process.pid}/status").read_text().splitlines()
    return sum(int(line.split()[1]) * 1024 for line in lines if line.startswith(("RssAnon:", "RssShmem:")))


def _session(leader: int) -> Iterator[Path]:
    for path in Path("/proc").glob("[0-9]*"):
        try:
            fields = (path / "stat").read_text().rpartition(")")[2].split()
        except OSError:  # ended in between
            continue
        if int(fields[SESSION]) == leader:
            yield path


def _nanoseconds(process: Path) -> int:
    total = 0
    for path in process.glob("task/*/schedstat"):
        try:
            total += int(path.read_text().split()[0])
        except OSError:  # a thread that ended in between
            continue
    return total
