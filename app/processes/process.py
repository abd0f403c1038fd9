"""A program that runs beside us: started, waited for, and ended with all it started.

Each runs in a session of its own, so that Ctrl-C reaches the supervisor only, and ends with this process, even if that
is killed.
"""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from app.settings import Settings, variable_of
from domain.errors import StartError

TIED = Path(__file__).with_name("tied.py")
LOG_LINES = 12
POLL_SECONDS = 0.02


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """A running program, the address it serves and the file its output goes to.

    ``ready`` says whether it serves yet, which may take ``ready_seconds``; one without such a moment is ready at once.
    """

    name: str
    process: subprocess.Popen[bytes]
    address: str
    log: Path
    log_start: int  # bytes that were in the log before
    ready: Callable[[], bool] = lambda: True
    ready_seconds: float = 0.0

    def __repr__(self) -> str:
        state = "running" if self.running else f"ended with {self.process.returncode}"
        return f"Part({self.name}, pid {self.process.pid}, {self.address}, {state})"

    @property
    def running(self) -> bool:
        return self.process.poll() is None

    def terminate(self) -> None:
        """Ask it to end, and do not wait."""
        if self.running:
            self.process.terminate()

    def stop(self, seconds: float = 10.0) -> None:
        """Ask it to end; after ``seconds`` end it, and what it left behind in its session, by force."""
        self.terminate()
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.process.wait(seconds)
        self.kill()

    def kill(self) -> None:
        """End it and all its children now."""
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()

    def last_words(self, lines: int = LOG_LINES) -> str:
        """The last lines of its output, indented."""
        with self.log.open("rb") as file:
            file.seek(self.log_start)
            text = file.read().decode(errors="replace")
        return "\n".join(f"    {line[:300]}" for line in text.splitlines()[-lines:])


def launch(
    name: str,
    program: Sequence[object],
    address: str,
    log: Path,
    env: Mapping[str, str],
    pass_fds: Sequence[int] = (),
) -> Part:
    """Start ``program`` (an absolute path and its arguments) and do not wait for it; raises ``StartError``."""
    log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-I", "-S", str(TIED), str(os.getpid()), *map(str, program)]
    try:
        with log.open("ab") as output:
            start = output.tell()
            process = subprocess.Popen(  # noqa: S603 - programs found by this file, no shell
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                env=dict(env),
                pass_fds=tuple(pass_fds),
                start_new_session=True,
            )
            return Part(name, process, address, log, start)
    except OSError as error:
        raise StartError(f"{name} cannot be started: {error}") from error


def await_ready(part: Part, ready: Callable[[], bool], seconds: float) -> Part:
    """The part, once ``ready()``; raises ``StartError`` with its last words. If it does not come up, it is ended."""
    try:
        _await(part, ready, seconds)
    except BaseException:
        part.kill()
        raise
    return part


def _await(part: Part, ready: Callable[[], bool], seconds: float) -> None:
    start = time.monotonic()
    while not is_up(part, ready, time.monotonic() - start, seconds):
        time.sleep(POLL_SECONDS)


def is_up(part: Part, ready: Callable[[], bool], waited: float, seconds: float) -> bool:
    """Whether it is ready; raises ``StartError`` if it never will be: it ended, or ``waited`` more than ``seconds``."""
    if ready():
        return True
    if not part.running:
        raise StartError(f"{part.name} ended at start, the last lines of {part.log}:\n{part.last_words()}")
    if waited > seconds:
        raise StartError(f"{part.name} is not ready after {seconds:g} s, see {part.log}:\n{part.last_words()}")
    return False


def require_free(port: int, name: str, setting: str, host: str = "127.0.0.1") -> None:
    """Raise ``StartError`` if something listens on the port; ``setting`` is the field that changes it."""
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartError(
                f"{name} needs port {port} and cannot have it ({error.strerror}): "
                f"end what uses it, or set {variable_of(setting)} to another"
            ) from error


def run_child(name: str, module: list[str], settings: Settings, seconds: float) -> None:
    """Run ``python -m MODULE ARGUMENT...`` to its end, its output ours; raises ``StartError``."""
    child = start_child(module, settings)
    try:
        status = child.wait(seconds)
    except subprocess.TimeoutExpired as error:
        raise StartError(f"{name} is not done after {seconds:g} s") from error
    finally:
        child.kill()
        child.wait()
    if status != 0:
        raise StartError(f"{name} failed with status {status}, see above")


def start_child(module: list[str], settings: Settings) -> subprocess.Popen[bytes]:
    command = [sys.executable, "-I", "-S", str(TIED), str(os.getpid()), sys.executable, "-m", *module]
    environment = child_environment(settings)
    return subprocess.Popen(command, env=environment, stdin=subprocess.DEVNULL, start_new_session=True)  # noqa: S603


def child_environment(settings: Settings) -> dict[str, str]:
    """What children see: our own environment, with the parts' addresses resolved."""
    resolved = {
        "STREAMREC_HOME": str(settings.home),
        "STREAMREC_REDIS_URL": settings.redis_address,
        "STREAMREC_TRITON_URL": settings.triton_address,
        "STREAMREC_BUNDLE": str(settings.bundle),
    }
    root = str(Path(__file__).resolve().parents[1])
    path = os.pathsep.join(filter(None, [root, os.environ.get("PYTHONPATH", "")]))
    return {**os.environ, **resolved, "PYTHONPATH": path}
