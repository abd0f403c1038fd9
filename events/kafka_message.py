"""A message of Kafka as an entry of the log, and the settings that every reader of the log shares."""

from __future__ import annotations

from collections.abc import Callable
from typing import cast

from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, Message

from events.kafka_delivery import Letter
from events.log import Entry


def entry_of(message: Message, clock: Callable[[], float]) -> Entry:
    """``position`` is (partition, offset). A message without a value becomes an entry that is no event."""
    position = (str(message.partition()), str(message.offset()))
    return Entry(position, message.value() or b"", appended_at(message, clock))


def place_of(entry: Entry) -> tuple[int, int]:
    """Partition and offset."""
    partition, offset = entry.position
    return int(partition), int(offset)


def appended_at(message: Message, clock: Callable[[], float]) -> float:
    """UTC seconds: the broker's clock or the producer's, as the topic's ``message.timestamp.type`` has it."""
    kind, milliseconds = message.timestamp()
    return clock() if kind == TIMESTAMP_NOT_AVAILABLE else milliseconds / 1000


def dead_letter(entry: Entry, reason: str) -> Letter:
    """The entry's own bytes; why it is no event, and where it stood, in the headers."""
    partition, offset = entry.position
    headers = {"reason": reason, "partition": partition, "offset": offset}
    return Letter(None, entry.raw, tuple((name, text.encode()) for name, text in headers.items()))


def consumer_config(brokers: str, group: str) -> dict[str, object]:
    """Nothing is committed unless we say so, and a group without a commit begins with the oldest entry."""
    return {
        "bootstrap.servers": brokers,
        "group.id": group,
        "enable.auto.commit": False,
        "enable.auto.offset.store": False,
        "auto.offset.reset": "earliest",
        "log_level": 2,  # failed connections come back as errors; librdkafka would say each of them on stderr
    }


def where(message: Message) -> tuple[int, int]:
    """Partition and offset of a message that carries no error; then it has both."""
    return cast("int", message.partition()), cast("int", message.offset())
