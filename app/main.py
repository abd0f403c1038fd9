"""One worker: one process, one event loop, both doors.

    python -m app.main

It takes the listening socket it inherits (``STREAMREC_HTTP_FD``) or binds one of its own. On SIGTERM it becomes
unready, stops accepting, finishes what is in flight, and leaves.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import logging
import socket
import sys
from collections.abc import Awaitable, Callable, Iterator
from typing import TYPE_CHECKING

import uvicorn
from starlette.middleware import Middleware

from app import metrics, page_api
from app.access import Access, open_access
from app.admission_doors import GrpcAdmission, HttpAdmission
from app.connection import Connection
from app.edge import Patience, Readiness
from app.grpc_access import AccessInterceptor, GrpcTls
from app.grpc_api import GrpcDoor
from app.health import Heartbeat
from app.http_api import create_app
from app.orders import OrderBook
from app.processes.program import run_process, stop_signal
from app.settings import Settings
from domain.errors import StartError

if TYPE_CHECKING:
    from app.edge import Serving
    from release.bundle import Bundle

BACKLOG = 2048
KEEP_ALIVE_SECONDS = 75  # longer than the 60 s that load balancers keep an idle connection

_log = logging.getLogger("streamrec.worker")


class HttpDoor(uvicorn.Server):
    """Uvicorn without its signal handlers: this process has two doors, and ``work`` closes both."""

    def __init__(
        self, serving: Serving, readiness: Readiness, settings: Settings, access: Access | None = None
    ) -> None:
        app = create_app(serving, readiness, patience_of(settings), access, OrderBook(settings.home))
        if page_api.wanted(settings):
            checked = settings.trusted_proxy or (access is not None and access.required)
            app.include_router(page_api.router(lambda: serving.pipeline, here_only=not checked))
        # the innermost: what the door refuses anyway takes no part in admission
        app.user_middleware.append(Middleware(HttpAdmission, serving.admission))
        super().__init__(
            uvicorn.Config(
                app,
                http=Connection,
                ws="none",
                lifespan="off",
                log_config=None,
                access_log=False,
                server_header=False,
                proxy_headers=False,  # nobody here asks where a caller came from
                timeout_keep_alive=KEEP_ALIVE_SECONDS,
                timeout_graceful_shutdown=round(settings.stop_seconds),
            )
        )

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        yield


def patience_of(settings: Settings) -> Patience:
    return Patience(settings.deadline_seconds, settings.max_deadline_seconds)


def listen(settings: Settings) -> socket.socket:
    """The inherited socket, or one bound here; raises ``StartError`` if the port is taken."""
    if settings.http_fd is not None:
        return socket.socket(fileno=settings.http_fd)
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    try:
        return socket.create_server((settings.host, settings.http_port), family=family, backlog=BACKLOG)
    except OSError as error:
        raise StartError(f"HTTP cannot listen on {settings.host}:{settings.http_port}: {error.strerror}") from error


async def work(settings: Settings) -> None:
    """Open, serve until told to stop, close. Raises ``StartError``."""
    from app.serving import open_serving  # the models' libraries: not needed to test a door

    heartbeat = Heartbeat(settings.workers_folder)
    serving = await open_serving(settings, lambda bundle: tell_of(bundle, heartbeat))
    try:
        await serve_until(stop_signal().wait, serving, settings)
    finally:
        heartbeat.stop()
        await serving.close()


def tell_of(bundle: Bundle, heartbeat: Heartbeat) -> None:
    """This worker serves ``bundle`` from now on: to the metrics, and to who waits for its publication."""
    publication = bundle.publication
    number, published_at = (publication.number, publication.published_at) if publication else (None, None)
    metrics.bundle_is(bundle.version, number, published_at)
    metrics.models_are_of(bundle.manifest.lineage.created_at)
    heartbeat.beat(number)


async def serve_until(told: Callable[[], Awaitable[object]], serving: Serving, settings: Settings) -> None:
    """Both doors open until ``told()`` returns; raises ``StartError`` if one cannot open, or closes by itself."""
    readiness, access = Readiness(serving), open_access(settings)
    interceptors = (AccessInterceptor(access), GrpcAdmission(serving.admission))
    grpc_door = GrpcDoor(serving, patience_of(settings), interceptors, GrpcTls.of(settings))
    http_door = HttpDoor(serving, readiness, settings, access)
    with listen(settings) as listener:
        await grpc_door.open(f"{bracketed(settings.host)}:{settings.grpc_port}")
        gc.collect()
        gc.freeze()  # what is loaded stays: no collection walks through it again
        http_task = asyncio.create_task(http_door.serve([listener]))
        stop_task = asyncio.ensure_future(told())
        _log.info("serving", extra={"http_port": settings.http_port, "grpc_port": settings.grpc_port})
        await asyncio.wait({http_task, stop_task}, return_when=asyncio.FIRST_COMPLETED)
        asked = stop_task.done()
        stop_task.cancel()
        readiness.stopping = True
        await grpc_door.drain()
        await asyncio.sleep(settings.drain_seconds if asked else 0)
        http_door.should_exit = True
        await asyncio.gather(http_task, grpc_door.close(settings.stop_seconds))
    _log.info("stopped")
    if not asked:
        raise StartError("the HTTP server closed by itself")


def bracketed(host: str) -> str:
    """An IPv6 address as it stands before a port."""
    return f"[{host}]" if ":" in host else host


def main() -> int:
    """The exit status: 0 when told to stop, 2 when it could not start."""
    return run_process(work)


if __name__ == "__main__":
    sys.exit(main())
