"""Rungs that run beside live requests, so that they are known to work before they are needed.

Off the request's path: what is offered waits in a bounded queue for one task of the process; when the queue is full the
work is dropped and counted. Nothing here can change an answer, and a failure is counted, not raised.
"""

from __future__ import annotations

import asyncio
import logging
import random
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from typing import Protocol

from domain.errors import DependencyError

WAITING = 32
SECONDS = 1.0  # that one piece of work may take

_log = logging.getLogger("streamrec.shadow")


class Observer(Protocol):
    """Told of every shadow run: the rung, ``ok``, ``empty``, a cause, ``bug`` or ``dropped``, its seconds and size."""

    def __call__(self, rung: str, outcome: str, seconds: float, size: int) -> None: ...


Work = Callable[[], Awaitable[int]]
"""Runs a rung and gives the size of what it made; raises ``DependencyError`` if that could not be used."""


def unobserved(rung: str, outcome: str, seconds: float, size: int) -> None:
    del rung, outcome, seconds, size


@dataclass(slots=True, eq=False)
class Shadow:
    """``share`` of the requests, 0 to 1, have the rungs run beside them."""

    share: float = 0.0
    observe: Observer = unobserved
    draw: Callable[[], float] = random.random
    _queue: asyncio.Queue[tuple[str, Work]] = field(default_factory=lambda: asyncio.Queue(WAITING), repr=False)

    def chosen(self) -> bool:
        """Whether this request is one of the share."""
        return self.draw() < self.share

    def offer(self, rung: str, work: Work) -> None:
        """Have ``work`` run some time soon, or drop it."""
        try:
            self._queue.put_nowait((rung, work))
        except asyncio.QueueFull:
            self.observe(rung, "dropped", 0.0, 0)

    async def run(self) -> None:
        """Do what is offered, one by one, for as long as the process lives."""
        while True:
            await self._do(*await self._queue.get())
            self._queue.task_done()
            await asyncio.sleep(0)  # whoever waits for an answer comes first

    async def drained(self) -> None:
        """Until all that was offered is done."""
        await self._queue.join()

    async def _do(self, rung: str, work: Work) -> None:
        started, outcome, size = time.perf_counter(), "ok", 0
        try:
            async with asyncio.timeout(SECONDS):
                size = await work()
            outcome = "ok" if size else "empty"
        except TimeoutError:
            outcome = "timeout"
        except DependencyError as error:
            outcome = error.cause
        except Exception:  # noqa: BLE001  # nobody waits for this, and the loop must outlive it
            outcome = "bug"
            _log.exception("bug in a rung in shadow", extra={"rung": rung})
        self.observe(rung, outcome, time.perf_counter() - started, size)
