"""What an operator took out of the catalogue: held in Redis for the whole fleet, and in a file for when Redis is away.

    streamrec:removed     a hash: item id -> UTC seconds of its removal, negative: of its restoration; the field ""
                          changes with every change

Each worker looks every ``LOOK_SECONDS``, off the path of a request. While Redis is away what was known stays removed; a
worker that starts then knows what is in HOME/removed.json. Of what a worker and Redis know about an item the later word
counts, and Redis is told what it has not: it may have lost the hash, and have been told of other items since. So only
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
CLOCK_SECONDS = 0.001  # between two words about an item


@dataclass(slots=True, eq=False)
class Removals:
    """What is removed, as one worker knows it. ``clock`` is monotonic seconds."""

    client: aioredis.Redis = field(repr=False)
    file: Path
    known: Mapping[str, float] = field(default_factory=dict)  # as in Redis
    clock: Callable[[], float] = field(default=time.monotonic, repr=False)
    _stamp: bytes | None = None
    _next_look_at: float = 0.0

    @classmethod
    def kept_at(cls, client: aioredis.Redis, home: Path) -> Removals:
        """Begin with what the last worker here knew."""
        known: dict[str, float] = {}
        with contextlib.suppress(OSError, ValueError, AttributeError, TypeError):  # none yet, or no longer readable
            held = json.loads((home / FILE).read_text("utf-8"))
            known = {str(item): float(moment) for item, moment in held.items()}
        return cls(client, home / FILE, known)

    @property
    def since(self) -> Mapping[str, float]:
        """Item id -> UTC seconds of its removal, of those that are removed."""
        return _removed(self.known)

    def applied(self, items: Items) -> Items:
        """The items with these among the removed ones; ids that the bundle does not know are skipped."""
        return without(items, self.since)

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
        if stamp == self._stamp or (stamp is None and not self.known):
            return False
        held: Mapping[Any, Any] = await self.client.hgetall(KEY)  # bytes: the client decodes nothing
        told = _moments(held)
        known, before = _later(self.known, told), self.since
        if known != self.known:
            self.known = known
            self._keep()
        await self._give_back({item: moment for item, moment in known.items() if told.get(item) != moment})
        self._stamp = held.get(STAMP.encode())
        return self.since != before

    async def _give_back(self, lost: Mapping[str, float]) -> None:
        if lost:
            await self.client.hset(KEY, mapping={STAMP: uuid.uuid4().hex, **lost})  # type: ignore[dict-item]  # redis-py's keys are invariant

    def _keep(self) -> None:
        """Best effort: without the file a worker that starts while Redis is away knows of no removal."""
        scratch = self.file.with_name(f".{FILE}.{os.getpid()}")
        with contextlib.suppress(OSError):
            scratch.write_text(json.dumps(self.known), "utf-8")
            scratch.replace(self.file)


def without(items: Items, since: Mapping[str, float]) -> Items:
    """The items with those of ``since`` among the removed ones; ids that the bundle does not know are skipped."""
    rows = items.ids.rows(list(since))
    removed = np.array(items.removed)
    removed[rows[rows >= 0]] = True
    return replace(items, removed=removed)


def remove_items(redis_url: str, items: Sequence[str], now: float) -> None:
    """Take the items out everywhere; raises ``Unreachable``."""
    with _connected(redis_url) as client:
        _write(client, items, now, 1.0)


def restore_items(redis_url: str, items: Sequence[str], now: float) -> int:
    """Offer the items again, and say how many of them were known as removed; raises ``Unreachable``.

    All are written down as restored, in case that a Redis which lost the hash is about to be given it again.
    """
    with _connected(redis_url) as client:
        return len(_removed(_write(client, items, now, -1.0)))


def removed_items(redis_url: str) -> dict[str, float]:
    """Item id -> UTC seconds of its removal; raises ``Unreachable``."""
    with _connected(redis_url) as client:
        return _removed(_moments(client.hgetall(KEY)))


def _write(client: redis.Redis, items: Sequence[str], now: float, sign: float) -> dict[str, float]:
    """Write the word of ``now`` about the items, later than the last one whatever the clocks say; what it was."""
    held = _moments(client.hgetall(KEY))
    before = {item: held.get(item, 0.0) for item in items}
    moments = {item: sign * max(now, abs(last) + CLOCK_SECONDS) for item, last in before.items()}
    client.hset(KEY, mapping={STAMP: uuid.uuid4().hex, **moments})  # type: ignore[dict-item]  # as above
    return before


def _later(ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, float]:
    return {item: max(ours.get(item, 0.0), theirs.get(item, 0.0), key=abs) for item in {**ours, **theirs}}


def _removed(known: Mapping[str, float]) -> dict[str, float]:
    return {item: moment for item, moment in known.items() if moment > 0}


def _moments(held: Mapping[Any, Any]) -> dict[str, float]:
    return {item.decode(): float(moment) for item, moment in held.items() if item != STAMP.encode()}


@contextlib.contextmanager
def _connected(redis_url: str) -> Iterator[redis.Redis]:
    try:
        with redis.Redis.from_url(redis_url, socket_timeout=2.0, socket_connect_timeout=2.0) as client:
            yield client
    except redis.RedisError as error:
        raise Unreachable(f"Redis does not answer: {error}") from error
