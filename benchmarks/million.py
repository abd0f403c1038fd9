"""A made-up bundle of a million items and users beside MovieLens: is it as fast, does it fit, does it find the nearest?

    python -m benchmarks.million [--bundle FOLDER] [--movielens FOLDER] [--written-users 100000] [--rounds 5] [--write]

Method: without ``--bundle`` the made-up one is written first, which takes minutes, and its peak memory is bounded. Both
are ranked by the reference graph and served by a Redis, a Triton and a worker each, which run side by side while the
open-loop generator offers 50 requests/s to one and the other in turn, after five seconds at half of that, because the
other's turn leaves caches cold; compared are the medians of the p95s. Only
``--written-users`` of the million are written into Redis, at an even distance, and only they ask: writing all takes
minutes more and changes nothing about one read, which is of one key. What a second worker adds is what it holds for
itself (``smaps_rollup``) after the same load; the columns are mapped, and the page cache has them once for all workers.
Recall compares the index with exact search for queries of users. Ends with status 1 if a bound is broken.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import faiss
import numpy as np

from app.processes.process import Part, child_environment
from app.settings import Settings
from benchmarks.cpu_per_request import MIN_FULL_RATIO, load
from benchmarks.machine import headline, measured_on
from benchmarks.reference import reference_bundle
from benchmarks.results import bullets, write_block
from benchmarks.rig import Rig, running
from domain.catalogue import IdTable, Users
from features.contract import CONTRACT
from features.definitions import positive
from features.materialise import restore_user_features
from loadtests.evidence import Witness, doubts
from loadtests.load_result import LoadResult
from loadtests.traffic import Traffic, users_of
from release.bundle import Bundle, read_manifest
from retrieval.two_tower import MAX_HISTORY
from training.synth import recall_of

WRITING_GB = 8.0  # peak resident memory while it is written
WORKER_MB = 250.0  # that a second worker adds
RECALL, RECALL_USERS = 0.95, 200
P95_RATIO = 1.5
RATE, SECONDS, WARM_SECONDS = 50.0, 10.0, 5.0
MB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Sampled:
    """Every so many users of a bundle: those who are written into Redis and ask."""

    wanted: int

    def users(self, users: Users) -> Users:
        """At most ``wanted``, without their histories, which the worker has from the bundle."""
        rows = np.arange(0, len(users), max(1, len(users) // self.wanted))
        ids = IdTable.of(users.ids.text(int(row)) for row in rows)
        return replace(users, ids=ids, features=np.ascontiguousarray(users.features[rows]))

    def write(self, bundle: Bundle, settings: Settings) -> int:
        """Into the Redis of ``settings``, as it is given again what it lost: the bytes of a publication, faster."""
        tables = replace(bundle.tables, users=self.users(bundle.tables.users))
        return restore_user_features(replace(bundle, tables=tables), settings.redis_address)


@dataclass(frozen=True, slots=True)
class Found:
    """What the report tells."""

    p95_ms: dict[str, float]  # medians over the rounds
    added_mb: dict[str, float]  # by the second worker, in the kernel's words
    recall: float
    doubts: list[str]

    @property
    def ratio(self) -> float:
        return self.p95_ms["made up"] / self.p95_ms["movielens"]

    @property
    def broken(self) -> list[str]:
        """What does not hold, a line each."""
        held = {
            f"p95 is {self.ratio:.2f} times that of MovieLens, promised {P95_RATIO:g}": self.ratio <= P95_RATIO,
            f"a second worker adds {self.added_mb['Private']:.0f} MB, promised {WORKER_MB:g}": (
                self.added_mb["Private"] < WORKER_MB
            ),
            f"recall@300 is {self.recall:.3f}, promised {RECALL:g}": self.recall >= RECALL,
        }
        return [line for line, kept in held.items() if not kept] + self.doubts


def measure(movielens: Path, made_up: Path, sampled: Sampled, rounds: int) -> Found:
    with running(movielens) as small:
        small.worker()  # before the next is given ports: it must have taken its own
        with running(made_up, write=sampled.write) as large:
            large.worker()
            asking = _sample(large.settings.bundle, sampled)
            rigs = {"movielens": small, "made up": large}
            users = {"movielens": users_of(small.settings.bundle), "made up": asking}
            p95, doubtful = _by_turns(rigs, users, rounds)
            added = _second_worker(large, asking)
            recall = recall_of_users(Bundle.load(large.settings.bundle))
    return Found(p95, added, recall, doubtful)


def _sample(folder: Path, sampled: Sampled) -> list[str]:
    ids = sampled.users(Bundle.load(folder).tables.users).ids
    return [ids.text(row) for row in range(len(ids))]


def _by_turns(
    rigs: Mapping[str, Rig], users: Mapping[str, Sequence[str]], rounds: int
) -> tuple[dict[str, float], list[str]]:
    """The median p95 in milliseconds by rig, and what is in doubt about the answers."""
    p95: dict[str, list[float]] = {name: [] for name in rigs}
    doubtful = set[str]()
    for _ in range(rounds):
        for name, rig in rigs.items():
            load(rig.settings.http_port, Traffic(users[name]), RATE / 2, WARM_SECONDS)  # cold from the other's turn
            witness = Witness(rig.settings.http_address)
            witness.begin()
            result = load(rig.settings.http_port, Traffic(users[name]), RATE, SECONDS)
            witness.end()
            p95[name].append(result.quantile(95) * 1000)
            version = read_manifest(rig.settings.bundle).version
            found = [*_not_full(result), *doubts(result, witness, users[name], version)]
            doubtful.update(f"{name}: {line}" for line in found)
    return {name: statistics.median(values) for name, values in p95.items()}, sorted(doubtful)


def _not_full(result: LoadResult) -> list[str]:
    full = result.level_ratio("FULL")
    why = ", ".join(f"{reason} {n}" for reason, n in result.reasons.most_common(3))
    return [f"{full:.1%} of the answers were FULL ({why})"] if full < MIN_FULL_RATIO else []


def _second_worker(rig: Rig, users: Sequence[str]) -> dict[str, float]:
    """What one more worker holds after the same load as the first, in MB by the kernel's names."""
    http, grpc = next(rig.ports), next(rig.ports)
    given = {
        **child_environment(rig.settings),
        "STREAMREC_HTTP_PORT": str(http),
        "STREAMREC_GRPC_PORT": str(grpc),
        "PROMETHEUS_MULTIPROC_DIR": str(rig.settings.home / "metrics"),
    }
    second = rig.program("second worker", ["-m", "app.main"], http, given)
    load(http, Traffic(users), RATE, SECONDS)
    return held(second)


def held(part: Part) -> dict[str, float]:
    """MB that a part's process holds. Pss: its share; Private: what nobody else has; Anonymous: what is no file's."""
    lines = Path(f"/proc/{part.process.pid}/smaps_rollup").read_text().splitlines()[1:]
    told = {line.split(":")[0]: int(line.split()[1]) * 1024 / MB for line in lines}
    private = told["Private_Clean"] + told["Private_Dirty"]
    return {"Rss": told["Rss"], "Pss": told["Pss"], "Private": private, "Anonymous": told["Anonymous"]}


def recall_of_users(bundle: Bundle) -> float:
    """Recall@300 of a made-up bundle's index for users as they are served, against exact search.

    The vectors in its index are the tower's embedding of the items, which no trained bundle has.
    """
    users, tower, stars = bundle.tables.users, bundle.tables.user_tower, bundle.manifest.dataset.positive_stars
    unasked = np.concatenate([CONTRACT.session.defaults, CONTRACT.moment.defaults])
    queries = []
    for row in np.linspace(0, len(users) - 1, RECALL_USERS).astype(np.int64).tolist():
        history = users.history(row)
        liked = history.only(positive(history, stars)).latest(MAX_HISTORY)
        if len(liked):
            queries.append(tower.vector(liked, np.concatenate([users.features[row], unasked])))
    return recall_of(faiss.read_index(str(bundle.index_path)), tower.embedding, np.stack(queries))


def markdown(found: Found, versions: Sequence[str], written: str, users: int, where: dict[str, str]) -> str:
    """The section for RESULTS.md."""
    added = ", ".join(f"{kind} {size:.0f}" for kind, size in found.added_mb.items())
    return (
        f"## A million items and users\n\n`python -m benchmarks.million --written-users {users}`: {versions[1]} beside "
        f"{versions[0]}, {RATE:g} requests/s each in turn; {users:,} users were written into Redis, and only they "
        f"asked.{written}\n{headline(where)}\n"
        "| what | | promised |\n|---|---|---|\n"
        f"| p95 ms, MovieLens | {found.p95_ms['movielens']:.1f} | |\n"
        f"| p95 ms, a million | {found.p95_ms['made up']:.1f} | |\n"
        f"| ratio | {found.ratio:.2f} | {P95_RATIO:g} |\n"
        f"| MB that a second worker holds | {added} | Private {WORKER_MB:g} |\n"
        f"| recall@300 of the index | {found.recall:.3f} | {RECALL:g} |\n\n{bullets(found.broken)}\n"
    )


def write_made_up(folder: Path, items: str, users: str) -> tuple[float, str]:
    """Write the bundle; its peak memory in GB, and a sentence on it."""
    words = ["synth", "--items", items, "--users", users, "--out", str(folder)]
    subprocess.run([sys.executable, "-m", "app.cli", *words], check=True)
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1e6
    size = sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e9
    return (
        peak,
        f" Writing it took {peak:.1f} GB of memory at most (bound {WRITING_GB:g}); its folder is {size:.1f} GB.",
    )


def main() -> int:
    asking = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asking.add_argument("--bundle", type=Path, help="a made-up bundle that is there (default: one is written)")
    asking.add_argument("--movielens", type=Path, help="default: the newest one's data under the reference graph")
    asking.add_argument("--items", default="1000000")
    asking.add_argument("--users", default="1000000")
    asking.add_argument("--written-users", type=int, default=100_000)
    asking.add_argument("--rounds", type=int, default=5)
    asking.add_argument("--write", action="store_true", help="put the table into benchmarks/RESULTS.md")
    asked = asking.parse_args()
    where, movielens = measured_on(), reference_bundle(asked.movielens)
    with tempfile.TemporaryDirectory(prefix="streamrec-million-") as scratch:
        made_up, peak, written = asked.bundle or Path(scratch, "bundle"), 0.0, ""
        if asked.bundle is None:
            peak, written = write_made_up(made_up, asked.items, asked.users)
        versions = [read_manifest(folder).version for folder in (movielens, made_up)]
        sampled = Sampled(asked.written_users)
        found = measure(movielens, made_up, sampled, asked.rounds)
    report = markdown(found, versions, written, asked.written_users, where)
    print(report)
    if asked.write:
        write_block("million", report)
    return int(bool(found.broken) or peak > WRITING_GB)


if __name__ == "__main__":
    sys.exit(main())
