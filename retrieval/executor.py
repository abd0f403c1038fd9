"""A thread pool with a bound on what waits for it."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

from domain.errors import Late

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
