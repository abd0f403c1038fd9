"""The log in Kafka, over librdkafka's mock of a cluster: what is Kafka's own. The rest is in ``tests/contract``."""

from __future__ import annotations

import asyncio
import contextlib
import random
import subprocess
import sys
import threading
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack
from dataclasses import replace

import pytest
from confluent_kafka import KafkaError, Producer

from domain.errors import BadAnswer, DependencyError, Late, Unreachable
from events.event import Event, PoisonError, decode
from events.kafka_delivery import THREAD, Deliveries, Letter, SendingLimits
from events.kafka_errors import mapped
from events.kafka_log import KafkaFeed, KafkaLog, KafkaPlan
from events.log import Batch, LogFull
from tests.kafka_cluster import (
    INIT_PRODUCER_ID_REQUEST,
    OFFSET_COMMIT_REQUEST,
    PARTITIONS,
    PRODUCE_REQUEST,
    KafkaCluster,
    running_cluster,
)

QUICK = SendingLimits(under_way=100, seconds=0.5)
PATIENT = SendingLimits(under_way=5, seconds=10.0)
JAVA_MURMUR2 = {"21": -973932308, "foobar": -790332482, "abc": 479470107}  # from Kafka's own tests


def events(n: int, user: str | None = None) -> list[Event]:
    return [Event(f"e{k}", user or f"u{k}", "296", "play", float(k)) for k in range(n)]


def ids(batch: Batch) -> list[str]:
    return [decode(entry.raw).event_id for entry in batch.entries]


@pytest.fixture
def cluster() -> Iterator[KafkaCluster]:
    """One for each test: many break it."""
    with running_cluster() as cluster:
        yield cluster


@pytest.fixture
def plan(cluster: KafkaCluster) -> KafkaPlan:
    plan = KafkaPlan(cluster.brokers, session_seconds=1.0)
    cluster.make_topic(plan.topic)
    cluster.make_topic(plan.dead_topic)
    return plan


@pytest.fixture
async def ended(plan: KafkaPlan) -> AsyncIterator[AsyncExitStack]:
    async with AsyncExitStack() as stack:
        yield stack


def opened_log(plan: KafkaPlan, ended: AsyncExitStack) -> KafkaLog:
    log = KafkaLog.open(plan)
    ended.push_async_callback(log.close)
    return log


def opened_feed(plan: KafkaPlan, ended: AsyncExitStack, name: str = "a") -> KafkaFeed:
    feed = KafkaFeed.open(plan, name)
    ended.push_async_callback(feed.close)
    return feed


async def taken(feed: KafkaFeed) -> Batch:
    for _ in range(40):
        if len(batch := await feed.take(100, 0.25)):
            return batch
    raise AssertionError("nothing came")


async def test_a_users_events_lie_in_the_partition_that_java_would_choose(plan, ended) -> None:
    log, feed = opened_log(plan, ended), opened_feed(plan, ended)
    for user, number in JAVA_MURMUR2.items():
        await log.append(events(3, user))
        batch = await taken(feed)
        await feed.done(batch)
        assert {entry.position[0] for entry in batch.entries} == {str((number & 0x7FFFFFFF) % PARTITIONS)}


async def test_append_waits_for_the_brokers_and_leaves_the_loop_free(plan, ended, cluster) -> None:
    log = opened_log(replace(plan, sending=PATIENT), ended)
    await log.append(events(1))
    cluster.slow_down(400)
    asked = asyncio.ensure_future(log.append(events(1)))
    _, waiting = await asyncio.wait([asked], timeout=0.1)
    assert waiting == {asked}
    await asked


async def test_an_append_that_nobody_waits_for_any_more_is_still_delivered(plan, ended, cluster) -> None:
    log, feed = opened_log(replace(plan, sending=PATIENT), ended), opened_feed(plan, ended)
    asked = asyncio.ensure_future(log.append(events(1)))
    await asyncio.wait([asked], timeout=0)
    asked.cancel()
    assert ids(await taken(feed)) == ["e0"]


async def test_a_bounded_number_is_under_way_and_nothing_of_what_is_too_much(plan, ended, cluster) -> None:
    log, feed = opened_log(replace(plan, sending=PATIENT), ended), opened_feed(plan, ended)
    cluster.stop_brokers()
    asked = asyncio.ensure_future(log.append(events(4, "42")))
    await asyncio.wait([asked], timeout=0)
    with pytest.raises(LogFull):
        await log.append(events(2, "43"))
    cluster.start_brokers()
    await asked
    assert ids(await taken(feed)) == ["e0", "e1", "e2", "e3"]


async def test_brokers_that_are_down_are_late_for_the_door_and_unreachable_for_the_feed(plan, ended, cluster) -> None:
    log, feed = opened_log(replace(plan, sending=QUICK), ended), opened_feed(plan, ended)
    await log.append(events(1))
    await feed.done(await taken(feed))
    cluster.stop_brokers()
    with pytest.raises(Late):
        await log.append(events(1))
    with pytest.raises(Unreachable):
        await feed.take(1, 2.0)
    cluster.start_brokers()


async def test_a_refusal_is_said_and_a_passing_one_is_tried_again(plan, ended, cluster) -> None:
    log, feed = opened_log(plan, ended), opened_feed(plan, ended)
    cluster.refuse(PRODUCE_REQUEST, KafkaError.INVALID_RECORD)
    with pytest.raises(BadAnswer, match="INVALID_RECORD"):
        await log.append(events(1, "42"))
    cluster.refuse(PRODUCE_REQUEST, KafkaError.NOT_ENOUGH_REPLICAS, times=2)
    await log.append(events(5, "42"))
    assert ids(await taken(feed)) == ["e0", "e1", "e2", "e3", "e4"]


async def test_after_a_fatal_error_there_is_a_new_producer(plan, ended, cluster) -> None:
    cluster.refuse(INIT_PRODUCER_ID_REQUEST, KafkaError.CLUSTER_AUTHORIZATION_FAILED)
    log = opened_log(plan, ended)
    with pytest.raises(BadAnswer):
        await log.append(events(1))
    await log.append(events(1))


async def test_a_commit_that_is_refused_leaves_the_batch_to_be_given_again(plan, ended, cluster) -> None:
    log, feed = opened_log(plan, ended), opened_feed(plan, ended)
    await log.append(events(5, "42"))
    batch = await taken(feed)
    cluster.refuse(OFFSET_COMMIT_REQUEST, KafkaError.GROUP_AUTHORIZATION_FAILED)
    with pytest.raises(BadAnswer, match="GROUP_AUTHORIZATION_FAILED"):
        await feed.done(batch)
    again = await taken(feed)
    assert ids(again) == ids(batch)
    await feed.done(again)
    assert await feed.lag_seconds() == 0


async def test_a_take_that_nobody_waits_for_any_more_loses_nothing(plan, ended) -> None:
    log, feed = opened_log(plan, ended), opened_feed(plan, ended)
    asked = asyncio.ensure_future(feed.take(100, 5.0))
    await asyncio.wait([asked], timeout=0)
    asked.cancel()
    await log.append(events(5, "42"))
    assert len(await taken(feed)) == 5


async def test_a_batch_in_hand_while_its_partitions_move_is_given_to_the_new_owner(plan, ended) -> None:
    plan = replace(plan, session_seconds=3.0)  # on a busy machine a second of silence is no death
    log, old, new = opened_log(plan, ended), opened_feed(plan, ended, "old"), opened_feed(plan, ended, "new")
    await log.append(events(40))
    held: set[str] = set()
    while len(held) < 40:
        held |= set(ids(await taken(old)))
    given: set[str] = set()
    for _ in range(200):  # the old owner keeps coming, and is never done
        _, batch = await asyncio.gather(old.take(100, 0.1), new.take(100, 0.1))
        given |= set(ids(batch))
        with contextlib.suppress(BadAnswer):  # a commit may fall into the rebalance: then it is given out again
            await new.done(batch)
        if given & held:
            return
    raise AssertionError("the new owner got nothing of what the old one did not finish")


async def test_a_message_without_a_value_is_an_entry_that_is_no_event(plan, ended) -> None:
    feed = opened_feed(plan, ended)
    producer = Producer({"bootstrap.servers": plan.brokers})
    producer.produce(plan.topic, None, b"42")
    assert producer.flush(10.0) == 0
    batch = await taken(feed)
    with pytest.raises(PoisonError):
        decode(batch.entries[0].raw)


async def test_the_lag_counts_partitions_that_nobody_reads(plan, ended) -> None:
    log, feed = opened_log(plan, ended), opened_feed(plan, ended)
    await log.append(events(20))
    assert await feed.lag_seconds() > 0


async def test_the_lag_cannot_be_told_without_brokers(plan, ended, cluster) -> None:
    feed = opened_feed(replace(plan, answer_seconds=0.3), ended)
    cluster.stop_brokers()
    with pytest.raises(DependencyError):
        await feed.lag_seconds()


async def test_closing_waits_for_what_is_under_way_and_ends_every_thread(plan) -> None:
    log, feed = KafkaLog.open(plan), KafkaFeed.open(plan, "a")
    asked = asyncio.ensure_future(log.append(events(50)))
    await asyncio.wait([asked], timeout=0)
    await log.close()
    await asked
    assert len(await taken(feed)) > 0
    await feed.close()
    assert not [thread.name for thread in threading.enumerate() if thread.name == THREAD]


def test_closing_while_the_group_deals_out_its_partitions_ends() -> None:
    """Where it does not, Python stands still as a whole: so it is tried in another process."""
    tried = "import asyncio; from tests.events.test_kafka_log import closings; asyncio.run(closings(50))"
    subprocess.run([sys.executable, "-c", tried], check=True, timeout=45)


async def closings(times: int) -> None:
    """Four at once, each a group of its own, closed at any moment of joining it."""
    moment = random.Random(0)

    async def close_again(plan: KafkaPlan, who: int) -> None:
        for k in range(times):
            feed = KafkaFeed.open(replace(plan, group=f"{who}-{k}"), "a")
            await asyncio.sleep(moment.uniform(0, 0.2))
            await asyncio.wait_for(feed.close(), 10)

    with running_cluster() as cluster:
        plan = KafkaPlan(cluster.brokers, session_seconds=6.0)
        cluster.make_topic(plan.topic)
        await asyncio.gather(*(close_again(plan, who) for who in range(4)))


async def test_nothing_to_send_asks_nothing_of_kafka(free_port) -> None:
    deliveries = Deliveries.open(f"127.0.0.1:{free_port()}", "t", QUICK)
    await deliveries.send([])
    with pytest.raises(LogFull):
        await deliveries.send([Letter(None, b"")] * 101)
    await deliveries.close()


def test_limits_leave_room_and_time() -> None:
    for wrong in ({"under_way": 0}, {"seconds": 0.0}):
        with pytest.raises(ValueError, match="needs room"):
            SendingLimits(**wrong)


def test_a_plan_names_brokers_and_a_topic() -> None:
    for wrong in (("", "t"), ("localhost:9092", "")):
        with pytest.raises(ValueError, match="needs brokers"):
            KafkaPlan(*wrong)


@pytest.mark.parametrize(
    ("code", "kind"),
    [
        (KafkaError._MSG_TIMED_OUT, Late),
        (KafkaError.REQUEST_TIMED_OUT, Late),
        (KafkaError._TRANSPORT, Unreachable),
        (KafkaError.NOT_ENOUGH_REPLICAS, Unreachable),
        (KafkaError.ILLEGAL_GENERATION, BadAnswer),
    ],
)
def test_an_error_has_its_place_in_the_tree(code: int, kind: type[DependencyError]) -> None:
    assert type(mapped(KafkaError(code))) is kind
