"""The real parts that tests stand on; each is started by the first test that asks for it and ended with the run."""

from __future__ import annotations

import os
import socket
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import hypothesis
import pytest

from app.processes.parts import TritonPorts, remove_shared_memory, start_redis, start_triton
from app.processes.process import Part
from release.bundle import Bundle
from tests import tiny_bundle as tiny

# Time on a shared machine says nothing about the code.
hypothesis.settings.register_profile("untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow])
hypothesis.settings.load_profile("untimed")


@pytest.fixture(scope="session")
def tiny_bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A verified, unpublished bundle of 50 items and 10 users. Shared: do not change or publish its folder."""
    return tiny.make(tmp_path_factory.mktemp("tiny") / "bundle")


@pytest.fixture
def make_bundle(tmp_path: Path) -> Callable[[int], Bundle]:
    """Makes bundles of one's own, each ``seed`` another; they may be changed and published."""
    return lambda seed: tiny.make(tmp_path / f"bundle-{seed}", seed)


@pytest.fixture(scope="session")
def free_port() -> Callable[[], int]:
    """Gives loopback ports, no one twice, none in the range that the kernel gives to clients."""
    unused = (port for port in range(20_000 + os.getpid() % 10_000, 32_000) if _bindable(port))
    return lambda: next(unused)


def _bindable(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


@pytest.fixture(scope="session")
def redis_part(tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]) -> Iterator[Part]:
    """A real Redis for all tests: use keys of one's own, and do not stop it."""
    with ExitStack() as ended:
        part = start_redis(tmp_path_factory.mktemp("redis-home"), free_port())
        ended.callback(part.stop)
        yield part


@pytest.fixture(scope="session")
def redis_url(redis_part: Part) -> str:
    return redis_part.address


@dataclass(frozen=True)
class RunningTriton:
    """A real Triton over ``home / "triton"``, started with no model."""

    home: Path
    part: Part

    @property
    def address(self) -> str:
        return self.part.address


@pytest.fixture(scope="session")
def triton_venv() -> Path:
    """Triton's own environment; ``make setup`` makes it, and tests fail without it rather than pass without Triton."""
    home = Path(os.environ.get("STREAMREC_HOME", ".streamrec")).absolute()
    return Path(os.environ.get("STREAMREC_TRITON_VENV") or home / "venv-triton")


@pytest.fixture(scope="session")
def start_own_triton(triton_venv: Path, free_port: Callable[[], int]) -> Iterator[Callable[[Path], RunningTriton]]:
    """Starts a Triton over a home of one's own, which may be killed."""
    with ExitStack() as ended:

        def start(home: Path, ports: TritonPorts | None = None) -> RunningTriton:
            ports = ports or TritonPorts(free_port(), free_port(), free_port())
            part = start_triton(home, triton_venv, ports)
            ended.callback(remove_shared_memory, ports.grpc)
            ended.callback(part.stop)
            return RunningTriton(home, part)

        yield start


@pytest.fixture(scope="session")
def triton(
    start_own_triton: Callable[[Path], RunningTriton], tmp_path_factory: pytest.TempPathFactory
) -> RunningTriton:
    """A real Triton for all tests: publish under its home, and do not stop it."""
    return start_own_triton(tmp_path_factory.mktemp("triton-home"))
