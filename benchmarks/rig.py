"""What the benchmarks run on: a real Redis, a real Triton and real workers, each started on free ports.

Everything is written to a folder of its own and ended with the block. The bundle is the one that ``--bundle`` names,
else the newest under STREAMREC_HOME (published, trained, or kept by the tests) that this code can load.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeAlias

from app.commands.publishing import publish_folder, target_of
from app.processes.parts import TritonPorts, remove_shared_memory, start_redis, start_triton
from app.processes.process import Part, await_ready, child_environment, launch
from app.settings import Settings
from domain.errors import BundleError
from release.bundle import Bundle
from release.publish import publish
from release.triton_repository import link_or_copy

HOST = "127.0.0.1"
ROOT = Path(__file__).resolve().parents[1]
READY_SECONDS = 60.0
MEASURED = "it is measured, and nobody is served by it"  # why a bundle is published that its gates may refuse
WriteUsers: TypeAlias = Callable[[Bundle, Settings], object]


def free_ports() -> Iterator[int]:
    """Loopback ports that nobody listens on, no one twice, below those that the kernel gives to clients."""
    for port in range(20_000 + os.getpid() % 10_000, 32_000):
        with socket.socket() as probe:
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
        yield port


def streamrec_home() -> Path:
    """STREAMREC_HOME, where environments and bundles lie."""
    return Path(os.environ.get("STREAMREC_HOME", ROOT / ".streamrec")).absolute()


def newest_bundle(home: Path) -> Path:
    """The newest bundle under ``home`` that loads; raises ``BundleError`` if there is none."""
    found = [path.parent for folder in ("bundles", "training", "test-bundles")
             for path in (home / folder).glob("*/manifest.json")]  # fmt: skip
    for folder in sorted(found, key=lambda path: (path / "manifest.json").stat().st_mtime, reverse=True):
        try:
            Bundle.load(folder)
        except BundleError:
            continue
        return folder
    raise BundleError(f"no bundle under {home} that this code can load: run `make train` or name one with --bundle")


@dataclass(slots=True, eq=False)
class Rig:
    """Redis and Triton with a published bundle, and whatever was started beside them."""

    settings: Settings
    redis: Part
    triton: Part
    ports: Iterator[int] = field(repr=False)
    ended: ExitStack = field(repr=False)

    def worker(self, environment: Mapping[str, str] | None = None) -> Part:
        """A worker of the service, ready; its metrics lie in files, as under the supervisor."""
        metrics = self.settings.home / "metrics"
        shutil.rmtree(metrics, ignore_errors=True)
        metrics.mkdir()
        given = {**self._environment(), "PROMETHEUS_MULTIPROC_DIR": str(metrics), **(environment or {})}
        return self.program("worker", ["-m", "app.main"], self.settings.http_port, given)

    def unit(self, module: str) -> tuple[Part, int]:
        """A program of ``benchmarks`` that requests are compared with (``noop``, ``floor``), ready, and its port."""
        port = next(self.ports)
        return self.program(module, ["-m", f"benchmarks.{module}", str(port)], port, self._environment()), port

    def _environment(self) -> dict[str, str]:
        return {
            **child_environment(self.settings),
            "STREAMREC_HTTP_PORT": str(self.settings.http_port),
            "STREAMREC_GRPC_PORT": str(self.settings.grpc_port),
            "STREAMREC_CANDIDATES": str(self.settings.candidates),
        }

    def program(
        self, name: str, arguments: list[str], port: int, environment: Mapping[str, str], python: Path | None = None
    ) -> Part:
        """A Python program that serves ``/readyz`` on ``port``, ready; ends with the rig."""
        log = self.settings.home / "logs" / f"{name}.log"
        command = [python or sys.executable, *arguments]
        part = launch(name, command, f"http://{HOST}:{port}", log, environment)
        self.ended.callback(part.stop)
        return await_ready(part, lambda: answers(f"http://{HOST}:{port}/readyz"), READY_SECONDS)


def answers(url: str) -> bool:
    """Whether somebody answers there with success."""
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))
    try:
        with opener.open(url, timeout=1.0) as response:
            return bool(response.status == 200)
    except (OSError, urllib.error.URLError):
        return False


@contextmanager
def running(bundle: Path | None = None, instances: int = 1, write: WriteUsers | None = None) -> Iterator[Rig]:
    """Redis and Triton over a copy of ``bundle``, published; the copy shares its files with the original.

    ``write`` stands in for what publishing does with the features of the users.
    """
    home = streamrec_home()
    source = bundle or newest_bundle(home)
    ports = free_ports()
    http, grpc, redis, triton, triton_http, triton_metrics = (next(ports) for _ in range(6))
    with ExitStack() as ended, tempfile.TemporaryDirectory(prefix="streamrec-bench-") as folder:
        own = Path(folder)
        settings = Settings(
            home=own, http_port=http, grpc_port=grpc, redis_port=redis, triton_grpc_port=triton,
            triton_http_port=triton_http, triton_metrics_port=triton_metrics, triton_instances=instances,
            triton_venv=Path(os.environ.get("STREAMREC_TRITON_VENV") or home / "venv-triton"),
            deadline_seconds=1.0,  # a busy machine must not change what is measured
            features_seconds=0.5, retrieval_seconds=0.5, ranking_seconds=0.8,
        )  # fmt: skip
        with ended:
            redis_part = start_redis(own, redis)
            ended.callback(redis_part.stop)
            triton_part = start_triton(own, settings.triton_venv, TritonPorts(triton, triton_http, triton_metrics))
            ended.callback(remove_shared_memory, triton)
            ended.callback(triton_part.stop)
            copied = own / "training" / "bundle"
            shutil.copytree(
                source, copied, copy_function=link_or_copy, ignore=shutil.ignore_patterns("publication.json")
            )
            if write is None:
                publish_folder(copied, settings, _silent, MEASURED)
            else:
                publish(copied, target_of(settings), lambda given: write(given, settings), _silent, MEASURED)
            yield Rig(settings, redis_part, triton_part, ports, ended)


def _silent(_line: str) -> None:
    pass
