"""The log in Redis Streams: one stream a shard, one consumer group, and a stream of dead letters.

An entry is deleted when a consumer is done with it, so a stream holds exactly what nobody is done with: its length is
the backlog, and the age of its first entry is the lag. A stream that has reached its bound takes no more (``LogFull``)
instead of dropping its oldest, which XADD's MAXLEN would do without a word. Redis must not evict (``noeviction``).
"""

from __future__ import annotations

import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from itertools import groupby
from typing import Any, TypeAlias, cast

import redis.asyncio as aioredis
import redis.exceptions

from events.event import Event, encode
from events.log import Batch, Entry, LogFull
from events.redis_errors import mapping_errors
from features.online import ClientLimits, connect

PREFIX = "streamrec:events:"
DEAD_LETTERS = "streamrec:dead-letters"
GROUP = "session"
FIELD = b"event"
DEAD_LETTERS_KEPT = 10_000

# Waits are longer than on the path of a recommendation: nobody has a slate to show until this answers.
WRITING = ClientLimits(connections=8, wait_seconds=0.5, connect_seconds=0.5, answer_seconds=1.0)

# All or nothing, so that a refused batch leaves nothing behind. KEYS: streams; ARGV: bound, then stream number, event.
_APPEND = """
for _, key in ipairs(KEYS) do
  if redis.call('XLEN', key) >= tonumber(ARGV[1]) then return 0 end
end
for i = 2, #ARGV, 2 do redis.call('XADD', KEYS[tonumber(ARGV[i])], '*', 'event', ARGV[i + 1]) end
return 1
"""

_Message: TypeAlias = tuple[bytes, Mapping[bytes, bytes] | None]  # id, fields; no fields: deleted meanwhile


def shard_of(user_id: str, shards: int) -> int:
    """The same shard for the same user, in every process and for good."""
    return zlib.crc32(user_id.encode("utf-8", "surrogatepass")) % shards


def streams(shards: int) -> tuple[str, ...]:
    return tuple(f"{PREFIX}{shard}" for shard in range(shards))


@dataclass(frozen=True, slots=True)
class StreamPlan:
    """How the log lies in Redis; the same for every producer and consumer."""

    shards: int = 4
    backlog: int = 250_000  # events that a shard holds at most
    claim_seconds: float = 10.0  # an entry that a consumer has had for so long is given to another

    def __post_init__(self) -> None:
        if min(self.shards, self.backlog, self.claim_seconds) <= 0:
            raise ValueError("a log needs shards, room in them, and time to work on an entry")


class RedisLog:
    """The producing side. Durable means what Redis's ``appendfsync`` means: see ADR 11."""

    def __init__(self, client: aioredis.Redis, plan: StreamPlan) -> None:
        self._client = client
        self._plan = plan
        self._append = client.register_script(_APPEND)

    @classmethod
    def open(cls, redis_url: str, plan: StreamPlan) -> RedisLog:
        """On a pool of its own, connected by the first append."""
        return cls(connect(redis_url, WRITING), plan)

    async def append(self, events: Sequence[Event]) -> None:
        """One script, one round trip, all or nothing; raises ``DependencyError``."""
        shards = [shard_of(event.user_id, self._plan.shards) for event in events]
        touched = sorted(set(shards))
        words: list[bytes | int] = [self._plan.backlog]
        for shard, event in zip(shards, events, strict=True):
            words += [touched.index(shard) + 1, encode(event)]
        with mapping_errors():
            appended = await self._append(keys=[f"{PREFIX}{shard}" for shard in touched], args=words)
        if not appended:
            raise LogFull("the event log is full")

    async def close(self) -> None:
        await self._client.aclose()


@dataclass(slots=True, eq=False)
class RedisFeed:
    """The consuming side: one consumer of the group, reading every shard.

    Redis deals the entries out among the consumers. What this one took and did not finish it is given again first,
    under the same ``name`` also after a restart; what another has had for ``claim_seconds`` is taken over.
    """

    client: aioredis.Redis = field(repr=False)
    name: str
    plan: StreamPlan
    clock: Callable[[], float] = time.monotonic
    _resuming: bool = True  # there may be entries under our name from before
    _in_hand: bool = False
    _claim_at: float = 0.0
    _claim_from: dict[str, bytes] = field(default_factory=dict)

    @classmethod
    def open(cls, redis_url: str, name: str, plan: StreamPlan, wait_seconds: float = 1.0) -> RedisFeed:
        """On a pool of its own; ``wait_seconds`` is the longest that ``take`` will be asked to wait."""
        limits = ClientLimits(connections=2, wait_seconds=1.0, connect_seconds=1.0, answer_seconds=wait_seconds + 5.0)
        return cls(connect(redis_url, limits), name, plan)

    async def take(self, limit: int, wait_seconds: float) -> Batch:
        """Our own unfinished entries, else a dead consumer's, else new ones."""
        self._resuming |= self._in_hand
        with mapping_errors():
            try:
                batch = await self._take(limit, wait_seconds)
            except redis.exceptions.ResponseError as error:
                if "NOGROUP" not in str(error):
                    raise
                batch = await self._make_groups()
        self._in_hand = len(batch) > 0
        return batch

    async def _take(self, limit: int, wait_seconds: float) -> Batch:
        if self._resuming:
            if own := await self._read(b"0", limit, None):
                return own
            self._resuming = False
        if self.clock() >= self._claim_at:
            if left := await self._claim(limit):
                return left
            self._claim_at = self.clock() + self.plan.claim_seconds / 2
        return await self._read(b">", limit, wait_seconds)

    async def _make_groups(self) -> Batch:
        """Both on the first day and after Redis lost its data; an empty batch, so that the caller comes again."""
        for stream in streams(self.plan.shards):
            try:
                await self.client.xgroup_create(stream, GROUP, id="0", mkstream=True)
            except redis.exceptions.ResponseError as error:
                if "BUSYGROUP" not in str(error):
                    raise
        return Batch()

    async def _read(self, after: bytes, limit: int, wait_seconds: float | None) -> Batch:
        """Redis counts the limit for each stream: it is shared out, so that no shard can starve another."""
        share = max(1, limit // self.plan.shards)
        wait = None if wait_seconds is None else max(1, round(wait_seconds * 1000))
        places: dict[Any, Any] = dict.fromkeys(streams(self.plan.shards), after)
        answer = await self.client.xreadgroup(GROUP, self.name, places, count=share, block=wait)
        entries: list[Entry] = []
        for stream, messages in cast("list[tuple[bytes, list[_Message]]]", answer or []):
            entries += await self._entries(stream.decode(), messages)
        return Batch(tuple(entries))

    async def _claim(self, limit: int) -> Batch:
        """What another consumer took long ago and did not finish, from the first shard that has any."""
        idle = round(self.plan.claim_seconds * 1000)
        for stream in streams(self.plan.shards):
            start = self._claim_from.get(stream, b"0-0")
            answer = await self.client.xautoclaim(stream, GROUP, self.name, idle, start_id=start, count=limit)
            self._claim_from[stream] = cast("bytes", answer[0])
            if entries := await self._entries(stream, answer[1]):
                return Batch(tuple(entries))
        return Batch()

    async def _entries(self, stream: str, messages: Sequence[_Message]) -> list[Entry]:
        """The messages that still exist; the others are nobody's business any more."""
        gone = [name for name, fields in messages if name is not None and fields is None]
        if gone:
            await self.client.xack(stream, GROUP, *gone)
        return [_entry(stream, name, fields) for name, fields in messages if fields is not None]

    async def done(self, batch: Batch) -> None:
        """Acknowledged and deleted in one transaction."""
        with mapping_errors():
            async with self.client.pipeline(transaction=True) as pipe:
                for stream, entries in groupby(batch.entries, lambda entry: entry.position[0]):
                    names = [entry.position[1] for entry in entries]
                    pipe.xack(stream, GROUP, *names)
                    pipe.xdel(stream, *names)
                await pipe.execute()
        self._in_hand = False

    async def bury(self, entry: Entry, reason: str) -> None:
        """The newest ``DEAD_LETTERS_KEPT`` are kept. A batch that is given out again buries its dead again."""
        stream, name = entry.position
        letter: dict[Any, Any] = {"reason": reason, "stream": stream, "id": name, "event": entry.raw}
        with mapping_errors():
            await self.client.xadd(DEAD_LETTERS, letter, maxlen=DEAD_LETTERS_KEPT, approximate=True)

    async def lag_seconds(self) -> float:
        """Age of the oldest entry of all shards, by Redis's clock."""
        with mapping_errors():
            async with self.client.pipeline(transaction=False) as pipe:
                pipe.time()
                for stream in streams(self.plan.shards):
                    pipe.xrange(stream, count=1)
                (seconds, micros), *heads = await pipe.execute()
        now = seconds + micros / 1e6
        return max([0.0, *(now - _appended_at(head[0][0]) for head in heads if head)])

    async def close(self) -> None:
        await self.client.aclose()


def _entry(stream: str, name: bytes, fields: Mapping[bytes, bytes]) -> Entry:
    """Fields that are not ours are kept as one text, for the dead letter that they will become."""
    raw = fields[FIELD] if FIELD in fields else b" ".join(word for pair in fields.items() for word in pair)
    return Entry((stream, name.decode()), raw, _appended_at(name))


def _appended_at(name: bytes) -> float:
    return int(name.partition(b"-")[0]) / 1000
