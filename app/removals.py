"""What an operator took out of the catalogue: held in Redis for the whole fleet, and in a file for when Redis is away.

    streamrec:removed     a hash: item id -> UTC seconds of its removal; the field "" changes with every change

Each worker looks every ``LOOK_SECONDS``, off the path of a request. While Redis is away what was known stays removed; a
worker that starts then knows what is in HOME/removed.json. A Redis that has lost the hash is given it again, so only
``restore_items`` brings an item back.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import redis
import redis.asyncio as aioredis
import redis.exceptions

from domain.catalogue import Items
from domain.errors import Unreachable
from features.online import mapped

KEY = "streamrec:removed"
STAMP = ""  # no item has an empty id
FILE = "removed.json"
LOOK_SECONDS = 5.0


@dataclass(slots=True, eq=False)
class Removals:
    """What is removed, as one worker knows it. ``clock`` is monotonic seconds."""

    client: aioredis.Redis = field(repr=False)
    file: Path
    since: Mapping[str, float] = field(default_factory=dict)
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    _stamp: bytes = b""
    _next_look_at: float = 0.0

    @classmethod
    def kept_at(cls, client: aioredis.Redis, home: Path) -> Removals:
        """Begin with what the last worker here knew."""
        since: dict[str, float] = {}
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):  # none yet, or no longer readable
            held = json.loads((home / FILE).read_text("utf-8"))
            since = {str(item): float(moment) for item, moment in held.items()}
        return cls(client, home / FILE, since)

    def applied(self, items: Items) -> Items:
        """The items with these among the removed ones; ids that the bundle does not know are skipped."""
        rows = items.ids.rows(list(self.since))
        removed = np.array(items.removed)
        removed[rows[rows >= 0]] = True
        return replace(items, removed=removed)

    async def look(self) -> bool:
        """Whether anything changed since the last look; raises ``DependencyError``. Free between two looks."""
        if self.clock() < self._next_look_at:
            return False
        self._next_look_at = self.clock() + LOOK_SECONDS
        try:
            return await self._look()
        except redis.exceptions.RedisError as error:
            raise mapped(error) from error

    async def _look(self) -> bool:
        stamp: Any = await self.client.hget(KEY, STAMP)
        if stamp is None:
            await self._give_back()
            return False
        if stamp == self._stamp:
            return False
        held: Mapping[Any, Any] = await self.client.hgetall(KEY)  # bytes: the client decodes nothing
        since = _moments(held)
        changed = since != self.since
        self.since, self._stamp = since, held.get(STAMP.encode(), b"")
        if changed:
            self._keep()
        return changed

    async def _give_back(self) -> None:
        """Redis has lost the hash, or nothing was ever removed."""
        if self.since:
            await self.client.hset(KEY, mapping={STAMP: uuid.uuid4().hex, **self.since})  # type: ignore[dict-item]  # redis-py's keys are invariant

    def _keep(self) -> None:
        """Best effort: without the file a worker that starts while Redis is away knows of no removal."""
        scratch = self.file.with_name(f".{FILE}.{os.getpid()}")
        with contextlib.suppress(OSError):
            scratch.write_text(json.dumps(self.since), "utf-8")
            scratch.replace(self.file)


def remove_items(redis_url: str, items: Sequence[str], now: float) -> None:
    """Take the items out everywhere; raises ``Unreachable``."""
    with _connected(redis_url) as client:
        client.hset(KEY, mapping={**dict.fromkeys(items, now), STAMP: uuid.uuid4().hex})


def restore_items(redis_url: str, items: Sequence[str]) -> int:
    """Offer the items again, and say how many of them had been removed; raises ``Unreachable``."""
    with _connected(redis_url) as client:
        count = client.hdel(KEY, *items)
        client.hset(KEY, STAMP, uuid.uuid4().hex)
    return int(count)


def removed_items(redis_url: str) -> dict[str, float]:
    """Item id -> UTC seconds of its removal; raises ``Unreachable``."""
    with _connected(redis_url) as client:
        return _moments(client.hgetall(KEY))


def _moments(held: Mapping[Any, Any]) -> dict[str, float]:
    return {item.decode(): float(moment) for item, moment in held.items() if item != STAMP.encode()}


@contextlib.contextmanager
def _connected(redis_url: str) -> Iterator[redis.Redis]:
    try:
        with redis.Redis.from_url(redis_url, socket_timeout=2.0, socket_connect_timeout=2.0) as client:
            yield client
    except redis.RedisError as error:
        raise Unreachable(f"Redis does not answer: {error}") from error
