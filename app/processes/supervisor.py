"""``streamrec serve``: one command that starts Redis, Triton and the workers, and keeps them running.

Start in order (parts, bundle, workers), stop in the opposite one (workers drain first). In between it looks every
second whether everything that should be there is: a dead process is started again, and so is a Triton that could not
start. ``app.processes.restoring`` gives back what Triton and Redis lost. It never stands on the path of a request.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import signal
import socket
import sys
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote

from app.access import open_access
from app.commands import terminal
from app.commands.client import NotAnswering, call
from app.commands.publishing import lost, restore
from app.processes import parts, process
from app.processes.keeper import Keeper
from app.processes.parts import TritonPorts
from app.processes.process import Part, child_environment, run_child
from app.processes.restoring import Restoring
from app.settings import Settings, client_host, variable_of
from domain.errors import StartError, StreamRecError
from release.bundle import Bundle
from release.publish import Echo

WATCH_SECONDS = 1.0
READY_SECONDS = 90.0
TRAINING_SECONDS = 1800.0
PUBLISH_SECONDS = 300.0
STOP_GRACE_SECONDS = 3.0
BACKLOG = 2048

MakeBundle = Callable[[Settings, Echo], Path]


def serve(settings: Settings, make_bundle: MakeBundle | None = None, echo: Echo = terminal.echo) -> int:
    """Run until SIGINT or SIGTERM, then stop everything and return 0; a second signal hurries. Raises ``StartError``.

    ``make_bundle`` trains the first bundle and returns its folder.
    """
    open_access(settings)
    service = Service(settings, make_bundle or train_in_child, echo)
    with _interruptible(), _only_one(settings.home):
        try:
            service.start()
            service.watch()
        except KeyboardInterrupt:
            service.echo("stopping")
        finally:
            service.stop()
    return 0


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM means what Ctrl-C means: ``KeyboardInterrupt`` in the main thread."""
    before = {number: signal.signal(number, signal.default_int_handler) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


@contextlib.contextmanager
def _only_one(home: Path) -> Iterator[None]:
    """Raises ``StartError`` if another supervisor serves from this home."""
    home.mkdir(parents=True, exist_ok=True)
    with (home / "serve.lock").open("a+") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            raise StartError(
                f"process {lock.read().strip()} already serves from {home}: end it, or set {variable_of('home')}"
            ) from error
        lock.truncate(0)
        lock.write(str(os.getpid()))
        lock.flush()
        yield


@dataclass(slots=True, eq=False)
class Service:
    """Everything that ``serve`` runs."""

    settings: Settings
    make_bundle: MakeBundle
    echo: Echo
    parts: list[Keeper] = field(default_factory=list)
    workers: list[Keeper] = field(default_factory=list)
    consumers: list[Keeper] = field(default_factory=list)
    sockets: list[socket.socket] = field(default_factory=list)
    restoring: Restoring = field(init=False)

    def __post_init__(self) -> None:
        self.restoring = Restoring.of(self.settings, self.echo)

    def start(self) -> None:
        """Everything running and ready, in order; raises ``StartError`` and leaves stopping to ``stop``."""
        settings = self.settings
        for folder in (self._metrics, settings.workers_folder):
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir(parents=True)
        listener = self._reserve()
        self._start_redis()
        self._start_triton()
        self._provide_bundle()
        for number in range(settings.workers):
            self._start_worker(number, listener)
        for number in range(settings.consumers):
            self._start_consumer(number)
        self._await_workers()
        self.restoring.start()
        self._tell()

    def watch(self) -> None:
        """Look after everything, until interrupted."""
        while True:
            self.look()
            time.sleep(WATCH_SECONDS)

    def look(self) -> None:
        """See to everything once, without waiting for any of it."""
        for keeper in (*self.parts, *self.workers, *self.consumers):
            keeper.look()

    def stop(self) -> None:
        """Workers finish what is in flight, consumers their batch, then the parts end; a second Ctrl-C hurries."""
        grace = self.settings.stop_seconds + self.settings.drain_seconds + STOP_GRACE_SECONDS
        keepers = (self.workers, self.consumers, self.parts[::-1])
        groups = [[keeper.part for keeper in group if keeper.part is not None] for group in keepers]
        try:
            self.restoring.stop()
            for group in groups:
                _stop_all(group, grace)
        except KeyboardInterrupt:
            self.echo("hurrying")
        finally:
            for part in (part for group in groups for part in group):
                part.kill()
            for reserved in self.sockets:
                reserved.close()

    @property
    def _metrics(self) -> Path:
        return self.settings.home / "metrics"

    def _reserve(self) -> socket.socket:
        """The listening HTTP socket, which workers inherit; and the gRPC port, held without listening.

        The workers share the gRPC port by SO_REUSEPORT; holding it keeps it ours while none of them runs.
        """
        settings = self.settings
        process.require_free(settings.http_port, "HTTP", "http_port", settings.host)
        process.require_free(settings.grpc_port, "gRPC", "grpc_port", settings.host)
        family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
        listener = socket.create_server((settings.host, settings.http_port), family=family, backlog=BACKLOG)
        held = socket.socket(family)
        self.sockets += [listener, held]
        held.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        held.bind((settings.host, settings.grpc_port))
        return listener

    def _start_redis(self) -> None:
        settings = self.settings
        if settings.redis_url is not None:
            return

        def start() -> Part:
            return parts.launch_redis(settings.home, settings.redis_port, settings.redis_server)

        self._keep(self.parts, start)

    def _start_triton(self) -> None:
        settings = self.settings
        if settings.triton_url is not None:
            return
        ports = TritonPorts(settings.triton_grpc_port, settings.triton_http_port, settings.triton_metrics_port)

        def start() -> Part:
            return parts.launch_triton(settings.home, settings.triton_venv, ports)

        try:
            self._keep(self.parts, start)
        except StartError as error:
            if settings.require_triton:
                raise
            self.echo(_banner(f"Triton does not run: {error}", "Serving at SIMPLE_RANKING, without DCN-V2."))
            self.parts.append(Keeper(start, self.echo, None))

    def _keep(
        self, group: list[Keeper], start: Callable[[], Part], on_death: Callable[[Part], object] | None = None
    ) -> None:
        part = start()
        process.await_ready(part, part.ready, part.ready_seconds)
        self.echo(f"{part.name} at {part.address}, pid {part.process.pid}")
        group.append(Keeper(start, self.echo, part, on_death or (lambda _: None)))

    def _provide_bundle(self) -> None:
        """A published bundle, trained if there is none, and the parts knowing it."""
        settings = self.settings
        if not (settings.bundle / "manifest.json").exists():
            if settings.bundle != settings.home / "current":
                raise StartError(f"no bundle in {settings.bundle} (setting {variable_of('bundle')})")
            folder = self.make_bundle(settings, self.echo)
            run_child("publishing", ["app.commands.publishing", "publish", str(folder)], settings, PUBLISH_SECONDS)
        elif lost(settings):
            self._restore_before_serving()

    def _restore_before_serving(self) -> None:
        """What fails here is tried again while serving, which works without it, one rung or two down."""
        try:
            done = restore(self.settings, self.echo)
        except StreamRecError as error:
            raise StartError(f"restoring failed: {error}") from error
        if not done and self.settings.require_triton:
            raise StartError("restoring failed, see above")

    def _start_worker(self, number: int, listener: socket.socket) -> None:
        environment = {**self._environment(), "STREAMREC_HTTP_FD": str(listener.fileno())}
        command = [sys.executable, "-m", "app.main"]
        log = self.settings.home / "logs" / f"worker-{number}.log"

        def start() -> Part:
            return process.launch(
                f"worker {number}", command, self.settings.http_address, log, environment, [listener.fileno()]
            )

        self._keep(self.workers, start, self._forget_worker)

    def _start_consumer(self, number: int) -> None:
        """Not waited for: without it events wait in the log, and the lag says so."""
        command = [sys.executable, "-m", "app.consume", str(number)]
        log = self.settings.home / "logs" / f"consumer-{number}.log"

        def start() -> Part:
            return process.launch(f"consumer {number}", command, "the event log", log, self._environment())

        self._keep(self.consumers, start, self._forget)

    def _environment(self) -> dict[str, str]:
        """What workers and consumers see: where the parts are, and where to count."""
        return {**child_environment(self.settings), "PROMETHEUS_MULTIPROC_DIR": str(self._metrics)}

    def _forget(self, part: Part) -> None:
        from app.metrics import worker_died

        worker_died(part.process.pid, self._metrics)

    def _forget_worker(self, part: Part) -> None:
        self._forget(part)
        (self.settings.workers_folder / f"{part.process.pid}.json").unlink(missing_ok=True)

    def _await_workers(self) -> None:
        """All workers have a heartbeat and the door opens; raises ``StartError`` with a dead worker's last words."""

        def ready() -> bool:
            beating = len(list(self.settings.workers_folder.glob("*.json")))
            return beating >= len(self.workers) and _opens(self.settings.http_address)

        for part in [keeper.part for keeper in self.workers if keeper.part is not None]:
            process.await_ready(part, ready, READY_SECONDS)

    def _tell(self) -> None:
        """The address, a curl line and what it answered."""
        settings = self.settings
        path = f"/v1/recommendations/{quote(_someone(settings.bundle), safe='')}?limit=3"
        status, answer = call(settings.http_address, path, key=settings.key)
        key = f' -H "Authorization: Bearer ${variable_of("key")}"' if settings.api_keys else ""
        self.echo(f"\nStreamRec answers at {settings.http_address} (HTTP) and {_grpc_address(settings)} (gRPC). Try:\n")
        self.echo(f"    curl -s{key} '{settings.http_address}{path}'\n")
        self.echo(f"which answered just now ({status}):\n\n{json.dumps(answer, indent=2, ensure_ascii=False)}\n")
        self.echo(f"Logs are in {settings.home / 'logs'}. Ctrl-C stops everything.")


def train_in_child(settings: Settings, echo: Echo) -> Path:
    """The folder of a bundle trained from the settings' dataset; raises ``StartError``."""
    folder = settings.home / "training" / time.strftime("bundle-%Y%m%d-%H%M%S")
    folder.parent.mkdir(parents=True, exist_ok=True)
    echo(f"no bundle yet: training one from {settings.data} (once, minutes)")
    run_child("training", ["app.cli", "train", "--out", str(folder)], settings, TRAINING_SECONDS)
    return folder


def _stop_all(group: list[Part], seconds: float) -> None:
    """Ask all, then wait for all, ``seconds`` together."""
    end = time.monotonic() + seconds
    for part in group:
        part.terminate()
    for part in group:
        part.stop(max(0.0, end - time.monotonic()))


def _opens(address: str) -> bool:
    try:
        status, _ = call(address, "/readyz")
    except NotAnswering:
        return False
    return status == 200


def _someone(path: Path) -> str:
    """The first user of the bundle: anybody will do to show an answer."""
    users = Bundle.load(path).tables.users.ids
    return users.text(0) if len(users) else "somebody"


def _grpc_address(settings: Settings) -> str:
    return f"{client_host(settings.host)}:{settings.grpc_port}"


def _banner(*lines: str) -> str:
    rule = "=" * 100
    return "\n".join([rule, *lines, rule])
