"""A Kafka producer for asyncio: ``send`` returns once all in-sync replicas have the message.

librdkafka queues, batches and retries on threads of its own; one more thread here waits for its delivery reports and
hands them to the event loop. So nothing ever blocks the loop.
"""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from domain.errors import Late
from events.kafka_errors import mapped, mapping_errors
from events.log import LogFull

POLL_SECONDS = 0.1
THREAD = "kafka-reports"
Config: TypeAlias = Mapping[str, object]


@dataclass(frozen=True, slots=True)
class Letter:
    """What is to be sent. Letters with the same key reach the same partition, in the order sent."""

    key: bytes | None
    value: bytes
    headers: tuple[tuple[str, bytes], ...] = ()


@dataclass(frozen=True, slots=True)
class SendingLimits:
    """How many messages may be under way at once, and how long one may be under way before it is given up."""

    under_way: int = 10_000
    seconds: float = 1.5

    def __post_init__(self) -> None:
        if self.under_way < 1 or self.seconds < 0.01:
            raise ValueError("sending needs room for a message, and at least 10 ms to deliver it")


@dataclass(slots=True, eq=False)
class Deliveries:
    """Sends to one topic. After an error that librdkafka calls fatal it goes on with a new producer."""

    brokers: str
    topic: str
    limits: SendingLimits
    _line: _Line = field(repr=False)

    @classmethod
    def open(cls, brokers: str, topic: str, limits: SendingLimits) -> Deliveries:
        """Starts threads; the brokers are looked for in the background."""
        return cls(brokers, topic, limits, _Line.open(_config(brokers, limits)))

    async def send(self, letters: Sequence[Letter]) -> None:
        """Returns once all are durable. Raises ``LogFull`` and nothing is sent, or another ``DependencyError``."""
        if self._line.broken.is_set():
            self._line = _Line.open(_config(self.brokers, self.limits))
        if len(self._line.producer) + len(letters) > self.limits.under_way:
            raise LogFull("too many events wait for Kafka")
        if not letters:
            return
        with mapping_errors():
            try:
                async with asyncio.timeout(self.limits.seconds):
                    error = await self._queue(letters)
            except TimeoutError:
                raise Late("Kafka did not confirm the events in time") from None
        if error is not None:
            raise mapped(error)

    def _queue(self, letters: Sequence[Letter]) -> asyncio.Future[KafkaError | None]:
        """Queued, which takes microseconds; the future is what the delivery reports will say."""
        loop = asyncio.get_running_loop()
        outcome: asyncio.Future[KafkaError | None] = loop.create_future()
        reports = _Reports(len(letters), lambda error: loop.call_soon_threadsafe(_settle, outcome, error))
        for letter in letters:
            self._line.producer.produce(
                self.topic, letter.value, letter.key, headers=list(letter.headers), on_delivery=reports.add
            )
        return outcome

    async def close(self) -> None:
        """Waits for what is under way, which ends within the limit one way or the other."""
        self._line.ending.set()
        await asyncio.to_thread(self._line.thread.join)


@dataclass(slots=True, eq=False)
class _Reports:
    """The delivery reports of one ``send``; only the line's thread touches it once the last message is queued."""

    expected: int
    tell: Callable[[KafkaError | None], object]
    error: KafkaError | None = None
    received: int = 0

    def add(self, error: KafkaError | None, _: Message) -> None:
        self.error = self.error or error
        self.received += 1
        if self.received == self.expected:
            self.tell(self.error)


@dataclass(frozen=True, slots=True)
class _Line:
    """A producer, and the thread that takes its reports until the end and then those still to come."""

    producer: Producer
    ending: threading.Event
    broken: threading.Event  # a fatal error: this producer will never send again
    thread: threading.Thread

    @classmethod
    def open(cls, config: Config) -> _Line:
        producer, ending, broken = Producer(dict(config)), threading.Event(), threading.Event()
        thread = threading.Thread(target=_take_reports, args=(producer, ending, broken), name=THREAD, daemon=True)
        thread.start()
        return cls(producer, ending, broken, thread)


def _take_reports(producer: Producer, ending: threading.Event, broken: threading.Event) -> None:
    while not ending.is_set():
        try:
            producer.poll(POLL_SECONDS)
        except KafkaException:  # only a fatal error comes this way; what was under way is reported as purged
            broken.set()
            ending.set()
    producer.flush()


def _settle(outcome: asyncio.Future[KafkaError | None], error: KafkaError | None) -> None:
    if not outcome.done():  # the caller may have stopped waiting
        outcome.set_result(error)


def _config(brokers: str, limits: SendingLimits) -> Config:
    """Idempotence keeps a partition's order and makes librdkafka's own retries harmless."""
    milliseconds = round(limits.seconds * 1000)
    return {
        "bootstrap.servers": brokers,
        "acks": "all",
        "enable.idempotence": True,
        "partitioner": "murmur2_random",  # as Java's producers do it: theirs and ours agree on a user's partition
        "linger.ms": 2,
        "message.timeout.ms": milliseconds,
        "request.timeout.ms": milliseconds,
        "queue.buffering.max.messages": limits.under_way,
        "compression.type": "lz4",
        "log_level": 2,  # failed connections come back as errors; librdkafka would say each of them on stderr
    }
