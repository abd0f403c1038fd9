"""How far a consumer group is behind, in seconds: the age of the oldest entry that the group is not done with."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from confluent_kafka import Consumer, TopicPartition

from domain.errors import BadAnswer, Late
from events.kafka_errors import mapped
from events.kafka_message import appended_at, consumer_config

HEAD_BYTES = 16_384  # the least that a fetch for one entry asks for; Kafka gives a whole entry in any case


@dataclass(slots=True, eq=False)
class LagProbe:
    """Looks at every partition, whoever reads it. It asks what the group has committed and never joins it.

    Every method blocks; call it from one thread at a time.
    """

    consumer: Consumer = field(repr=False)
    topic: str
    seconds: float  # what one question to Kafka may take
    clock: Callable[[], float] = time.time
    _heads: dict[int, tuple[int, float]] = field(default_factory=dict)  # partition: offset, when it was appended

    @classmethod
    def open(cls, brokers: str, topic: str, group: str, seconds: float) -> LagProbe:
        small = {"max.partition.fetch.bytes": HEAD_BYTES, "queued.min.messages": 1}
        return cls(Consumer(consumer_config(brokers, group) | small), topic, seconds)

    def lag_seconds(self) -> float:
        """0 when nothing waits; raises ``DependencyError`` or ``KafkaException``."""
        waiting = self._waiting()
        self._heads = {place.partition: self._head(place) for place in waiting}
        now = self.clock()
        return max([0.0, *(now - appended for _, appended in self._heads.values())])

    def _waiting(self) -> list[TopicPartition]:
        """The first place that is not done, of each partition that has one."""
        places = self.consumer.committed(self._partitions(), timeout=self.seconds)
        behind = []
        for place in places:
            if place.error is not None:
                raise mapped(place.error)
            first, end = self._ends(place)
            offset = max(first, place.offset)  # negative: nothing committed yet; below first: retention was quicker
            if offset < end:
                behind.append(TopicPartition(self.topic, place.partition, offset))
        return behind

    def _partitions(self) -> list[TopicPartition]:
        topic = self.consumer.list_topics(self.topic, timeout=self.seconds).topics[self.topic]
        if topic.error is not None:
            raise mapped(topic.error)
        return [TopicPartition(self.topic, partition) for partition in topic.partitions]

    def _ends(self, place: TopicPartition) -> tuple[int, int]:
        """The first offset that the partition still has, and the one that its next entry will get."""
        ends = self.consumer.get_watermark_offsets(place, timeout=self.seconds)
        if ends is None:
            raise Late("Kafka did not tell the ends of a partition in time")
        return ends

    def _head(self, place: TopicPartition) -> tuple[int, float]:
        known = self._heads.get(place.partition)
        return known if known and known[0] == place.offset else (place.offset, self._read(place))

    def _read(self, place: TopicPartition) -> float:
        """When the entry at this place was appended; the only way to know is to read it."""
        self.consumer.assign([place])
        try:
            message = self.consumer.poll(self.seconds)
        finally:
            self.consumer.unassign()
        if message is None:
            raise Late("Kafka did not give the oldest entry in time")
        if (error := message.error()) is not None:
            raise mapped(error)
        if message.partition() != place.partition:
            raise BadAnswer("Kafka gave an entry of another partition")
        return appended_at(message, self.clock)
