"""How far the consumers are behind, told to everyone who serves through one small key in Redis."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

import orjson
import redis.asyncio as aioredis

from events.redis_errors import mapping_errors

KEY = "streamrec:event-lag"
SILENCE_SECONDS = 5.0
"""Consumers tell every second. After this long without a word the lag grows by the clock, whatever it was."""


async def tell(client: aioredis.Redis, lag_seconds: float, now: float) -> None:
    """Write the group's lag and when it was measured, UTC seconds; raises ``DependencyError``."""
    with mapping_errors():
        await client.set(KEY, orjson.dumps([lag_seconds, now]))


@dataclass(slots=True, eq=False)
class LagWatch:
    """What the consumers said last. Without consumers, ever, there is no lag: nobody waits for anything."""

    client: aioredis.Redis = field(repr=False)
    clock: Callable[[], float] = time.time
    _said: tuple[float, float] | None = None  # lag, when

    async def look(self) -> None:
        """Read the key; raises ``DependencyError``, and then what was said before goes on ageing."""
        with mapping_errors():
            raw = cast("bytes | None", await self.client.get(KEY))
        self._said = _decoded(raw)

    def seconds(self) -> float:
        """The lag now, as far as anybody knows."""
        if self._said is None:
            return 0.0
        lag, told_at = self._said
        silence = self.clock() - told_at
        return lag if silence <= SILENCE_SECONDS else lag + silence


def _decoded(raw: bytes | None) -> tuple[float, float] | None:
    try:
        lag, told_at = orjson.loads(raw or b"")
        return float(lag), float(told_at)
    except (TypeError, ValueError):
        return None
