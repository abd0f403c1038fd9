"""Settings -> the event log: the one place that chooses what it lies in. Kafka's client is imported only for Kafka."""

from __future__ import annotations

from typing import TYPE_CHECKING

from app.settings import Settings
from events.log import EventFeed, EventLog
from events.redis_log import RedisFeed, RedisLog, StreamPlan

if TYPE_CHECKING:
    from events.kafka_log import KafkaPlan


def open_log(settings: Settings) -> EventLog:
    """The producing side; connects with the first append."""
    if settings.event_log == "kafka":
        from events.kafka_log import KafkaLog

        return KafkaLog.open(_kafka_plan(settings))
    return RedisLog.open(settings.redis_address, _stream_plan(settings))


def open_feed(settings: Settings, name: str) -> EventFeed:
    """The consuming side for the consumer ``name``, which is the same after a restart and nobody else's."""
    if settings.event_log == "kafka":
        from events.kafka_log import KafkaFeed

        return KafkaFeed.open(_kafka_plan(settings), name)
    return RedisFeed.open(settings.redis_address, name, _stream_plan(settings))


def _stream_plan(settings: Settings) -> StreamPlan:
    return StreamPlan(settings.event_shards, settings.event_backlog)


def _kafka_plan(settings: Settings) -> KafkaPlan:
    from events.kafka_log import KafkaPlan

    return KafkaPlan(settings.kafka_brokers or "", settings.kafka_topic)
