"""Redis and Triton as local processes: they start, they say why not, and nothing of them is left."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
import redis

from app.processes import parts
from app.processes.parts import TritonPorts, find_libpython, find_redis, inspect_triton, start_redis, start_triton
from app.processes.process import Part, await_ready, launch, require_free
from domain.errors import StartError

FreePort = Callable[[], int]


@pytest.fixture
def taken_port(free_port: FreePort) -> Iterator[int]:
    with socket.create_server(("127.0.0.1", free_port())) as server:
        yield server.getsockname()[1]


@pytest.fixture
def run(tmp_path: Path) -> Iterator[Callable[[str], Part]]:
    """Runs a Python program as a part."""
    started: list[Part] = []

    def start(program: str) -> Part:
        part = launch("Program", [sys.executable, "-c", program], "nowhere", tmp_path / "logs" / "p.log", os.environ)
        started.append(part)
        return part

    yield start
    for part in started:
        part.kill()


def lines(part: Part, n: int) -> list[str]:
    """The first ``n`` lines of its output, once they are there."""
    await_ready(part, lambda: part.log.read_text().count("\n") >= n, 20)
    return part.log.read_text().splitlines()


def gone(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def eventually(true: Callable[[], bool], seconds: float = 20) -> None:
    end = time.monotonic() + seconds
    while not true():
        assert time.monotonic() < end, f"not within {seconds} s"
        time.sleep(0.01)


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[Callable[[int], Part]]:
    with ExitStack() as ended:

        def start(port: int) -> Part:
            part = start_redis(tmp_path, port)
            ended.callback(part.kill)
            return part

        yield start


def test_redis_keeps_what_it_was_given_over_a_restart(
    own_redis: Callable[[int], Part], tmp_path: Path, free_port: FreePort
) -> None:
    port = free_port()
    first = own_redis(port)
    with redis.Redis.from_url(first.address) as client:
        client.set("kept", "yes")
    first.stop()
    assert not first.running
    with redis.Redis.from_url(own_redis(port).address) as client:
        assert client.get("kept") == b"yes"
    assert {path.name for path in tmp_path.iterdir()} == {"redis", "logs"}


def test_a_taken_port_is_named_with_the_setting_that_changes_it(tmp_path: Path, taken_port: int) -> None:
    with pytest.raises(StartError, match=rf"{taken_port}.*STREAMREC_REDIS_PORT"):
        start_redis(tmp_path, taken_port)


def test_tritons_ports_are_checked_before_it_is_started(
    tmp_path: Path, taken_port: int, free_port: FreePort, triton_venv: Path
) -> None:
    with pytest.raises(StartError, match=rf"{taken_port}.*STREAMREC_TRITON_METRICS_PORT"):
        start_triton(tmp_path, triton_venv, TritonPorts(free_port(), free_port(), taken_port))


def test_a_free_port_is_left_free(free_port: FreePort) -> None:
    port = free_port()
    require_free(port, "HTTP", "http_port")
    with socket.create_server(("127.0.0.1", port)):
        pass


def test_a_part_that_dies_at_start_is_reported_with_its_last_words(run: Callable[[str], Part]) -> None:
    part = run("print('I cannot go on'); raise SystemExit(3)")
    with pytest.raises(StartError, match="I cannot go on"):
        await_ready(part, lambda: False, 20)
    assert part.process.returncode == 3


def test_a_part_that_never_gets_ready_is_ended(run: Callable[[str], Part]) -> None:
    part = run("import time; time.sleep(60)")
    with pytest.raises(StartError, match="not ready after"):
        await_ready(part, lambda: False, 0.1)
    assert not part.running


def test_last_words_are_those_of_this_start(run: Callable[[str], Part]) -> None:
    first = run("print('first')")
    first.process.wait()
    second = run("print('second')")
    second.process.wait()
    assert "second" in second.last_words()
    assert "first" not in second.last_words()


def test_a_part_that_will_not_stop_is_ended_by_force_with_its_children(run: Callable[[str], Part]) -> None:
    part = run(
        "import signal, subprocess, sys, time\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import time; time.sleep(60)'])\n"
        "print(child.pid, flush=True)\n"
        "time.sleep(60)"
    )
    child = int(lines(part, 1)[0])
    part.stop(seconds=0.1)
    assert part.process.returncode == -signal.SIGKILL
    eventually(lambda: gone(child))


def test_a_part_ends_when_its_parent_is_killed(run: Callable[[str], Part], tmp_path: Path) -> None:
    parent = run(
        "import os, sys, time\n"
        "from pathlib import Path\n"
        f"sys.path.insert(0, {str(Path.cwd())!r})\n"
        "from app.processes.process import launch\n"
        "program = [sys.executable, '-c', 'import time; time.sleep(60)']\n"
        f"print(launch('Child', program, '', Path({str(tmp_path / 'c.log')!r}), os.environ).process.pid, flush=True)\n"
        "time.sleep(60)"
    )
    child = int(lines(parent, 1)[0])
    parent.process.kill()  # the parent alone, not its session
    parent.process.wait()
    eventually(lambda: gone(child))


def test_triton_runs_without_a_model_and_leaves_no_process(
    start_own_triton: Callable[[Path], Any], tmp_path: Path
) -> None:
    part = start_own_triton(tmp_path).part
    assert part.running
    assert parts._answers(int(part.address.rpartition(":")[2]), "/") is False  # gRPC, not HTTP
    part.stop()
    assert part.process.returncode == 0


def test_no_triton_environment_is_said_with_the_setting(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="STREAMREC_TRITON_VENV"):
        inspect_triton(tmp_path / "nothing")


def test_an_environment_without_triton_is_told_from_one_with_it(tmp_path: Path) -> None:
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", tmp_path / "venv"], check=True)
    with pytest.raises(StartError, match="nvidia-pytriton"):
        inspect_triton(tmp_path / "venv")


@pytest.mark.parametrize("told", ["glibc 2.31", "glibc 2.34", ""])
def test_an_old_c_library_is_refused(told: str) -> None:
    with pytest.raises(StartError, match=r"2\.35"):
        parts._require_glibc(told)


@pytest.mark.parametrize("told", ["glibc 2.35", "glibc 2.41", "glibc 3.0"])
def test_a_new_enough_c_library_is_not(told: str) -> None:
    parts._require_glibc(told)


def test_a_python_without_a_shared_library_is_refused(tmp_path: Path) -> None:
    (tmp_path / "libpython3.11.a").touch()
    with pytest.raises(StartError, match="shared libpython"):
        find_libpython("libpython3.11.a", [str(tmp_path)])
    with pytest.raises(StartError, match="shared libpython"):
        find_libpython("libpython3.11.so.1.0", [str(tmp_path)])


def test_the_redis_that_is_named_is_taken_and_must_be_a_program(tmp_path: Path) -> None:
    assert find_redis(tmp_path, Path("/bin/true")) == Path("/bin/true")
    (tmp_path / "text").write_text("no program")
    with pytest.raises(StartError, match="STREAMREC_REDIS_SERVER"):
        find_redis(tmp_path, tmp_path / "text")


def test_a_packaged_program_without_its_permission_is_copied(tmp_path: Path) -> None:
    packaged = tmp_path / "packaged"
    shutil.copyfile("/bin/true", packaged)
    packaged.chmod(0o644)
    copy = parts._executable(packaged, tmp_path / "home" / "redis-server")
    assert copy != packaged
    assert subprocess.run([copy], check=False).returncode == 0
