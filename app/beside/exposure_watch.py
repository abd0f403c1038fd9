"""What was shown, counted off the request path: the serving side of the exposure ledger.

A request costs an append to a bounded queue; when the queue is full the slate is not counted, and that is counted.
Every few seconds the queue is summed up and added to the day's hashes in Redis, which all workers share. What Redis
does not take is lost and counted as lost: repeating a write that may have happened would count twice.
"""

from __future__ import annotations

import asyncio
import itertools
import logging
import time
from collections import Counter, OrderedDict, deque
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import orjson
import redis.asyncio as aioredis
import redis.exceptions

from app import metrics
from domain.answer import Answer
from domain.catalogue import Items
from domain.errors import DependencyError
from domain.slate import Campaign, ExposureQuota, Spent
from features.online import mapped
from features.shown import PROMOTED_SECONDS, promoted_key
from reranking.groups import Groups, first_quota, grouped, new_items
from reranking.ledger import CAMPAIGNS_KEY, DAY, KEPT_SECONDS, Totals, items_key, totals_key

if TYPE_CHECKING:
    from monitoring.exposure import ControlState

QUEUED = 4096
AT_ONCE = 64  # slates summed up, and counted by Redis, without letting anything else run: well under a millisecond
USERS_CAPPED = 100_000
FLUSH_SECONDS = 2.0
FLUSHES_A_JUDGEMENT = 30

ADD = """
for at, counts in ipairs(cjson.decode(ARGV[1])) do
    for name, count in pairs(counts) do redis.call('HINCRBY', KEYS[at], name, count) end
    if at < 3 then redis.call('EXPIRE', KEYS[at], ARGV[2]) end
end
"""
"""Adds to the hashes ``KEYS`` what stands in the JSON array ``ARGV[1]``, an object of whole numbers each."""

NOTHING_SPENT: Mapping[str, Spent] = MappingProxyType({})

log = logging.getLogger("streamrec.exposure_watch")


@dataclass(slots=True, eq=False)
class Shelf:
    """What one bundle's items are promised. ``ExposureWatch`` replaces the quota as a whole, removals the items."""

    items: Items = field(repr=False)
    groups: Groups = field(repr=False)
    promised: float  # the share of places that is promised
    quota: ExposureQuota = field(init=False, repr=False)

    def __post_init__(self) -> None:
        self.quota = first_quota(self.groups, self.promised)

    @classmethod
    def of(cls, items: Items, columns: tuple[str, ...], promised: float) -> Shelf:
        return cls(items, grouped(items, columns, new_items(items)), promised)

    @property
    def owing(self) -> bool:
        """Whether anybody is owed anything: otherwise nothing is promised."""
        return bool((self.quota.owed > 0).any())

    def delivered(self, shown: Mapping[str, int]) -> int:
        """How many places, of so many for each item, went to groups that are owed some."""
        rows, places = self.items.ids.rows(list(shown)), np.fromiter(shown.values(), np.int64, len(shown))
        owed = np.append(self.quota.owed > 0, False)  # the last is for items of no group
        return int(places[(rows >= 0) & owed[self.quota.group[rows]]].sum())


@dataclass(slots=True, eq=False)
class ExposureWatch:
    """One worker's queue, and what it knows of all workers' counts. ``wall`` is injected by tests."""

    wall: Callable[[], float] = field(default=time.time, repr=False)
    size: int = QUEUED
    dropped: int = 0
    _queue: deque[Answer] = field(default_factory=deque, repr=False)
    _budgets: Mapping[str, int] = field(default_factory=dict, repr=False)
    _capped: OrderedDict[str, tuple[int, Counter[str]]] = field(default_factory=OrderedDict, repr=False)
    _promoted: Counter[tuple[str, str]] = field(default_factory=Counter, repr=False)  # user and campaign, not yet told
    _state: ControlState | None = field(default=None, repr=False)
    _before: Totals | None = None

    def saw(self, user_id: str | None, answer: Answer) -> None:
        """One answer on its way out."""
        if len(self._queue) >= self.size:
            self.dropped += 1
            return
        self._queue.append(answer)
        if user_id is not None and answer.promoted:
            self._cap(user_id, Counter(answer.promoted))
            self._promoted.update({(user_id, name): count for name, count in answer.promoted.items()})

    def spent(self, user_id: str | None, campaigns: tuple[Campaign, ...]) -> Mapping[str, Spent]:
        """What the campaigns used up: budgets as of the last judgement, the caps as this worker counted them today."""
        if not campaigns:
            return NOTHING_SPENT
        day, mine = self._capped.get(user_id or "", (0, Counter()))
        today = mine if day == self._day() else Counter[str]()
        return MappingProxyType({c.name: Spent(self._budgets.get(c.name, 0), today[c.name]) for c in campaigns})

    async def flush(self, client: aioredis.Redis, shelf: Shelf) -> None:
        """Add what is queued to today's counts; raises ``DependencyError``, and then it is lost."""
        while self._queue or self.dropped:
            answers = [self._queue.popleft() for _ in range(min(AT_ONCE, len(self._queue)))]
            shown = Counter(item.item_id for answer in answers for item in answer.items)
            places = shown.total()
            promised = round(shelf.promised * places * 1000) if shelf.owing else 0
            totals = Totals(len(answers), places, promised, shelf.delivered(shown), self.dropped)
            promoted = sum((Counter(answer.promoted) for answer in answers), Counter[str]())
            try:
                await self._write(client, shown, totals, promoted)
            except DependencyError:
                self.dropped += len(answers)
                raise
            self.dropped -= totals.lost
            metrics.exposure_counted(len(answers), totals.lost)

    async def flush_caps(self, client: aioredis.Redis) -> None:
        """Tell all workers what users saw of campaigns; raises ``DependencyError``, and then only this one knows."""
        promoted, self._promoted = self._promoted, Counter()
        if not promoted:
            return
        try:
            async with client.pipeline(transaction=False) as pipe:
                for (user_id, name), count in promoted.items():
                    key = promoted_key(user_id, self._day())
                    pipe.hincrby(key, name, count)
                    pipe.expire(key, PROMOTED_SECONDS)
                await pipe.execute()
        except redis.exceptions.RedisError as error:
            raise mapped(error) from error

    async def _write(self, client: aioredis.Redis, shown: Counter[str], totals: Totals, promoted: Counter[str]) -> None:
        day = self._day()
        counts = orjson.dumps([shown, totals.fields(), promoted])
        try:
            await client.eval(ADD, 3, items_key(day), totals_key(day), CAMPAIGNS_KEY, counts, KEPT_SECONDS)
        except redis.exceptions.RedisError as error:
            raise mapped(error) from error

    async def judge(self, client: aioredis.Redis, shelf: Shelf) -> None:
        """Read the week, set the metrics, and steer the quota; raises ``DependencyError``.

        What costs as much as the catalogue is large is computed in a thread.
        """
        from monitoring import exposure

        counted = await exposure.read_counts(client, shelf.items.ids, self._day())
        await self._read_budgets(client)
        told = await asyncio.to_thread(exposure.report, counted, shelf.groups, shelf.items.eligible)
        metrics.exposure_is(
            told.promised_ratio, told.delivered_ratio, told.coverage_ratio, told.gini, told.worst_equity
        )
        share, lately = shelf.quota.share, counted.totals.minus(self._before or Totals())
        if self._before is not None and lately.places >= exposure.FEW_PLACES:
            state = self._state or exposure.ControlState()
            promised, delivered = lately.promised / lately.places, lately.delivered / lately.places
            share, self._state = exposure.step(promised, delivered, state) if promised else (shelf.promised, state)
        if self._before is None or lately.places >= exposure.FEW_PLACES or lately.places < 0:
            self._before = counted.totals
        shelf.quota = await asyncio.to_thread(
            exposure.quota_of, share, counted.shown, shelf.groups, shelf.items.eligible
        )

    async def _read_budgets(self, client: aioredis.Redis) -> None:
        try:
            raw = dict(await client.hgetall(CAMPAIGNS_KEY))
        except redis.exceptions.RedisError as error:
            raise mapped(error) from error
        self._budgets = {_text(name): int(count) for name, count in raw.items()}

    def _cap(self, user_id: str, promoted: Counter[str]) -> None:
        day, mine = self._capped.pop(user_id, (0, Counter()))
        self._capped[user_id] = (self._day(), promoted + (mine if day == self._day() else Counter()))
        if len(self._capped) > USERS_CAPPED:
            self._capped.popitem(last=False)

    def _day(self) -> int:
        return int(self.wall() // DAY)


def _text(raw: bytes | str) -> str:
    return raw.decode() if isinstance(raw, bytes) else raw


async def keep_counting(
    watch: ExposureWatch,
    current: Callable[[], Shelf | None],
    client: aioredis.Redis,
    sleep: Callable[[float], Awaitable[object]] = asyncio.sleep,
) -> None:
    """Flush and judge for as long as the worker lives, whatever fails. ``current`` is asked anew each time."""
    for flush in itertools.count():
        await sleep(FLUSH_SECONDS)
        shelf = current()
        if shelf is None:
            continue
        try:
            await watch.flush_caps(client)
            await watch.flush(client, shelf)
            if flush % FLUSHES_A_JUDGEMENT == 0:
                await watch.judge(client, shelf)
        except DependencyError as error:
            log.info("exposure not counted", extra={"cause": error.cause})
        except Exception:
            metrics.bug_found("exposure_watch")
            log.exception("bug in the exposure watch")
