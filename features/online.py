"""The user's features from Redis: one round trip, decoded from Feast's layout without Feast.

Importing Feast's SDK takes seconds, and a row of twenty features costs half a millisecond of CPU through it. A parity
test holds what is read here equal to the SDK's answer.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Literal, TypeAlias, cast

import numpy as np
import redis.asyncio as aioredis
import redis.exceptions
from redis.asyncio.connection import AbstractConnection
from redis.asyncio.retry import Retry
from redis.asyncio.sentinel import SentinelManagedConnection
from redis.backoff import NoBackoff

from domain.arrays import Floats, Mask, Seconds
from domain.clock import Clock
from domain.errors import BadAnswer, DependencyError, Late, Unreachable
from features import layout
from features.contract import Contract, Feature
from features.contract_diff import Meaning, differences
from features.redis_connection import hardened
from features.sentinel import PrimaryClient, PrimaryPool, SentinelAddress, connection_arguments, is_sentinel
from features.shown import KEPT_SLATES, Promoted, ShownIds, promoted_key, shown_key, today
from features.shown import decode as decode_shown

Reason: TypeAlias = Literal["missing", "unexpected", "expired", "non_finite", "out_of_range"]
"""Not there or null, of another type or width, past its maximum age, not a number, outside the contract's range."""

Problem: TypeAlias = tuple[str, Reason]


@dataclass(frozen=True, slots=True, eq=False)
class Recents:
    """A user's last events, oldest first, aligned ``(r,)``; items by their external ids, for any bundle to map."""

    item_ids: tuple[str, ...]
    rating: Floats  # stars; NaN where an event carried none
    timestamp: Seconds  # UTC seconds

    def __len__(self) -> int:
        return len(self.item_ids)

    @classmethod
    def none(cls) -> Recents:
        return cls((), np.empty(0, np.float32), np.empty(0, np.float64))

    def then(self, later: Recents) -> Recents:
        """These and ``later``, oldest first; an event that both hold (same item and moment) is kept once."""
        known = set(zip(self.item_ids, self.timestamp.tolist(), strict=True))
        pairs = zip(later.item_ids, later.timestamp.tolist(), strict=True)
        new = [at for at, pair in enumerate(pairs) if pair not in known]
        item_ids = (*self.item_ids, *(later.item_ids[at] for at in new))
        rating = np.concatenate([self.rating, later.rating[new]])
        timestamp = np.concatenate([self.timestamp, later.timestamp[new]])
        order = np.argsort(timestamp, kind="stable")
        return Recents(tuple(item_ids[at] for at in order), rating[order], timestamp[order])


@dataclass(frozen=True, slots=True, eq=False)
class StoredUser:
    """One user's row. Every feature is finite and in range: what was not is the default, and told in ``problems``."""

    features: Floats  # (U,) in the contract's order
    recent: Recents  # what came through the stream, on the wall clock; none is no problem
    as_of: float  # the watermark of the batch features, UTC seconds on the data's clock
    age: float  # seconds from the watermark to the read, on the same clock
    stale: bool  # some feature is past its freshness limit
    problems: tuple[Problem, ...]
    shown: ShownIds = field(default_factory=ShownIds.none)
    promoted: Promoted = field(default_factory=Promoted)
    has_batch: bool = True  # False: only the stream knows this user; the features are defaults, as of the read


@dataclass(frozen=True, eq=False)
class OnlineStore:
    """Reads users from one Feast project. The client is shared and outlives this; the clock is the data's."""

    client: aioredis.Redis = field(repr=False)
    project: str
    contract: Contract = field(repr=False)
    clock: Clock
    with_shown: bool = False  # also read what the user was shown lately, in the same round trip
    with_promoted: bool = False  # and how often campaigns were shown to them today

    async def read(self, user_id: str) -> StoredUser | None:
        """The user's row, or None if the store has none. One round trip; raises only ``DependencyError``."""
        try:
            day = today(time.time())
            values, slates, counts = await self._fetch(user_id, day)
            return self.decode(values, decode_shown(slates), Promoted.read(day, counts))
        except redis.exceptions.RedisError as error:
            raise mapped(error) from error

    async def _fetch(self, user_id: str, day: int) -> tuple[list[bytes | None], list[bytes], list[bytes]]:
        """HMGET on a connection of the pool, the command packed by hand: of its bytes only the key ever changes.

        That, without redis-py's retries and hooks around it, takes a quarter off the CPU of a read. The slates that the
        user was shown, and the campaigns they were shown today, are asked for in the same packet.
        """
        start, rest = self._command
        key = layout.row_key(self.project, user_id)
        packet = b"%s$%d\r\n%s\r\n%s" % (start, len(key), key, rest)
        if self.with_shown:
            listed = shown_key(user_id)
            packet += b"*4\r\n$6\r\nLRANGE\r\n$%d\r\n%s\r\n$1\r\n0\r\n%s" % (len(listed), listed, _LAST_SLATE)
        if self.with_promoted:
            counted = promoted_key(user_id, day)
            packet += b"*2\r\n$7\r\nHGETALL\r\n$%d\r\n%s\r\n" % (len(counted), counted)
        pool = self.client.connection_pool
        connection = await pool.get_connection()  # type: ignore[no-untyped-call]  # a decorator hides its types
        try:
            await connection.send_packed_command(packet)
            values = cast("list[bytes | None]", await connection.read_response())
            slates = cast("list[bytes]", await connection.read_response()) if self.with_shown else []
            counts = cast("list[bytes]", await connection.read_response()) if self.with_promoted else []
        except redis.exceptions.ResponseError:
            await connection.disconnect()  # there may be another answer on its way, which is nobody else's
            raise
        finally:
            await pool.release(connection)
        return values, slates, counts

    def decode(
        self, values: Sequence[bytes | None], shown: ShownIds | None = None, promoted: Promoted | None = None
    ) -> StoredUser | None:
        """A user from the fields that ``layout.read_fields`` names, in that order; None where neither view has one.

        A bad feature is the contract's default and a problem. A batch row that does not say what it is as of has no
        age, so nothing in it can be trusted: that is a ``BadAnswer``.
        """
        stamp, features, recents = values[0], values[1 : -len(layout.RECENTS)], values[-len(layout.RECENTS) :]
        problems: list[Problem] = []
        recent = _recent(recents, problems)
        shown, promoted = shown or ShownIds.none(), promoted or Promoted()
        if stamp is None:
            if recent is None and not shown.item_ids and not promoted.by_campaign:
                return None
            return self._newcomer(recent or Recents.none(), problems, shown, promoted)
        try:
            as_of = layout.decode_time(stamp)
        except ValueError as error:
            raise BadAnswer("the stored user does not say what it is as of") from error
        age = self.clock.now(None) - as_of
        row = self._row(features, age, problems)
        return StoredUser(
            row,
            recent or Recents.none(),
            as_of,
            age,
            age > self._freshness,
            tuple(problems),
            shown,
            promoted,
        )

    def _newcomer(self, recent: Recents, problems: list[Problem], shown: ShownIds, promoted: Promoted) -> StoredUser:
        """A user whom no batch has seen yet: nothing is known but the recents, and that is as of now."""
        now = self.clock.now(None)
        defaults, told = self.contract.user.defaults, tuple(problems)
        return StoredUser(defaults, recent, now, 0.0, False, told, shown, promoted, has_batch=False)

    def _row(self, values: Sequence[bytes | None], age: float, problems: list[Problem]) -> Floats:
        """``(U,)``: the raw columns of all features end to end, then one check of all values at once."""
        columns = self.contract.user
        pieces = [column.raw(value, age, problems) for column, value in zip(self._columns, values, strict=True)]
        row = np.frombuffer(b"".join(pieces), "<f4")
        valid = (row >= columns.low) & (row <= columns.high)  # false for NaN
        return row if valid.all() else self._corrected(row, valid, problems)

    def _corrected(self, row: Floats, valid: Mask, problems: list[Problem]) -> Floats:
        """One bad column spoils its whole feature: what is left of a genre vector would be told as if it were whole."""
        row = row.copy()
        for name, span in self.contract.user.slices.items():
            if not valid[span].all():
                problems.append((name, "out_of_range" if np.isfinite(row[span]).all() else "non_finite"))
                row[span] = self.contract.user.defaults[span]
        return row

    @cached_property
    def _command(self) -> tuple[bytes, bytes]:
        """HMGET in Redis's protocol, before the key and after it."""
        fields = layout.read_fields(self.contract)
        bulk = b"".join(b"$%d\r\n%s\r\n" % (len(name), name) for name in fields)
        return b"*%d\r\n$5\r\nHMGET\r\n" % (len(fields) + 2), bulk

    @cached_property
    def _columns(self) -> tuple[_Column, ...]:
        return tuple(_Column(feature, layout.FloatForm.of(feature)) for feature in self.contract.user.features)

    @cached_property
    def _freshness(self) -> float:
        return min(feature.freshness_seconds for feature in self.contract.user.features)


_LAST_SLATE = b"$%d\r\n%d\r\n" % (len(str(KEPT_SLATES - 1)), KEPT_SLATES - 1)


@dataclass(frozen=True)
class _Column:
    feature: Feature
    form: layout.FloatForm

    @cached_property
    def default(self) -> bytes:
        return np.full(self.feature.width, self.feature.default, "<f4").tobytes()

    def raw(self, value: bytes | None, age: float, problems: list[Problem]) -> bytes:
        """The stored columns as bytes, or the default's. A null is no problem where the contract allows it."""
        raw = self.form.raw(value) if value else None
        if raw is not None and age <= self.feature.max_age_seconds:
            return raw
        if value is None or (not value and not self.feature.nullable):
            problems.append((self.feature.name, "missing"))
        elif value:
            problems.append((self.feature.name, "unexpected" if raw is None else "expired"))
        return self.default


def _recent(values: Sequence[bytes | None], problems: list[Problem]) -> Recents | None:
    """The session view, or None where there is none. All three lists or no events: they mean something side by side."""
    if values.count(None) == len(values):
        return None
    for name, value in zip(layout.RECENTS, values, strict=True):
        if not value:
            problems.append((name, "missing"))
            return Recents.none()
    ids, ratings, timestamps = cast("Sequence[bytes]", values)
    try:
        recent = Recents(layout.decode_strings(ids), layout.decode_floats(ratings), layout.decode_doubles(timestamps))
    except ValueError:
        problems.append((layout.RECENT_ITEM_IDS, "unexpected"))
        return Recents.none()
    if not len(recent) == len(recent.rating) == len(recent.timestamp):
        problems.append((layout.RECENT_ITEM_IDS, "unexpected"))
        return Recents.none()
    if not np.isfinite(recent.timestamp).all() or np.isinf(recent.rating).any():
        problems.append((layout.RECENT_TIMESTAMPS, "non_finite"))
        return Recents.none()
    return recent


def mapped(error: redis.exceptions.RedisError) -> DependencyError:
    """Redis's exceptions in our tree. A pool without a free connection is lateness: the answer did not fit in."""
    if isinstance(error, redis.exceptions.TimeoutError) or isinstance(error.__cause__, TimeoutError):
        return Late("Redis did not answer in time")
    if isinstance(error, redis.exceptions.ConnectionError):
        return Unreachable("Redis cannot be reached")
    return BadAnswer("Redis refused the read")


class ReadPool(aioredis.BlockingConnectionPool):
    """redis-py's pool with a short way for the usual case, that a connection is free: a quarter off a read's CPU.

    What the short way leaves out is telemetry that nobody listens to, and what RESP3's maintenance messages and
    credentials that expire need; ``connect`` uses neither. Waiting for a connection is redis-py's own.
    """

    async def get_connection(self, *_: object, **__: object) -> AbstractConnection:
        if not self.can_get_connection():
            return await super().get_connection()  # type: ignore[no-untyped-call]  # here and below: redis-py has none
        connection = self.get_available_connection()  # type: ignore[no-untyped-call]
        try:
            await self.ensure_connection(connection)
        except BaseException:
            await self.release(connection)
            raise
        return connection

    async def release(self, connection: AbstractConnection) -> None:
        self._in_use_connections.remove(connection)
        if connection.should_reconnect():  # type: ignore[no-untyped-call]
            await connection.disconnect()
        self._available_connections.append(connection)
        async with self._condition:
            self._condition.notify()


class PrimaryReadPool(ReadPool, PrimaryPool):
    """The same pool, its connections always to the primary that Sentinel names."""


@dataclass(frozen=True, slots=True)
class ClientLimits:
    """How Redis is talked to on the request path: every wait is bounded, and nothing is tried twice."""

    connections: int = 32
    wait_seconds: float = 0.010  # for a free connection of the pool
    connect_seconds: float = 0.050
    answer_seconds: float = 0.050  # a backstop; the request's own deadline cuts earlier

    def __post_init__(self) -> None:
        if min(self.connections, self.wait_seconds, self.connect_seconds, self.answer_seconds) <= 0:
            raise ValueError("a Redis client needs connections, and time to wait for them")


def connect(redis_url: str, limits: ClientLimits | None = None) -> aioredis.Redis:
    """A client on a pool of its own; opens nothing yet, and is closed with ``aclose``.

    RESP2 without client information, so that a new connection is one TCP handshake and no further round trip. A read
    that is cancelled or late closes its connection (redis-py does), so that nobody reads another's answer.
    """
    limits = limits or ClientLimits()
    bounds: dict[str, Any] = {
        "max_connections": limits.connections,
        "timeout": limits.wait_seconds,
        "socket_connect_timeout": limits.connect_seconds,
        "socket_timeout": limits.answer_seconds,
        "retry": Retry(NoBackoff(), 0),
        "protocol": 2,
        "driver_info": None,
    }
    if is_sentinel(redis_url):
        return _follow_primary(SentinelAddress.parse(redis_url), bounds)
    pool = ReadPool.from_url(redis_url, **bounds)
    pool.connection_class = hardened(pool.connection_class)
    return aioredis.Redis.from_pool(pool)


def _follow_primary(address: SentinelAddress, bounds: dict[str, Any]) -> aioredis.Redis:
    pool = PrimaryReadPool(connection_class=hardened(SentinelManagedConnection), **bounds)
    pool.follow(address)
    pool.connection_kwargs.update(connection_arguments(pool, address))
    return PrimaryClient.from_pool(pool)


async def disagreements(client: aioredis.Redis, project: str, meaning: Meaning) -> list[str]:
    """Where the store's features mean something else than ours, a line each; nothing where the store is still empty.

    For whoever starts on this store: one that disagrees must not be read. Raises ``DependencyError``.
    """
    try:
        held = await client.get(layout.meaning_key(project))
        return differences(meaning.document(), json.loads(held)) if held else []
    except redis.exceptions.RedisError as error:
        raise mapped(error) from error
    except (ValueError, AttributeError) as error:
        raise BadAnswer("what the store's features mean cannot be read") from error


async def warm(client: aioredis.Redis, connections: int) -> None:
    """Open so many connections before the first request needs them; raises ``DependencyError``."""
    try:
        await asyncio.gather(*(client.ping() for _ in range(connections)))
    except redis.exceptions.RedisError as error:
        raise mapped(error) from error
