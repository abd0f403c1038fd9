"""What the rankers are given, counted as it passes: the serving side of the skew watch.

A request costs the copy of its row into a buffer; every ``BATCH`` of them are counted together. Each worker keeps the
counts of the current hour and now and then writes them whole into a field of its own in Redis, so that a write may be
lost or repeated and nothing is counted twice or queued. Losing Redis loses statistics, nothing else.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import math
import os
import time
import uuid
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import numpy as np
import redis.asyncio as aioredis
import redis.exceptions

from app import metrics
from domain.arrays import Codes, Floats, Seconds
from domain.clock import Clock
from domain.errors import DependencyError
from domain.user import UserFeatures
from features.contract import HOUR
from features.counts import Bins, FeatureCounts, counts_key, phase
from features.online import mapped
from release.bundle import Bundle

BATCH = 64
KEPT_SECONDS = round(48 * HOUR)
FLUSH_SECONDS = 5.0
FLUSHES_A_JUDGEMENT = 12

log = logging.getLogger("streamrec.feature_watch")


@dataclass(slots=True, eq=False)
class FeatureWatch:
    """The running counts of one worker and one bundle. ``wall`` is injected by tests."""

    bundle: str
    bins: Bins = field(repr=False)
    clock: Clock
    wall: Callable[[], float] = field(default=time.time, repr=False)
    worker: str = field(default_factory=lambda: f"{os.getpid()}-{uuid.uuid4().hex[:12]}")
    _hour: int = 0
    _reads: int = 0
    _hits: int = 0
    _rows: int = 0
    _numeric: Floats = field(init=False, repr=False)
    _codes: Codes = field(init=False, repr=False)
    _age: Seconds = field(init=False, repr=False)
    _counted: FeatureCounts = field(init=False, repr=False)

    def __post_init__(self) -> None:
        contract = self.bins.contract
        self._numeric = np.empty((BATCH, contract.numeric.width), np.float32)
        self._codes = np.empty((BATCH, len(contract.context)), np.int32)
        self._age = np.empty(BATCH, np.float64)
        self._counted, self._hour = self.bins.none(), int(self.wall() // HOUR)

    def read(self, *, whole: bool) -> None:
        """A user who should be in the store was read; ``whole``: their row was there, with nothing missing."""
        self._reads += 1
        self._hits += whole

    def saw(self, user: UserFeatures, now: float) -> None:
        """What the rankers get for a request at ``now``, on the data's clock.

        The reference is of the bundle's users: whoever is not among them, or never did anything, is not compared.
        """
        last = user.history.last_event
        if last is None or user.row < 0:
            return
        at = self._rows
        self._numeric[at], self._codes[at], self._age[at] = user.numeric, user.codes, now - last
        self._rows += 1
        if self._rows == BATCH:
            self.count()

    def count(self) -> FeatureCounts:
        """Everything so far in this hour; what was buffered belongs to the hour in which it is counted."""
        wall, n = self.wall(), self._rows
        if int(wall // HOUR) != self._hour:
            self._counted, self._hour = self.bins.none(), int(wall // HOUR)
        if n:
            rows = self._numeric[:n], self._codes[:n], self._age[:n]
            self._counted.add(self.bins.count(*rows, phase(wall, self.clock)))
        self._counted.reads[...] += (self._reads, self._hits)
        self._rows = self._reads = self._hits = 0
        return self._counted

    async def flush(self, client: aioredis.Redis) -> None:
        """Write this hour's counts, over those written before; raises ``DependencyError``."""
        packed = self.count().packed()
        key = counts_key(self.bundle, self._hour)
        try:
            async with client.pipeline(transaction=False) as pipe:
                pipe.hset(key, self.worker, packed)
                pipe.expire(key, KEPT_SECONDS)
                await pipe.execute()
        except redis.exceptions.RedisError as error:
            raise mapped(error) from error


def watch_of(bundle: Bundle) -> FeatureWatch:
    """The watch over one bundle's requests."""
    reference = bundle.tables.reference
    return FeatureWatch(bundle.version, Bins(reference.edges, reference.ages), bundle.clock)


async def keep_watching(
    current: Callable[[], tuple[Bundle, FeatureWatch]],
    client: aioredis.Redis,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Flush and judge for as long as the worker lives, whatever fails. ``current`` is asked anew each time."""
    for flush in itertools.count():
        await sleep(FLUSH_SECONDS)
        bundle, watch = current()
        try:
            await watch.flush(client)
            if flush % FLUSHES_A_JUDGEMENT == 0:
                await tell(bundle, client, watch.wall())
        except DependencyError as error:
            metrics.skew_unknown()
            log.info("feature counts not written", extra={"cause": error.cause})
        except Exception:
            metrics.bug_found("feature_watch")
            log.exception("bug in the feature watch")


async def tell(bundle: Bundle, client: aioredis.Redis, until: float) -> None:
    """Judge what all workers of this bundle counted lately and set the metrics; raises ``DependencyError``."""
    from monitoring.window import skew_of

    skew = await skew_of(bundle, client, until)
    features = {part.feature: (part.psi, part.default_excess) for part in skew.features}
    metrics.skew_is(features, skew.hit_ratio if skew.hit_verdict else math.nan, skew.requests)
