"""What all workers counted in the last hours, from Redis, and how it compares."""

from __future__ import annotations

import redis.asyncio as aioredis
import redis.exceptions

from features.contract import HOUR
from features.counts import Bins, FeatureCounts, counts_key
from features.online import mapped
from monitoring.skew import Skew, judge, untrained
from release.bundle import Bundle

WINDOW_HOURS = 2  # the current clock hour and the one before


async def skew_of(bundle: Bundle, client: aioredis.Redis, until: float, hours: int = WINDOW_HOURS) -> Skew:
    """The requests of the window against the bundle that served them; raises ``DependencyError``."""
    reference = bundle.tables.reference
    counted = await read_window(client, bundle.version, Bins(reference.edges, reference.ages), until, hours)
    return judge(reference, counted, untrained(bundle))


async def read_window(client: aioredis.Redis, bundle: str, bins: Bins, until: float, hours: int) -> FeatureCounts:
    """The sum over the clock hour of ``until`` (UTC seconds, wall clock) and those before it, ``hours`` in all.

    Raises ``DependencyError``. Counts of another shape are left out: nothing can be said of them.
    """
    counted, last = bins.none(), int(until // HOUR)
    try:
        async with client.pipeline(transaction=False) as pipe:
            for hour in range(last - hours + 1, last + 1):
                pipe.hvals(counts_key(bundle, hour))
            packed = [raw for workers in await pipe.execute() for raw in workers]
    except redis.exceptions.RedisError as error:
        raise mapped(error) from error
    for raw in packed:
        try:
            counted.add(bins.unpacked(raw))
        except ValueError:
            continue
    return counted
