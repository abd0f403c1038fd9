"""A thread pool with a bound on what waits for it, and a source that runs there."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from concurrent.futures import Executor, Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any, TypeVar

from domain.candidates import Candidates
from domain.deadline import Deadline
from domain.errors import Late
from domain.request import Request
from domain.user import UserFeatures
from retrieval.computed import Personal

T = TypeVar("T")


class BoundedExecutor(ThreadPoolExecutor):
    """At most ``threads`` calls run and ``waiting`` wait; the next one is refused with ``Late``.

    Work in a thread cannot be cancelled. Without a bound, searches nobody waits for any more would pile up before those
    that somebody does.
    """

    def __init__(self, threads: int, waiting: int) -> None:
        super().__init__(threads, thread_name_prefix="retrieval")
        self._places = threading.BoundedSemaphore(threads + waiting)

    def submit(self, fn: Callable[..., T], /, *args: Any, **kwargs: Any) -> Future[T]:
        if not self._places.acquire(blocking=False):
            raise Late("retrieval executor is full")
        future = super().submit(fn, *args, **kwargs)
        future.add_done_callback(lambda _: self._places.release())
        return future


@dataclass(frozen=True, slots=True)
class Threaded:
    """A source that takes too long for the event loop, in a thread of ``executor``, which is bounded.

    What outlives its deadline there cannot be cancelled; its result is discarded.
    """

    source: Personal
    executor: Executor

    @property
    def name(self) -> str:
        return self.source.name

    async def retrieve(self, request: Request, user: asyncio.Task[UserFeatures], deadline: Deadline) -> Candidates:
        """As ``domain.stages.Source`` has it."""
        known = await asyncio.shield(user)
        if deadline.expired:
            raise Late(self.name)
        return await asyncio.get_running_loop().run_in_executor(self.executor, self.source.propose, request, known)
