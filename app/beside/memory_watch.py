"""What users are shown, remembered off the request path: a request costs an append to a bounded queue.

The queue is written within a fraction of a second, so that a refresh finds it, whichever worker it comes to. A full
queue drops and counts; what Redis does not take is lost, which costs a user the same slate once more.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field

import redis.asyncio as aioredis
import redis.exceptions

from app import metrics
from domain.answer import Answer
from domain.errors import DependencyError
from features.online import mapped
from features.shown import KEPT_SECONDS, KEPT_SLATES, encode, shown_key

QUEUED = 4096
AT_ONCE = 256
PAUSE_SECONDS = 0.05

PUSH = """
for at, key in ipairs(KEYS) do
    redis.call('LPUSH', key, ARGV[at + 2])
    redis.call('LTRIM', key, 0, ARGV[1])
    redis.call('EXPIRE', key, ARGV[2])
end
"""
"""Pushes ``ARGV[2 + i]`` onto the list ``KEYS[i]``, of which the first ``ARGV[1] + 1`` stay for ``ARGV[2]`` seconds."""

log = logging.getLogger("streamrec.memory_watch")


@dataclass(slots=True, eq=False)
class MemoryWatch:
    """One worker's queue. ``wall`` is injected by tests."""

    wall: Callable[[], float] = field(default=time.time, repr=False)
    size: int = QUEUED
    dropped: int = 0
    _queue: deque[tuple[str, float, Answer]] = field(default_factory=deque, repr=False)
    _some: asyncio.Event = field(default_factory=asyncio.Event, repr=False)

    def saw(self, user_id: str | None, answer: Answer) -> None:
        """One answer on its way out. Nobody is remembered without a user id."""
        if user_id is None or not answer.items:
            return
        if len(self._queue) >= self.size:
            self.dropped += 1
            return
        self._queue.append((user_id, self.wall(), answer))
        self._some.set()

    async def flush(self, client: aioredis.Redis) -> None:
        """Write what is queued; raises ``DependencyError``, and then that much is lost."""
        while self._queue:
            some = [self._queue.popleft() for _ in range(min(AT_ONCE, len(self._queue)))]
            keys = [shown_key(user_id) for user_id, _, _ in some]
            slates = [encode(at, [item.item_id for item in answer.items]) for _, at, answer in some]
            try:
                await client.eval(PUSH, len(keys), *keys, KEPT_SLATES - 1, KEPT_SECONDS, *slates)
            except redis.exceptions.RedisError as error:
                self.dropped += len(some)
                raise mapped(error) from error

    async def keep(self, client: aioredis.Redis) -> None:
        """Write for as long as the worker lives, whatever fails."""
        while True:
            await self._some.wait()
            self._some.clear()
            try:
                await self.flush(client)
            except DependencyError as error:
                log.info("slates not remembered", extra={"cause": error.cause})
            except Exception:
                metrics.bug_found("memory_watch")
                log.exception("bug in the memory watch")
            lost, self.dropped = self.dropped, 0
            metrics.slates_forgotten(lost)
            await asyncio.sleep(PAUSE_SECONDS)
