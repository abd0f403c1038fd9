"""How the suite of the event log opens each implementation, and looks at it from outside."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

import redis.asyncio as aioredis
from confluent_kafka import Consumer, Producer

from events.kafka_log import KafkaFeed, KafkaLog, KafkaPlan
from events.log import EventFeed, EventLog
from events.redis_log import DEAD_LETTERS, PREFIX, RedisFeed, RedisLog, StreamPlan

DEAD_AFTER_SECONDS = 1.0


class LogCase(Protocol):
    """One empty log."""

    address: str

    def open_log(self) -> EventLog: ...

    def open_feed(self, name: str) -> EventFeed: ...

    async def put(self, raw: bytes) -> None:
        """What another program might write."""
        ...

    async def letters(self, count: int) -> list[tuple[str, bytes]]:
        """The dead letters, waited for: reason and bytes."""
        ...


@dataclass
class RedisCase:
    address: str
    plan: StreamPlan = field(default_factory=lambda: StreamPlan(claim_seconds=DEAD_AFTER_SECONDS))

    def open_log(self) -> RedisLog:
        return RedisLog.open(self.address, self.plan)

    def open_feed(self, name: str) -> RedisFeed:
        return RedisFeed.open(self.address, name, self.plan)

    async def put(self, raw: bytes) -> None:
        async with aioredis.Redis.from_url(self.address) as client:
            await client.xadd(f"{PREFIX}0", {"event": raw})

    async def letters(self, count: int) -> list[tuple[str, bytes]]:
        async with aioredis.Redis.from_url(self.address) as client:
            kept: Any = await client.xrange(DEAD_LETTERS, count=count)
        return [(fields[b"reason"].decode(), fields[b"event"]) for _, fields in kept]


@dataclass
class KafkaCase:
    """``address`` is the brokers, a slash and the topic: a cluster has room for many tests."""

    address: str

    @property
    def plan(self) -> KafkaPlan:
        brokers, _, topic = self.address.partition("/")
        return KafkaPlan(brokers, topic, group=topic, session_seconds=DEAD_AFTER_SECONDS)

    def open_log(self) -> KafkaLog:
        return KafkaLog.open(self.plan)

    def open_feed(self, name: str) -> KafkaFeed:
        return KafkaFeed.open(self.plan, name)

    async def put(self, raw: bytes) -> None:
        producer = Producer({"bootstrap.servers": self.plan.brokers})
        producer.produce(self.plan.topic, raw)
        assert producer.flush(10.0) == 0

    async def letters(self, count: int) -> list[tuple[str, bytes]]:
        settings = {"bootstrap.servers": self.plan.brokers, "group.id": "reader", "auto.offset.reset": "earliest"}
        with Consumer(settings) as consumer:
            consumer.subscribe([self.plan.dead_topic])
            kept = consumer.consume(count, 10.0)
        headers: list[dict[str, Any]] = [dict(letter.headers() or ()) for letter in kept]
        return [(of["reason"].decode(), letter.value() or b"") for of, letter in zip(headers, kept, strict=True)]


def case_of(kind: str, address: str) -> LogCase:
    return RedisCase(address) if kind == "redis" else KafkaCase(address)
