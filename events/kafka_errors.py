"""librdkafka's errors in our tree, for everything in this package that talks to Kafka."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from confluent_kafka import KafkaError, KafkaException

from domain.errors import BadAnswer, DependencyError, Late, Unreachable

_LATE = frozenset(
    {
        KafkaError._MSG_TIMED_OUT,  # noqa: SLF001  # the codes that never leave librdkafka are named so, and public
        KafkaError._TIMED_OUT,  # noqa: SLF001
        KafkaError._TIMED_OUT_QUEUE,  # noqa: SLF001
        KafkaError.REQUEST_TIMED_OUT,
    }
)
_UNREACHABLE = frozenset(
    {
        KafkaError._TRANSPORT,  # noqa: SLF001
        KafkaError._ALL_BROKERS_DOWN,  # noqa: SLF001
        KafkaError._RESOLVE,  # noqa: SLF001
        KafkaError._WAIT_COORD,  # noqa: SLF001
        KafkaError.COORDINATOR_NOT_AVAILABLE,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.NETWORK_EXCEPTION,
        KafkaError.NOT_ENOUGH_REPLICAS,
        KafkaError.NOT_ENOUGH_REPLICAS_AFTER_APPEND,
    }
)


def mapped(error: KafkaError) -> DependencyError:
    """Only the code's name is told: librdkafka's own text quotes addresses and client names."""
    if error.code() in _LATE:
        return Late(f"Kafka did not answer in time: {error.name()}")
    if error.code() in _UNREACHABLE:
        return Unreachable(f"Kafka cannot be reached: {error.name()}")
    return BadAnswer(f"Kafka refused: {error.name()}")


@contextlib.contextmanager
def mapping_errors() -> Iterator[None]:
    """Raises ``DependencyError`` in place of what librdkafka raises."""
    try:
        yield
    except KafkaException as error:
        raise mapped(error.args[0]) from error
