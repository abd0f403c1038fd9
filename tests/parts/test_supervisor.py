"""``streamrec serve`` as one runs it: everything starts, comes back when killed, and ends together."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from app.commands.client import NotAnswering, call
from app.processes.keeper import Keeper
from app.processes.process import Part
from domain.errors import StartError

ROOT = Path(__file__).resolve().parents[2]
PROGRAM = """
import os, sys
from app.settings import Settings
from app.processes.supervisor import serve
from domain.errors import StartError
from tests import tiny_bundle

def make(settings, echo):
    return tiny_bundle.make(settings.home / "training" / "tiny").path

try:
    sys.exit(serve(Settings.from_environment(os.environ), make))
except StartError as error:
    sys.exit(f"StartError: {error}")
"""
PATH = "/v1/recommendations/user-3?limit=5"


@dataclass(frozen=True)
class Served:
    process: subprocess.Popen[bytes]
    address: str
    home: Path
    log: Path

    @property
    def said(self) -> str:
        return self.log.read_text()

    def until(self, true: Callable[[], bool], seconds: float = 60) -> None:
        end = time.monotonic() + seconds
        while not true():
            assert self.process.poll() is None, f"it ended with {self.process.returncode}:\n{self.said}"
            assert time.monotonic() < end, f"not within {seconds} s:\n{self.said}"
            time.sleep(0.05)

    def level(self) -> str:
        status, answer = call(self.address, PATH)
        assert status == 200
        assert len(answer["items"]) == 5
        return str(answer["degradation"]["level"])

    def children(self, program: str) -> list[int]:
        """The pids of the direct children whose command line has ``program`` in it."""
        pids = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        return [int(pid) for pid in pids if program in command_of(int(pid))]


def command_of(pid: int) -> str:
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode()
    except OSError:
        return ""


@pytest.fixture(scope="module")
def environment(
    tmp_path_factory: pytest.TempPathFactory, triton_venv: Path, free_port: Callable[[], int]
) -> dict[str, str]:
    ports = ["HTTP_PORT", "GRPC_PORT", "REDIS_PORT", "TRITON_GRPC_PORT", "TRITON_HTTP_PORT", "TRITON_METRICS_PORT"]
    settings = {
        "HOME": str(tmp_path_factory.mktemp("served")),
        "TRITON_VENV": str(triton_venv),
        "WORKERS": "2",
        "REQUIRE_TRITON": "1",
        **{name: str(free_port()) for name in ports},
    }
    inherited = {name: value for name, value in os.environ.items() if not name.startswith("STREAMREC_")}
    return inherited | {f"STREAMREC_{name}": value for name, value in settings.items()}


@contextlib.contextmanager
def serving(environment: dict[str, str], log: Path) -> Iterator[Served]:
    home = Path(environment["STREAMREC_HOME"])
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", PROGRAM], cwd=ROOT, env=environment, stdout=output, stderr=subprocess.STDOUT
        )
    served = Served(process, f"http://127.0.0.1:{environment['STREAMREC_HTTP_PORT']}", home, log)
    try:
        yield served
    finally:
        process.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(30)
        process.kill()
        process.wait()


@pytest.fixture(scope="module")
def served(environment: dict[str, str], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with serving(environment, tmp_path_factory.mktemp("said") / "first.log") as service:
        service.until(lambda: "Ctrl-C" in service.said)
        yield service


def test_it_trains_publishes_and_shows_an_answer_at_full(served: Served) -> None:
    assert f"curl -s '{served.address}/v1/recommendations/user-0?limit=3'" in served.said
    assert '"level": "FULL"' in served.said
    assert served.level() == "FULL"


def test_it_runs_as_many_workers_as_asked(served: Served) -> None:
    assert len(served.children("app.main")) == 2
    assert len(list((served.home / "workers").glob("*.json"))) == 2


def test_a_killed_triton_comes_back_with_its_model(served: Served) -> None:
    (pid,) = served.children("bin/tritonserver")
    os.kill(pid, signal.SIGKILL)
    served.until(lambda: served.level() == "SIMPLE_RANKING")
    served.until(lambda: served.level() == "FULL")
    assert served.children("bin/tritonserver") != [pid]


def test_a_killed_redis_comes_back_with_the_features(served: Served) -> None:
    (pid,) = served.children("redis-server")
    os.kill(pid, signal.SIGKILL)
    served.until(lambda: served.level() == "STALE_FEATURES")
    served.until(lambda: served.level() == "FULL")


def test_a_killed_worker_is_replaced_and_its_heartbeat_forgotten(served: Served) -> None:
    before = served.children("app.main")
    os.kill(before[0], signal.SIGKILL)
    beating = served.home / "workers"
    served.until(lambda: len(set(served.children("app.main")) - {before[0]}) == 2)
    served.until(lambda: {path.stem for path in beating.glob("*.json")} == set(map(str, served.children("app.main"))))
    assert served.level() == "FULL"


def test_a_second_supervisor_in_the_same_home_is_refused(served: Served, environment: dict[str, str]) -> None:
    second = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert f"process {served.process.pid} already serves" in second.stderr
    assert served.level() == "FULL"


def test_a_taken_http_port_is_named(served: Served, environment: dict[str, str], tmp_path: Path) -> None:
    elsewhere = environment | {"STREAMREC_HOME": str(tmp_path)}
    second = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        cwd=ROOT,
        env=elsewhere,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert second.returncode == 1
    assert "STREAMREC_HTTP_PORT" in second.stderr


def test_sigterm_ends_everything_and_the_next_start_finds_all_in_place(
    served: Served, environment: dict[str, str], tmp_path: Path
) -> None:
    children = served.children("")
    served.process.terminate()
    assert served.process.wait(30) == 0
    assert [pid for pid in children if command_of(pid)] == []
    with pytest.raises(NotAnswering):
        call(served.address, "/livez")
    with serving(environment, tmp_path / "again.log") as again:
        again.until(lambda: "Ctrl-C" in again.said)
        assert again.level() == "FULL"
        assert "user features" not in again.said  # Redis still had them
        again.process.send_signal(signal.SIGINT)
        assert again.process.wait(30) == 0


def test_without_triton_it_serves_degraded_with_a_banner_until_it_can_be_started_or_not_at_all(
    environment: dict[str, str], tmp_path: Path
) -> None:
    without = environment | {"STREAMREC_HOME": str(tmp_path / "home"), "STREAMREC_TRITON_VENV": str(tmp_path / "none")}
    refused = subprocess.run(
        [sys.executable, "-c", PROGRAM], cwd=ROOT, env=without, capture_output=True, text=True, timeout=60, check=False
    )
    assert "no Triton environment" in refused.stderr
    assert refused.returncode == 1
    with serving(without | {"STREAMREC_REQUIRE_TRITON": "0"}, tmp_path / "said.log") as service:
        service.until(lambda: "Ctrl-C" in service.said)
        assert "Serving at SIMPLE_RANKING" in service.said
        assert service.level() == "SIMPLE_RANKING"
        (tmp_path / "none").symlink_to(environment["STREAMREC_TRITON_VENV"])
        service.until(lambda: service.level() == "FULL")  # a Triton that could not start is tried again


class Ended:
    """A part that has just ended."""

    name = "Part"
    running = False
    process: Any = type("Process", (), {"returncode": 1, "pid": 0})

    def kill(self) -> None:
        pass


def test_a_part_that_keeps_dying_is_tried_less_and_less_often() -> None:
    now, said = [0.0], list[str]()

    def start() -> Part:
        raise StartError("still broken")

    keeper = Keeper(start, said.append, Ended(), clock=lambda: now[0])  # type: ignore[arg-type]
    for _ in range(2000):
        keeper.look()
        now[0] += 0.1
    delays = [float(line.rpartition(" in ")[2].removesuffix(" s")) for line in said]
    assert delays[:7] == [0.5, 1, 2, 4, 8, 16, 30]
    assert max(delays) == 30


def test_a_part_that_could_not_start_is_tried_again_and_told_once() -> None:
    now, said, outcomes = [0.0], list[str](), iter([StartError("no program"), StartError("no program"), Running()])

    def start() -> Part:
        outcome = next(outcomes)
        if isinstance(outcome, StartError):
            raise outcome
        return outcome  # type: ignore[return-value]

    keeper = Keeper(start, said.append, None, clock=lambda: now[0])
    for _ in range(40):
        keeper.look()
        now[0] += 0.1
    assert keeper.part is not None
    assert said == [
        "no program: starting it again in 0.5 s",
        "no program: starting it again in 1 s",
        "Part started again, pid 7",
    ]


class Running:
    """A part that runs."""

    name = "Part"
    running = True
    process: Any = type("Process", (), {"pid": 7})
    ready_seconds = 0.0

    def ready(self) -> bool:
        return True
