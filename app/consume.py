"""One consumer: one process that turns events into what is known of the users' sessions.

    python -m app.consume NUMBER

NUMBER tells the consumers of one machine apart, and stays with one across restarts. On SIGTERM it finishes the batch in
hand and leaves; killed, it leaves the batch to be given out again.
"""

from __future__ import annotations

import asyncio
import logging
import socket
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import redis.asyncio as aioredis

from app import metrics
from app.event_parts import open_feed
from app.processes.program import run_process, stop_signal
from app.settings import Settings
from domain.errors import BundleError, DependencyError, StartError, StreamRecError
from events.consumer import Consumer, waited
from events.event import Event
from events.lag import tell
from events.log import EventFeed
from events.state import SessionStore
from features.contract import CONTRACT
from features.layout import project_name
from features.online import ClientLimits, connect
from release.bundle import Bundle

LIMITS = ClientLimits(connections=8, wait_seconds=5.0, connect_seconds=1.0, answer_seconds=5.0)
LAG_SECONDS = 1.0
POLL_SECONDS = 0.5

_log = logging.getLogger("streamrec.consumer")


class Counted:
    """The consumer's witness: metrics, added up with those of the workers."""

    def consumed(self, event: Event, seconds: float) -> None:
        metrics.event_consumed(event.kind, seconds)

    def buried(self, reason: str) -> None:
        metrics.event_buried(reason)

    def failed(self, cause: str) -> None:
        metrics.consumer_failed(cause)


@dataclass(slots=True, eq=False)
class BundleLink:
    """The published bundle, of which a consumer needs only the name of its Feast project."""

    link: Path
    sessions: SessionStore
    _path: Path | None = field(default=None)

    async def follow(self, stopping: asyncio.Event) -> None:
        """Write the views where the current bundle's readers look for them, until told to stop."""
        while not await waited(stopping, POLL_SECONDS):
            try:
                await self.look()
            except (StreamRecError, OSError) as error:
                _log.warning("the bundle's project is not known yet", extra={"why": str(error)})

    async def look(self) -> None:
        """Move if the link names another bundle and that one another project; tried again after a failure."""
        path = self.link.resolve()
        if path == self._path:
            return
        project = await asyncio.to_thread(project_of, path)
        if project != self.sessions.project or not await self.sessions.settled():
            moved = await self.sessions.move(project)
            _log.info("session views moved", extra={"project": project, "users": moved})
        self._path = path


def project_of(path: Path) -> str:
    """The Feast project of a bundle's readers; raises ``BundleError``."""
    return project_name(CONTRACT, Bundle.load(path).tables.items.genre_names)


async def consume(settings: Settings, name: str, stopping: asyncio.Event) -> None:
    """Consume until told to stop; raises ``StartError`` without a bundle. Redis may come later."""
    try:
        project = await asyncio.to_thread(project_of, settings.bundle)
    except BundleError as error:
        raise StartError(str(error)) from error
    client, feed = connect(settings.redis_address, LIMITS), open_feed(settings, name)
    sessions = SessionStore(client, project)
    try:
        _log.info("consuming", extra={"consumer": name, "project": project})
        await asyncio.gather(
            Consumer(feed, sessions, Counted()).run(stopping),
            BundleLink(settings.bundle, sessions).follow(stopping),
            tell_lag(feed, client, stopping),
        )
    finally:
        await feed.close()
        await client.aclose()
    _log.info("stopped")


async def tell_lag(feed: EventFeed, client: aioredis.Redis, stopping: asyncio.Event) -> None:
    """Once a second until told to stop. When this fails, everybody sees how long nothing was said."""
    while not await waited(stopping, LAG_SECONDS):
        try:
            await tell(client, await feed.lag_seconds(), time.time())
        except DependencyError as error:
            _log.warning("lag not told", extra={"why": str(error)})


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0 when told to stop, 2 when it could not start."""
    number = arguments[0] if arguments else "0"

    async def work(settings: Settings) -> None:
        metrics.serves_no_bundle()
        metrics.carries_no_load()
        await consume(settings, f"{socket.gethostname()}-{number}", stop_signal())

    return run_process(work)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
