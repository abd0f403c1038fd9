"""The log in Kafka: one topic, the users dealt out to its partitions by key, one consumer group, and dead letters.

Kafka keeps an entry for the topic's retention, done or not: it must be longer than consumers may ever be away. The
topic and ``<topic>.dead`` are the operator's to create: replicated, with ``min.insync.replicas`` of two or more, and
with ``message.timestamp.type=LogAppendTime``, so that one clock says how old an entry is.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import TypeVar

from confluent_kafka import Consumer, KafkaError, Message, TopicPartition

from domain.errors import Late
from events.event import Event, encode
from events.kafka_delivery import Deliveries, Letter, SendingLimits
from events.kafka_errors import mapped, mapping_errors
from events.kafka_lag import LagProbe
from events.kafka_message import consumer_config, dead_letter, entry_of, place_of, where
from events.log import Batch, Entry

SETTLING_SECONDS = 0.01  # how long nothing may come from the group until we take it to have let us go
T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class KafkaPlan:
    """Where the log lies; the same for every producer and consumer."""

    brokers: str  # host:port, several with commas between
    topic: str = "streamrec.events"
    group: str = "session"
    session_seconds: float = 10.0  # a consumer that was silent for so long is dead, and others get its partitions
    answer_seconds: float = 5.0  # the longest wait for Kafka's answer to a commit or a question
    sending: SendingLimits = SendingLimits()  # noqa: RUF009  # frozen

    def __post_init__(self) -> None:
        if not (self.brokers and self.topic and self.group):
            raise ValueError("a log in Kafka needs brokers, a topic and a group")  # librdkafka aborts the process
        if min(self.session_seconds, self.answer_seconds) <= 0:
            raise ValueError("Kafka needs time to answer")

    @property
    def dead_topic(self) -> str:
        return f"{self.topic}.dead"


@dataclass(frozen=True, slots=True, eq=False)
class KafkaLog:
    """The producing side: durable means that all in-sync replicas have it."""

    deliveries: Deliveries

    @classmethod
    def open(cls, plan: KafkaPlan) -> KafkaLog:
        return cls(Deliveries.open(plan.brokers, plan.topic, plan.sending))

    async def append(self, events: Sequence[Event]) -> None:
        """Each user's events to the user's partition, in the order given; raises ``DependencyError``."""
        await self.deliveries.send([Letter(key_of(event.user_id), encode(event)) for event in events])

    async def close(self) -> None:
        await self.deliveries.close()


def key_of(user_id: str) -> bytes:
    return user_id.encode("utf-8", "surrogatepass")


@dataclass(slots=True, eq=False)
class KafkaFeed:
    """The consuming side: one consumer of the group, with the partitions that the group gives it.

    An entry counts as done when a later offset of its partition is committed, so a batch that is not done must be
    given again before anything after it: ``take`` first goes back to where it began. A partition that was taken away
    meanwhile begins with its new owner at the committed offset, which is the same place or an earlier one.

    librdkafka's consumer blocks, and rebalances only while it is polled: both happen on one thread of its own.
    """

    consumer: Consumer = field(repr=False)
    dead: Deliveries = field(repr=False)
    probe: LagProbe = field(repr=False)
    plan: KafkaPlan
    trouble: list[KafkaError] = field(default_factory=list)  # what the brokers' connections said since last asked
    clock: Callable[[], float] = time.time
    _in_hand: dict[int, int] = field(default_factory=dict)  # partition: first offset given out and not done
    _reading: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "kafka-feed"), repr=False)
    _probing: ThreadPoolExecutor = field(default_factory=lambda: ThreadPoolExecutor(1, "kafka-lag"), repr=False)

    @classmethod
    def open(cls, plan: KafkaPlan, name: str) -> KafkaFeed:
        """Joins the group with the first ``take``; ``name`` is how Kafka's own tools will show this consumer."""
        trouble: list[KafkaError] = []
        consumer = Consumer(_config(plan, name) | {"error_cb": trouble.append})
        consumer.subscribe([plan.topic])
        dead = Deliveries.open(plan.brokers, plan.dead_topic, plan.sending)
        probe = LagProbe.open(plan.brokers, plan.topic, plan.group, plan.answer_seconds)
        return cls(consumer, dead, probe, plan, trouble)

    async def take(self, limit: int, wait_seconds: float) -> Batch:
        """What we took and did not finish, then new entries."""
        seconds = wait_seconds + self.plan.answer_seconds
        return await _within(seconds, self._reading, lambda: self._take(limit, wait_seconds))

    def _take(self, limit: int, wait_seconds: float) -> Batch:
        self._go_back()
        first = self.consumer.poll(wait_seconds)
        if first is None:
            self._raise_trouble()
            return Batch()
        self.trouble.clear()  # they answer
        messages = [first, *self.consumer.consume(limit - 1, 0.0)] if limit > 1 else [first]
        return self._batch(messages)

    def _go_back(self) -> None:
        """Where this fails nothing may be read, or a later commit would skip what we did not finish."""
        ours = {place.partition for place in self.consumer.assignment()}
        for partition, offset in tuple(self._in_hand.items()):
            if partition in ours:
                self.consumer.seek(TopicPartition(self.plan.topic, partition, offset))
            del self._in_hand[partition]

    def _batch(self, messages: Sequence[Message]) -> Batch:
        """An error among entries is left aside: librdkafka reports what lasts again."""
        entries = [message for message in messages if message.error() is None]
        for partition, offset in map(where, entries):
            self._in_hand.setdefault(partition, offset)
        for error in (message.error() for message in messages if not entries):
            if error is not None:
                raise mapped(error)
        return Batch(tuple(entry_of(message, self.clock) for message in entries))

    def _raise_trouble(self) -> None:
        said, self.trouble[:] = tuple(self.trouble), ()
        for error in said:
            if error.code() == KafkaError._ALL_BROKERS_DOWN:  # noqa: SLF001  # librdkafka's own code
                raise mapped(error)

    async def done(self, batch: Batch) -> None:
        """Commits, and returns when Kafka has it. Raises if the group went on without us: it is given out again."""
        await _within(self.plan.answer_seconds, self._reading, lambda: self._commit(batch))

    def _commit(self, batch: Batch) -> None:
        ends: dict[int, int] = {}
        for partition, offset in map(place_of, batch.entries):
            ends[partition] = max(ends.get(partition, 0), offset + 1)
        if not ends:
            return
        places = [TopicPartition(self.plan.topic, partition, end) for partition, end in ends.items()]
        for place in self.consumer.commit(offsets=places, asynchronous=False) or ():
            if place.error is not None:
                raise mapped(place.error)
        for partition, end in ends.items():
            if self._in_hand.get(partition, end) < end:  # not what a take gave that nobody waited for
                del self._in_hand[partition]

    async def bury(self, entry: Entry, reason: str) -> None:
        """Durable in ``<topic>.dead`` when this returns. A batch that is given out again buries its dead again."""
        await self.dead.send([dead_letter(entry, reason)])

    async def lag_seconds(self) -> float:
        """Of the whole group, by the entries' own times. A few questions to Kafka for each partition."""
        return await _within(6 * self.plan.answer_seconds, self._probing, self.probe.lag_seconds)

    async def close(self) -> None:
        """Leaves the group, so that others need not wait for it to be counted as dead."""
        loop = asyncio.get_running_loop()
        await loop.run_in_executor(self._reading, self._leave)
        await loop.run_in_executor(self._probing, self.probe.consumer.close)
        await self.dead.close()
        self._reading.shutdown(wait=False)
        self._probing.shutdown(wait=False)

    def _leave(self) -> None:
        """First takes whatever the group deals out or takes back, for that must not wait in line at the closing:
        librdkafka then asks itself a question that nobody answers any more, and Python stands still with it
        (https://github.com/confluentinc/librdkafka/issues/4884).
        """
        self.consumer.unsubscribe()
        end = time.monotonic() + self.plan.answer_seconds
        while time.monotonic() < end:
            if self.consumer.poll(SETTLING_SECONDS) is None and not self.consumer.assignment():
                break
        self.consumer.close()


async def _within(seconds: float, thread: ThreadPoolExecutor, work: Callable[[], T]) -> T:
    """The work goes on where it is when we stop waiting; what it does to the feed it does on the feed's own thread."""
    with mapping_errors():
        try:
            async with asyncio.timeout(seconds):
                return await asyncio.get_running_loop().run_in_executor(thread, work)
        except TimeoutError:
            raise Late("Kafka did not answer in time") from None


def _config(plan: KafkaPlan, name: str) -> dict[str, object]:
    session = round(plan.session_seconds * 1000)
    return consumer_config(plan.brokers, plan.group) | {
        "client.id": name,
        "session.timeout.ms": session,
        "heartbeat.interval.ms": session // 3,
        "max.poll.interval.ms": max(60_000, session),  # the longest that one batch may take
        "partition.assignment.strategy": "cooperative-sticky",  # who comes or goes does not stop the others
        "fetch.wait.max.ms": 100,
    }
