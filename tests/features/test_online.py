"""The online reader: what is in Redis comes out by name, and what is wrong there never gets through."""

from __future__ import annotations

import asyncio
import contextlib
import struct
from collections.abc import AsyncIterator, Callable
from dataclasses import replace

import numpy as np
import pytest
import redis as redis_sync
from hypothesis import given
from hypothesis import strategies as st

from domain.clock import LiveClock, ReplayClock
from domain.errors import BadAnswer, Late, Unreachable
from features import layout
from features.contract import CONTRACT, Columns, Feature
from features.online import ClientLimits, OnlineStore, connect, warm

FEATURES = (
    Feature("user_clicks_count", "count", 0, 100, 0, "A number"),
    Feature("user_mood_ratio", "ratio", -1, 1, 0.5, "A number that may be unknown", nullable=True),
    Feature(
        "user_taste_ratio", "ratio", 0, 1, 0.25, "Three numbers", width=3, freshness_seconds=50, max_age_seconds=100
    ),
)
SMALL = replace(CONTRACT, user=Columns(FEATURES))
PROJECT = layout.project_name(SMALL, ("comedy",))
NOW = 1_000_000.0


def number(value: float) -> bytes:
    return b"\x35" + struct.pack("<f", value)


def some(tag: bytes, content: bytes) -> bytes:
    """A list of at most 125 bytes, as protobuf writes it."""
    return tag + bytes([len(content)]) + content


def packed(tag: bytes, form: str, values: tuple[float, ...]) -> bytes:
    content = struct.pack(f"<{len(values)}{form}", *values)
    return some(tag, some(b"\x0a", content) if values else b"")


def floats(*values: float) -> bytes:
    return packed(b"\x82\x01", "f", values)


def doubles(*values: float) -> bytes:
    return packed(b"\x7a", "d", values)


def texts(*values: str) -> bytes:
    return some(b"\x62", b"".join(some(b"\x0a", value.encode()) for value in values))


def moment(seconds: int) -> bytes:
    out = bytearray(b"\x08")
    while seconds > 0x7F:
        out.append(seconds & 0x7F | 0x80)
        seconds >>= 7
    return bytes([*out, seconds])


PATIENT = ClientLimits(wait_seconds=5, connect_seconds=5, answer_seconds=5)  # a busy machine fails no test

ROW: dict[str, bytes | None] = {
    "as_of": moment(int(NOW) - 10),
    "user_clicks_count": number(7),
    "user_mood_ratio": number(-0.5),
    "user_taste_ratio": floats(0.125, 0.5, 1),
    "recent_item_ids": texts("296", "ünï"),
    "recent_ratings": floats(4.5, float("nan")),
    "recent_timestamps": doubles(100.0, 200.25),
}


def store_at(now: float = NOW) -> OnlineStore:
    return OnlineStore(connect("redis://127.0.0.1:1/0", PATIENT), PROJECT, SMALL, LiveClock(lambda: now))


def decoded(**changed: bytes | None):
    stored = store_at().decode(list((ROW | changed).values()))
    assert stored is not None
    return stored


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[object]:
    client = connect(redis_url, PATIENT)
    yield client
    await client.aclose()


def put(redis_url: str, user_id: str, row: dict[str, bytes | None]) -> None:
    pairs = zip(layout.read_fields(SMALL), row.values(), strict=True)
    with redis_sync.Redis.from_url(redis_url) as writer:
        writer.hset(
            layout.row_key(PROJECT, user_id), mapping={field: value for field, value in pairs if value is not None}
        )


class TestARow:
    def test_is_read_by_name_in_the_contracts_order(self):
        stored = decoded()
        assert stored.features.tolist() == [7, -0.5, 0.125, 0.5, 1]
        assert stored.problems == ()

    def test_carries_the_recent_events_under_external_ids(self):
        recent = decoded().recent
        assert recent.item_ids == ("296", "ünï")
        np.testing.assert_array_equal(recent.rating, np.array([4.5, np.nan], np.float32))
        assert recent.timestamp.tolist() == [100.0, 200.25]

    def test_of_a_user_without_events_has_empty_recents(self):
        stored = decoded(recent_item_ids=texts(), recent_ratings=floats(), recent_timestamps=doubles())
        assert len(stored.recent) == 0
        assert stored.problems == ()

    def test_tells_its_watermark_and_age(self):
        stored = decoded()
        assert (stored.as_of, stored.age, stored.stale) == (NOW - 10, 10.0, False)

    def test_ages_on_the_datas_clock(self):
        replay = ReplayClock(published_at=5_000.0, ended_at=NOW, wall=lambda: 5_020.0)
        stored = replace(store_at(), clock=replay).decode(list(ROW.values()))
        assert stored is not None
        assert stored.age == 30.0

    def test_past_its_freshness_is_told_as_stale_and_kept(self):
        stored = store_at(NOW + 60).decode(list(ROW.values()))
        assert stored is not None
        assert stored.stale
        assert stored.features.tolist() == [7, -0.5, 0.125, 0.5, 1]

    def test_past_a_maximum_age_gives_that_features_default(self):
        stored = store_at(NOW + 100).decode(list(ROW.values()))
        assert stored is not None
        assert stored.features.tolist() == [7, -0.5, 0.25, 0.25, 0.25]
        assert stored.problems == (("user_taste_ratio", "expired"),)

    @pytest.mark.parametrize("time", [b"\x08", b"\x08" + b"\xff" * 11, b"nonsense"])
    def test_that_does_not_say_its_time_is_a_bad_answer(self, time: bytes):
        with pytest.raises(BadAnswer):
            decoded(as_of=time)

    def test_without_a_session_view_has_no_recents_and_no_problem(self):
        stored = decoded(**dict.fromkeys(layout.RECENTS))
        assert len(stored.recent) == 0
        assert (stored.has_batch, stored.problems) == (True, ())

    def test_without_a_batch_view_is_a_newcomer_with_defaults_as_of_now(self):
        newcomer = decoded(**dict.fromkeys(name for name in ROW if name not in layout.RECENTS))
        assert newcomer.features.tolist() == SMALL.user.defaults.tolist()
        assert newcomer.recent.item_ids == ("296", "ünï")
        assert (newcomer.has_batch, newcomer.problems) == (False, ())
        assert (newcomer.as_of, newcomer.age, newcomer.stale) == (NOW, 0.0, False)

    def test_without_either_view_is_no_row(self):
        assert store_at().decode([None] * len(ROW)) is None


class TestABadValue:
    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (None, "missing"),
            (b"", "missing"),
            (number(101), "out_of_range"),
            (number(-1), "out_of_range"),
            (number(float("nan")), "non_finite"),
            (number(float("inf")), "non_finite"),
            (floats(1, 2), "unexpected"),
            (texts("7"), "unexpected"),
            (number(7)[:-1], "unexpected"),
            (b"\x31" + struct.pack("<d", 7.0), "unexpected"),
        ],
    )
    def test_becomes_the_default_with_a_reason(self, value: bytes | None, reason: str):
        stored = decoded(user_clicks_count=value)
        assert stored.features.tolist() == [0, -0.5, 0.125, 0.5, 1]
        assert stored.problems == (("user_clicks_count", reason),)

    def test_is_not_what_a_null_is_where_the_contract_allows_it(self):
        stored = decoded(user_mood_ratio=b"")
        assert stored.features[1] == 0.5
        assert stored.problems == ()

    def test_is_what_a_nullable_feature_is_that_was_never_written(self):
        assert decoded(user_mood_ratio=None).problems == (("user_mood_ratio", "missing"),)

    @pytest.mark.parametrize(
        ("value", "reason"),
        [
            (floats(0, 2, 0), "out_of_range"),
            (floats(0, float("nan"), 0), "non_finite"),
            (floats(0, 0), "unexpected"),
            (floats(), "unexpected"),
            (number(0), "unexpected"),
        ],
    )
    def test_spoils_a_wide_feature_whole(self, value: bytes, reason: str):
        stored = decoded(user_taste_ratio=value)
        assert stored.features.tolist() == [7, -0.5, 0.25, 0.25, 0.25]
        assert stored.problems == (("user_taste_ratio", reason),)

    @pytest.mark.parametrize(
        ("changed", "problem"),
        [
            ({"recent_ratings": None}, ("recent_ratings", "missing")),
            ({"recent_item_ids": texts("296")}, ("recent_item_ids", "unexpected")),
            ({"recent_item_ids": doubles(1.0, 2.0)}, ("recent_item_ids", "unexpected")),
            ({"recent_item_ids": b"\x62\x03\x0a\x01\xff"}, ("recent_item_ids", "unexpected")),
            ({"recent_timestamps": doubles(1.0, 2.0)[:-1]}, ("recent_item_ids", "unexpected")),
            ({"recent_timestamps": doubles(1.0, float("nan"))}, ("recent_timestamps", "non_finite")),
        ],
    )
    def test_among_the_recents_drops_them_all(self, changed: dict[str, bytes | None], problem: tuple[str, str]):
        stored = decoded(**changed)
        assert len(stored.recent) == len(stored.recent.rating) == len(stored.recent.timestamp) == 0
        assert stored.problems == (problem,)

    @given(st.lists(st.one_of(st.none(), st.binary(max_size=20)), min_size=6, max_size=6))
    def test_never_gets_through_whatever_the_bytes(self, values: list[bytes | None]):
        stored = store_at().decode([ROW["as_of"], *values])
        assert stored is not None
        assert np.isfinite(stored.features).all()
        assert (stored.features >= SMALL.user.low).all()
        assert (stored.features <= SMALL.user.high).all()

    @given(st.sampled_from(list(ROW)), st.data())
    def test_that_was_cut_short_is_noticed(self, name: str, data: st.DataObject):
        whole = ROW[name]
        assert whole is not None
        cut = whole[: data.draw(st.integers(1, len(whole) - 1))]
        if name == "as_of":
            with pytest.raises(BadAnswer):
                decoded(as_of=cut)
        else:
            assert len(decoded(**{name: cut}).problems) == 1


class Wire:
    """A server that speaks just enough of Redis: it answers a connection's read when, and with what, it is told to."""

    def __init__(self) -> None:
        self.asked: asyncio.Queue[asyncio.StreamWriter] = asyncio.Queue()
        self.received: list[bytes] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while message := await reader.read(4096):
                self.received.append(message)
                await self.asked.put(writer)
        writer.close()

    @staticmethod
    def answer(writer: asyncio.StreamWriter, row: dict[str, bytes | None]) -> None:
        parts = [b"$-1\r\n" if value is None else b"$%d\r\n%s\r\n" % (len(value), value) for value in row.values()]
        writer.write(b"*%d\r\n" % len(parts) + b"".join(parts))


@pytest.fixture
async def wire() -> AsyncIterator[tuple[Wire, Callable[[ClientLimits], OnlineStore]]]:
    wire, clients = Wire(), []
    server = await asyncio.start_server(wire.serve, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]

    def reading(limits: ClientLimits) -> OnlineStore:
        clients.append(connect(f"redis://127.0.0.1:{port}/0", limits))
        return OnlineStore(clients[-1], PROJECT, SMALL, LiveClock(lambda: NOW))

    yield wire, reading
    for client in clients:
        await client.aclose()
    server.close()
    await server.wait_closed()


class TestReading:
    async def test_finds_what_was_written(self, redis_url: str, client):
        put(redis_url, "42", ROW)
        stored = await OnlineStore(client, PROJECT, SMALL, LiveClock(lambda: NOW)).read("42")
        assert stored is not None
        assert stored.features.tolist() == [7, -0.5, 0.125, 0.5, 1]

    async def test_takes_one_round_trip_even_on_a_new_connection(self, wire):
        server, reading = wire
        for _ in range(2):
            read = asyncio.create_task(reading(PATIENT).read("42"))
            server.answer(await server.asked.get(), ROW)
            assert (await read) is not None
        assert [message.count(b"HMGET") for message in server.received] == [1, 1]

    async def test_finds_the_connections_that_were_opened_before(self, client):
        await warm(client, 3)
        assert len(client.connection_pool._available_connections) == 3

    async def test_an_unknown_user_finds_nothing(self, client):
        store = OnlineStore(client, PROJECT, SMALL, LiveClock(lambda: NOW))
        assert await store.read("nobody") is None
        assert await store.read("\ud800") is None

    async def test_another_contracts_project_finds_nothing(self, redis_url: str, client):
        put(redis_url, "43", ROW)
        other = layout.project_name(SMALL, ("comedy", "drama"))
        assert await OnlineStore(client, other, SMALL, LiveClock(lambda: NOW)).read("43") is None

    async def test_a_key_of_another_kind_is_a_bad_answer(self, redis_url: str, client):
        await client.set(layout.row_key(PROJECT, "not a hash"), b"text")
        with pytest.raises(BadAnswer):
            await OnlineStore(client, PROJECT, SMALL, LiveClock(lambda: NOW)).read("not a hash")

    async def test_a_connection_that_redis_closed_meanwhile_is_opened_again(self, redis_url: str, client):
        put(redis_url, "44", ROW)
        store = OnlineStore(client, PROJECT, SMALL, LiveClock(lambda: NOW))
        assert await store.read("44") is not None
        name = await client.client_id()
        with redis_sync.Redis.from_url(redis_url) as other:
            other.client_kill_filter(_id=name)
            other.ping()  # the closing has been sent by now
        with contextlib.suppress(Unreachable):  # noticed before or while it is used, but by one read at most
            await store.read("44")
        assert await store.read("44") is not None

    async def test_a_dead_redis_is_unreachable(self):
        with pytest.raises(Unreachable):
            await store_at().read("42")
        with pytest.raises(Unreachable):
            await warm(store_at().client, 3)


class TestASlowRedis:
    async def test_is_late_after_one_attempt(self, wire):
        server, reading = wire
        with pytest.raises(Late):
            await reading(replace(PATIENT, answer_seconds=0.02)).read("42")
        assert server.asked.qsize() == 1

    async def test_that_holds_every_connection_makes_the_next_read_late(self, wire):
        server, reading = wire
        store = reading(replace(PATIENT, connections=1, wait_seconds=0.01))
        first = asyncio.create_task(store.read("42"))
        writer = await server.asked.get()
        with pytest.raises(Late):
            await store.read("43")
        server.answer(writer, ROW)
        assert (await first) is not None

    async def test_gives_a_waiting_read_the_connection_that_is_freed(self, wire):
        server, reading = wire
        store = reading(replace(PATIENT, connections=1))
        reads = [asyncio.create_task(store.read(str(user))) for user in range(3)]
        for _ in reads:
            server.answer(await server.asked.get(), ROW)
        assert None not in await asyncio.gather(*reads)
        assert len(store.client.connection_pool._available_connections) == 1

    async def test_answering_a_cancelled_read_is_heard_by_nobody(self, wire):
        server, reading = wire
        store = reading(replace(PATIENT, connections=1))
        given_up = asyncio.create_task(store.read("42"))
        abandoned = await server.asked.get()
        given_up.cancel()
        with pytest.raises(asyncio.CancelledError):
            await given_up
        server.answer(abandoned, ROW | {"user_clicks_count": number(1)})
        second = asyncio.create_task(store.read("43"))
        fresh = await server.asked.get()
        server.answer(fresh, ROW | {"user_clicks_count": number(2)})
        stored = await second
        assert fresh is not abandoned
        assert stored is not None
        assert stored.features[0] == 2

    async def test_gives_its_connections_back_after_many_cancelled_reads(self, wire):
        server, reading = wire
        store = reading(replace(PATIENT, connections=2))
        for _ in range(20):
            reads = [asyncio.create_task(store.read(str(user))) for user in range(4)]
            await server.asked.get()
            await server.asked.get()
            for read in reads:
                read.cancel()
            await asyncio.gather(*reads, return_exceptions=True)
        last = asyncio.create_task(store.read("42"))
        server.answer(await server.asked.get(), ROW)
        assert (await last) is not None


def test_a_client_without_time_or_connections_is_refused():
    with pytest.raises(ValueError, match="time to wait"):
        ClientLimits(answer_seconds=0)


class TestTheLayout:
    def test_of_a_users_key_gives_the_user_back(self):
        assert layout.row_user(PROJECT, layout.row_key(PROJECT, "42")) == "42"

    def test_of_another_projects_key_is_not_taken_for_ours(self):
        assert layout.row_user(PROJECT, layout.row_key(f"x{PROJECT}", "42")) is None
        assert layout.row_user(PROJECT, b"something else") is None

    def test_names_another_project_for_another_vocabulary_or_contract(self):
        projects = {
            layout.project_name(SMALL, ("a", "b")),
            layout.project_name(SMALL, ("b", "a")),
            layout.project_name(SMALL, ("ab",)),
            layout.project_name(CONTRACT, ("a", "b")),
        }
        assert len(projects) == 4
