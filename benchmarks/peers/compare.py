"""Ours beside two others: the same machine, Redis and Triton, the same run, one worker each.

    python -m benchmarks.peers.compare librecommender|assembled [--bundle FOLDER] [--json FILE] [--gate] [--write]

``librecommender``: LibRecommender's embed serving, in an environment of its own under STREAMREC_HOME, made by the first
run. ``assembled``: what is put together from the documentation of FastAPI, Feast, FAISS and tritonclient.

Method: one is running at a time. The peer is offered rising rates, by steps of a quarter and from the last one that it
held by steps of a twentieth, until it answers fewer than 95 % of what it is offered; the last rate that it held is its
saturation rate. That rate is then offered to the peer and to ours in turn, three times; told is the median of each
one's p95 and their ratio. Users are known to both.
Ours is ranked by the reference graph unless ``--bundle`` names a bundle; the peer's data is that bundle's.
``--gate``: ends with status 1 if our p95 is not lower (librecommender), or not ten times lower (assembled).
``--write``: puts the table into benchmarks/RESULTS.md.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import orjson

from app.processes.process import Part, child_environment
from benchmarks.cpu_per_request import load
from benchmarks.machine import headline, measured_on
from benchmarks.reference import reference_bundle
from benchmarks.results import write_block
from benchmarks.rig import HOST, Rig, running, streamrec_home
from loadtests.load_result import LoadResult
from loadtests.traffic import Traffic, users_of
from release.bundle import Bundle

PEERS = Path(__file__).parent
HELD_RATIO = 0.95
STEPS = (1.25, 1.05)
GRACE_SECONDS = 0.3  # for the last answer
FIRST_RATE = 2.0
ROUNDS = 3
REQUIRED = {"librecommender": 1.0, "assembled": 10.0}
INSTALL_SECONDS = 1800

Name = Literal["librecommender", "assembled"]


@dataclass(frozen=True, slots=True)
class PeerTraffic(Traffic):
    """The same users in the words of another service."""

    path: str = "/"
    field_names: tuple[str, str] = ("user_id", "limit")

    def requests(self, host: str) -> Iterator[tuple[str, bytes]]:
        made = [(user, self._request(host, user)) for user in self.drawn()]
        while True:
            yield from made

    def _request(self, host: str, user: str) -> bytes:
        body = orjson.dumps(dict(zip(self.field_names, (user, self.limit), strict=True)))
        head = f"POST {self.path} HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        return f"{head}content-length: {len(body)}\r\n\r\n".encode() + body


def librecommender(rig: Rig, port: int) -> tuple[Part, str, tuple[str, str]]:
    """Trained on the bundle's own events and serving; its path and the names of its fields."""
    python = environment("librecommender")
    folder = rig.settings.home / "librecommender"
    folder.mkdir()
    ratings = folder / "ratings.csv"
    _write_ratings(Bundle.load(rig.settings.bundle), ratings)
    here = PEERS / "librecommender"
    subprocess.run(
        [python, here / "train.py", ratings, folder / "model", str(rig.settings.redis_port), "1"],
        check=True, timeout=600, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    given = {**os.environ, "REDIS_HOST": f"{HOST}:{rig.settings.redis_port}/1"}
    part = rig.program("librecommender", [str(here / "serve.py"), str(port)], port, given, python)
    return part, "/embed/recommend", ("user", "n_rec")


def assembled(rig: Rig, port: int) -> tuple[Part, str, tuple[str, str]]:
    """With its features in the same Redis; its path and the names of its fields."""
    folder = rig.settings.home / "assembled"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from benchmarks.peers.assembled.store import fill, open_store

        fill(open_store(rig.settings.redis_address, folder), Bundle.load(rig.settings.bundle), folder)
    arguments = ["-m", "benchmarks.peers.assembled.service", str(port), str(rig.settings.bundle), str(folder)]
    part = rig.program("assembled", arguments, port, child_environment(rig.settings))
    return part, "/recommend", ("user_id", "limit")


STARTS: dict[str, Callable[[Rig, int], tuple[Part, str, tuple[str, str]]]] = {
    "librecommender": librecommender,
    "assembled": assembled,
}


def environment(name: str) -> Path:
    """The Python of a peer's own environment under STREAMREC_HOME, made where it is missing."""
    folder = streamrec_home() / f"venv-{name}"
    python = folder / "bin" / "python"
    wanted = PEERS / name / "requirements.txt"
    done = folder / ".installed"
    if not done.exists() or done.stat().st_mtime < wanted.stat().st_mtime:
        subprocess.run([sys.executable, "-m", "venv", folder], check=True, timeout=120)
        pip: list[str | Path] = [python, "-m", "pip", "install", "--quiet", "--requirement", wanted]
        subprocess.run(pip, check=True, timeout=INSTALL_SECONDS)
        done.touch()
    return python


def _write_ratings(bundle: Bundle, path: Path) -> None:
    users, items = bundle.tables.users, bundle.tables.items
    with path.open("w") as file:
        file.write("user,item,label\n")
        for row in range(len(users)):
            history, user = users.history(row), users.ids.text(row)
            places = zip(history.item_row.tolist(), history.rating.tolist(), strict=True)
            file.writelines(f"{user},{items.ids.text(item)},{rating}\n" for item, rating in places)


def saturation(offer: Callable[[float], LoadResult]) -> float:
    """The highest rate, by steps, of which at least ``HELD_RATIO`` are answered in the time they are offered."""
    held = FIRST_RATE
    for step in STEPS:
        while _holds(offer(held * step)):
            held *= step
    return held


def _holds(result: LoadResult) -> bool:
    return result.availability >= HELD_RATIO and _lasted(result) <= result.seconds / HELD_RATIO + GRACE_SECONDS


def _lasted(result: LoadResult) -> float:
    """Seconds from the first due request to the last answer: a queue that grew is still being answered."""
    return max((part.due + part.seconds for part in result.samples), default=0.0)


def compare(rig: Rig, name: Name, seconds: float) -> dict[str, float]:
    """Both services' p95 at the peer's saturation rate."""
    users = users_of(rig.settings.bundle)
    port = next(rig.ports)
    worker = rig.worker()
    peer, path, words = STARTS[name](rig, port)
    theirs, ours = PeerTraffic(users, cold=0.0, path=path, field_names=words), Traffic(users, cold=0.0)
    if load(port, theirs, FIRST_RATE, 3.0).availability < 1.0:
        raise SystemExit(f"{name} does not answer, the last of {peer.log}:\n{peer.last_words(40)}")
    load(rig.settings.http_port, ours, 20.0, 3.0)
    rate = saturation(lambda offered: load(port, theirs, offered, seconds))
    p95: dict[str, list[float]] = {"peer": [], "ours": []}
    full, answered = [], []
    for _ in range(ROUNDS):
        their_result = load(port, theirs, rate, seconds)
        result = load(rig.settings.http_port, ours, rate, seconds)
        p95["peer"].append(their_result.quantile(95) * 1000)
        p95["ours"].append(result.quantile(95) * 1000)
        full.append(result.level_ratio("FULL"))
        answered.append(their_result.availability)
    peer.stop()
    worker.stop()
    middle = {who: statistics.median(values) for who, values in p95.items()}
    return {
        "saturation_rate": rate,
        "peer_p95_ms": middle["peer"],
        "our_p95_ms": middle["ours"],
        "times_lower": middle["peer"] / middle["ours"],
        "peer_availability": statistics.median(answered),
        "our_full_ratio": statistics.median(full),
    }


def markdown(name: Name, told: dict[str, float], where: dict[str, str]) -> str:
    """The section for RESULTS.md."""
    whom = {"librecommender": "LibRecommender's serving", "assembled": "the stack put together from documentation"}
    return (
        f"## Beside {whom[name]}\n\n`python -m benchmarks.peers.compare {name}`, at the rate at which the peer "
        f"saturates, {told['saturation_rate']:.3g} requests/s; ranked by the reference graph.\n{headline(where)}\n"
        "| | p95 ms | answered |\n|---|---|---|\n"
        f"| peer | {told['peer_p95_ms']:.1f} | {told['peer_availability']:.1%} |\n"
        f"| ours | {told['our_p95_ms']:.1f} | {told['our_full_ratio']:.1%} at FULL |\n\n"
        f"The peer's p95 is {told['times_lower']:.2f} times ours; promised is more than {REQUIRED[name]:g}.\n"
    )


def main() -> int:
    asking = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asking.add_argument("peer", choices=sorted(STARTS))
    asking.add_argument("--bundle", type=Path)
    asking.add_argument("--seconds", type=float, default=10.0)
    asking.add_argument("--json", type=Path)
    asking.add_argument("--gate", action="store_true")
    asking.add_argument("--write", action="store_true")
    asked = asking.parse_args()
    where = measured_on()
    if asked.peer == "librecommender":
        environment("librecommender")  # before anything runs beside it
    with running(reference_bundle(asked.bundle)) as rig:
        told = compare(rig, asked.peer, asked.seconds)
    document = {"peer": asked.peer, "measured": where, **told}
    print(json.dumps(document, indent=1))
    if asked.json:
        asked.json.write_text(json.dumps(document, indent=1) + "\n")
    if asked.write:
        write_block(f"peer {asked.peer}", markdown(asked.peer, told, where))
    return int(asked.gate and told["times_lower"] <= REQUIRED[asked.peer])


if __name__ == "__main__":
    sys.exit(main())
