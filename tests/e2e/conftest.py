"""The whole service as `make serve` starts it, in a home of its own, over a bundle trained on the real data."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from features.contract import CONTRACT
from release.bundle import Bundle
from reranking.configured import DEFAULT

ROOT = Path(__file__).resolve().parents[2]
DATA = ROOT / "data" / "movielens-small"
READY_SECONDS = 120.0
# Ten times the usual: what these tests show must not hang on how busy the machine is. `make chaos` has the usual ones.
PATIENT = {
    f"STREAMREC_{name}_MS": str(10 * usual)
    for name, usual in {
        "DEADLINE": 150,
        "MAX_DEADLINE": 1000,
        "FEATURES": 25,
        "RETRIEVAL": 40,
        "RANKING": 80,
        "RERANKING": 10,
        "SLOW_FEATURES": 20,
        "SLOW_RETRIEVAL": 35,
        "SLOW_RANKING": 70,
        "MAX_DELAY": 100,
    }.items()
}


@pytest.fixture(scope="session")
def trained_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle trained on the quick start's data: once for unchanged code, kept under STREAMREC_HOME.

    In a process of its own, as a person would: a browser driven from this one holds its event loop.
    """
    home = Path(os.environ.get("STREAMREC_HOME", ROOT / ".streamrec"))
    kept = home / "test-bundles" / _fingerprint()
    if not (kept / "manifest.json").exists():
        scratch = tmp_path_factory.mktemp("trained") / "bundle"
        command = [sys.executable, "-m", "app.cli", "train", "--data", str(DATA), "--out", str(scratch)]
        environ = os.environ | {"STREAMREC_HOME": str(scratch.parent)}
        subprocess.run(command, check=True, cwd=ROOT, env=environ)
        kept.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(kept, ignore_errors=True)
        shutil.copytree(scratch, kept)
    return Bundle.load(kept)


def _fingerprint() -> str:
    sources = [path for folder in ("training", "features", "retrieval") for path in (ROOT / folder).glob("*.py")]
    whole = hashlib.sha256(CONTRACT.hash.encode())
    for path in sorted([*sources, *DATA.glob("*.parquet"), DATA / "dataset.toml", DATA / "gates.toml"]):
        whole.update(path.read_bytes())
    return whole.hexdigest()[:16]


@dataclass
class Service:
    """A running `streamrec serve` and how to talk to it."""

    process: subprocess.Popen[str]
    environ: dict[str, str]
    home: Path

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.environ['STREAMREC_HTTP_PORT']}"

    @property
    def grpc_address(self) -> str:
        return f"127.0.0.1:{self.environ['STREAMREC_GRPC_PORT']}"

    def ask(self, **query: Any) -> dict[str, Any]:
        """The answer to a POST; it must be a 200."""
        response = httpx.post(f"{self.address}/v1/recommendations", json={"debug": True, **query}, timeout=10)
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    def ask_at_full(self, **query: Any) -> dict[str, Any]:
        """The same, once it is at FULL: a machine as busy as one that runs tests may be late now and then."""
        answers: list[dict[str, Any]] = []

        def full() -> bool:
            answers.append(self.ask(**query))
            return bool(answers[-1]["degradation"]["level"] == "FULL")

        eventually(full, seconds=10)
        return answers[-1]

    def level(self, user_id: str = "42") -> str:
        return str(self.ask(user_id=user_id)["degradation"]["level"])

    def run(self, *arguments: str, seconds: float = 120) -> subprocess.CompletedProcess[str]:
        """One `streamrec` command with this service's settings."""
        command = [sys.executable, "-m", "app.cli", *arguments]
        return subprocess.run(
            command, env=self.environ, cwd=ROOT, capture_output=True, text=True, timeout=seconds, check=False
        )

    def pid_of(self, port_setting: str) -> int:
        """The process that listens on the port of a setting, found through /proc."""
        port = int(self.environ[port_setting])
        inodes = {
            line.split()[9]
            for table in ("/proc/net/tcp", "/proc/net/tcp6")
            for line in Path(table).read_text().splitlines()[1:]
            if line.split()[3] == "0A" and int(line.split()[1].rsplit(":", 1)[1], 16) == port
        }
        for fd in Path("/proc").glob("[0-9]*/fd/*"):
            try:
                if (target := str(fd.readlink())).startswith("socket:[") and target[8:-1] in inodes:
                    return int(fd.parts[2])
            except OSError:
                continue
        raise AssertionError(f"nobody listens on {port}")


def eventually(check: Callable[[], bool], seconds: float) -> float:
    """Poll until ``check`` holds; the seconds that took. Fails after ``seconds``."""
    started = time.monotonic()
    while time.monotonic() - started < seconds:
        if check():
            return time.monotonic() - started
        time.sleep(0.05)
    raise AssertionError(f"not so after {seconds} s")


def start(home: Path, free_port: Callable[[], int], triton_venv: Path, **more: str) -> Service:
    """`streamrec serve` in a home of its own; returns when it is ready, or fails with what it said."""
    ports = ("HTTP", "GRPC", "REDIS", "TRITON_GRPC", "TRITON_HTTP", "TRITON_METRICS")
    environ = {name: value for name, value in os.environ.items() if not name.startswith("STREAMREC_")}
    environ |= {f"STREAMREC_{port}_PORT": str(free_port()) for port in ports}
    environ |= {"STREAMREC_HOME": str(home), "STREAMREC_TRITON_VENV": str(triton_venv)}
    environ |= {
        "STREAMREC_MAX_MODEL_AGE_MS": "31536000000",
        **PATIENT,
        **more,
    }  # the bundle is kept for as long as the code
    with (home / "serve.out").open("w") as said:
        process = subprocess.Popen(
            [sys.executable, "-m", "app.cli", "serve"], env=environ, cwd=ROOT, stdout=said, stderr=said, text=True
        )
    service = Service(process, environ, home)
    end = time.monotonic() + READY_SECONDS
    while "Ctrl-C stops everything" not in (home / "serve.out").read_text():
        if process.poll() is not None or time.monotonic() > end:
            process.kill()
            raise AssertionError(f"the service did not start:\n{(home / 'serve.out').read_text()}")
        time.sleep(0.1)
    return service


def stop(service: Service, seconds: float = 30) -> int:
    service.process.send_signal(signal.SIGTERM)
    return service.process.wait(seconds)


@pytest.fixture(scope="session")
def service(
    trained_bundle: Bundle,
    tmp_path_factory: pytest.TempPathFactory,
    free_port: Callable[[], int],
    triton_venv: Path,
) -> Iterator[Service]:
    """Two workers, Redis and Triton, all real; tests leave it as they found it: at FULL."""
    home = tmp_path_factory.mktemp("service")
    training = home / "training" / "bundle"
    shutil.copytree(trained_bundle.path, training)
    _place(training, home)
    # Without memory a user's slate stands still until something happens, which is what most tests compare by.
    rules = ",".join(name for name in DEFAULT.split(",") if name != "memory")
    more = {"STREAMREC_WORKERS": "2", "STREAMREC_REQUIRE_TRITON": "1", "STREAMREC_REPLAY_RATIO": "1"}
    service = start(home, free_port, triton_venv, STREAMREC_RULES=rules, **more)
    yield service
    if service.process.poll() is None:
        stop(service)


def _place(folder: Path, home: Path) -> None:
    """A published bundle that neither Triton nor Redis has heard of: what a machine finds after losing both."""
    placed = home / "bundles" / "1"
    placed.parent.mkdir()
    folder.rename(placed)
    (placed / "publication.json").write_text(json.dumps({"number": 1, "published_at": time.time()}))
    (home / "current").symlink_to(placed)
