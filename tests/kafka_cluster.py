"""librdkafka's own mock of a Kafka cluster: real sockets and protocol, group coordinator included, nothing on disk.

It comes inside confluent-kafka's library and is reached with ctypes, for Python has no words for it.
"""

from __future__ import annotations

import contextlib
import ctypes
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from importlib.metadata import files

PRODUCER = 0  # a kind of client
PRODUCE_REQUEST, OFFSET_COMMIT_REQUEST, INIT_PRODUCER_ID_REQUEST = 0, 8, 22
PARTITIONS = 4
BROKERS = 3


@cache
def _library() -> ctypes.CDLL:
    path = next(path for path in files("confluent-kafka") or () if "librdkafka" in path.name)
    library = ctypes.CDLL(str(path.locate()))
    for name in ("rd_kafka_conf_new", "rd_kafka_new", "rd_kafka_mock_cluster_new"):
        getattr(library, name).restype = ctypes.c_void_p
    library.rd_kafka_mock_cluster_bootstraps.restype = ctypes.c_char_p
    return library


@dataclass(frozen=True)
class KafkaCluster:
    """Three brokers on ports of their own."""

    handle: ctypes.c_void_p

    @property
    def brokers(self) -> str:
        return str(_library().rd_kafka_mock_cluster_bootstraps(self.handle).decode())

    def make_topic(self, name: str) -> None:
        self._call("rd_kafka_mock_topic_create", name.encode(), PARTITIONS, BROKERS)

    def stop_brokers(self) -> None:
        """Connections are cut and refused."""
        for broker in range(1, BROKERS + 1):
            self._call("rd_kafka_mock_broker_set_down", broker)

    def start_brokers(self) -> None:
        for broker in range(1, BROKERS + 1):
            self._call("rd_kafka_mock_broker_set_up", broker)

    def slow_down(self, milliseconds: int) -> None:
        """Every answer of every broker takes so long."""
        for broker in range(1, BROKERS + 1):
            self._call("rd_kafka_mock_broker_set_rtt", broker, milliseconds)

    def refuse(self, request: int, error: int, times: int = 1) -> None:
        """The next requests of this kind get this error."""
        errors = (ctypes.c_int * times)(*[error] * times)
        self._call("rd_kafka_mock_push_request_errors_array", ctypes.c_int16(request), ctypes.c_size_t(times), errors)

    def _call(self, name: str, *words: object) -> None:
        getattr(_library(), name)(self.handle, *words)


@contextlib.contextmanager
def running_cluster() -> Iterator[KafkaCluster]:
    library, said = _library(), ctypes.create_string_buffer(512)
    client = library.rd_kafka_new(PRODUCER, ctypes.c_void_p(library.rd_kafka_conf_new()), said, ctypes.c_size_t(512))
    if not client:
        raise RuntimeError(said.value.decode())
    handle = ctypes.c_void_p(library.rd_kafka_mock_cluster_new(ctypes.c_void_p(client), BROKERS))
    library.rd_kafka_mock_group_initial_rebalance_delay_ms(handle, ctypes.c_int32(0))
    try:
        yield KafkaCluster(handle)
    finally:
        library.rd_kafka_mock_cluster_destroy(handle)
        library.rd_kafka_destroy(ctypes.c_void_p(client))
