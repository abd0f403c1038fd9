"""The batch step: what it writes is what the bundle holds, whole and nothing more."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any, cast
from urllib.parse import quote

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import redis
from deltalake import DeltaTable

from domain.catalogue import IdTable, Items, TextTable, Users
from domain.clock import LiveClock
from domain.errors import PublishError, StartError, Unreachable
from features import layout, materialise
from features.contract import CONTRACT, DAY
from features.contract_diff import Meaning
from features.materialise import (
    BATCH_USERS,
    open_repository,
    remove_absent,
    restore_user_features,
    user_tables,
    write_user_features,
)
from features.offline import OfflineTable
from features.online import ClientLimits, OnlineStore, StoredUser, connect, disagreements

AS_OF = 1_476_640_644.25
VOCABULARY = ("Action", "Comedy")
PATIENT = ClientLimits(wait_seconds=5, connect_seconds=5, answer_seconds=5)  # a busy machine fails no test
PROJECT = layout.project_name(CONTRACT, VOCABULARY)


@dataclass(frozen=True, slots=True)
class Tables:
    users: Users
    items: Items


@dataclass(frozen=True, slots=True)
class Bundle:
    tables: Tables
    version: str = "2016-a"

    @property
    def watermark(self) -> float:
        return self.tables.users.as_of


def bundle_of(user_ids: Sequence[str], events: Sequence[int], seed: int = 0, as_of: float = AS_OF) -> Bundle:
    """A bundle with these users and so many events each; every feature lies in its range."""
    rng = np.random.default_rng(seed)
    n, total, columns = len(user_ids), sum(events), CONTRACT.user
    item_ids = IdTable.of(f"film ü{i}" for i in range(100))
    features = rng.uniform(columns.low, columns.high, (n, columns.width)).astype(np.float32)
    users = Users(
        IdTable.of(user_ids),
        np.clip(features, columns.low, columns.high),
        np.concatenate([[0], np.cumsum(events)]).astype(np.int64),
        rng.integers(0, 100, total).astype(np.int32),
        np.where(rng.random(total) < 0.3, np.nan, rng.integers(1, 11, total) / 2).astype(np.float32),
        np.sort(rng.uniform(AS_OF - 1e6, AS_OF, total)),
        as_of,
    )
    none = np.zeros(100, np.float32)
    table = np.tile(CONTRACT.item.defaults, (100, 1))
    genres = np.zeros((100, 2), np.bool_)
    items = Items(item_ids, TextTable.of([""] * 100), genres, VOCABULARY, none, table, none.astype(np.bool_))
    return Bundle(Tables(users, items))


@pytest.fixture
def empty_redis(redis_url: str) -> Iterator[str]:
    """A database of its own, emptied, so that no other test's keys are counted here."""
    url = redis_url.rsplit("/", 1)[0] + "/9"
    with redis.Redis.from_url(url) as client:
        client.flushdb()
        yield url
        client.flushdb()


def publish(bundle: Bundle, redis_url: str, home: Path, at: float = AS_OF + 60) -> list[str]:
    said: list[str] = []
    assert write_user_features(bundle, redis_url, home, echo=said.append, clock=lambda: at) == len(bundle.tables.users)
    return said


async def stored(redis_url: str, user_id: str) -> StoredUser | None:
    client = connect(redis_url, PATIENT)
    try:
        return await OnlineStore(client, PROJECT, CONTRACT, LiveClock(lambda: AS_OF)).read(user_id)
    finally:
        await client.aclose()


async def test_every_user_is_read_back_as_the_bundle_has_them(empty_redis: str, tmp_path: Path):
    bundle = bundle_of([f"u{i}" for i in range(30)], [i * 4 for i in range(30)])
    publish(bundle, empty_redis, tmp_path)
    users = bundle.tables.users
    for row in range(30):
        user = await stored(empty_redis, users.ids.text(row))
        assert user is not None
        assert user.problems == ()
        assert user.as_of == AS_OF
        np.testing.assert_array_equal(user.features, users.features[row])
        assert len(user.recent) == 0


async def test_publishing_again_overwrites_even_with_the_same_watermark_and_a_clock_set_back(
    empty_redis: str, tmp_path: Path
):
    first, second = bundle_of(["u"], [3], seed=1), bundle_of(["u"], [3], seed=2)
    publish(first, empty_redis, tmp_path, at=AS_OF + 60)
    publish(second, empty_redis, tmp_path, at=AS_OF + 30)
    user = await stored(empty_redis, "u")
    assert user is not None
    np.testing.assert_array_equal(user.features, second.tables.users.features[0])


async def test_publishing_an_older_bundle_takes_the_users_back_to_it(empty_redis: str, tmp_path: Path):
    publish(bundle_of(["u"], [3]), empty_redis, tmp_path)
    publish(bundle_of(["u"], [3], as_of=AS_OF - 1000), empty_redis, tmp_path, at=AS_OF + 90)
    user = await stored(empty_redis, "u")
    assert user is not None
    assert user.as_of == AS_OF - 1000


async def test_users_whom_the_bundle_no_longer_knows_are_removed(empty_redis: str, tmp_path: Path):
    publish(bundle_of(["a", "b", "c"], [1, 1, 1]), empty_redis, tmp_path)
    said = publish(bundle_of(["b"], [1]), empty_redis, tmp_path, at=AS_OF + 90)
    assert "2 no longer known removed" in said[0]
    assert await stored(empty_redis, "a") is None
    assert await stored(empty_redis, "b") is not None
    with redis.Redis.from_url(empty_redis) as client:
        assert client.exists(layout.row_key(PROJECT, "a"), layout.row_key(PROJECT, "b")) == 1


async def test_publishing_leaves_what_the_stream_wrote(empty_redis: str, tmp_path: Path):
    session = layout.session_row(["film ü1"], [4.5], [AS_OF], AS_OF)
    with redis.Redis.from_url(empty_redis) as client:
        for user_id in ("known", "newcomer"):
            client.hset(layout.row_key(PROJECT, user_id), mapping=cast("dict[str | bytes, Any]", session))
    publish(bundle_of(["known"], [1]), empty_redis, tmp_path)
    for user_id, has_batch in (("known", True), ("newcomer", False)):
        user = await stored(empty_redis, user_id)
        assert user is not None
        assert user.has_batch == has_batch
        assert user.recent.item_ids == ("film ü1",)


def test_removal_leaves_other_views_and_other_keys_alone(empty_redis: str):
    key, batch, stream = layout.row_key(PROJECT, "new"), layout.batch_fields(CONTRACT)[1], b"another view's field"
    with redis.Redis.from_url(empty_redis) as client:
        client.hset(key, mapping={batch: b"old", stream: b"kept"})
        client.set(b"a campaign", b"kept")
        client.hset(layout.row_key("another_project", "new"), mapping={batch: b"kept"})
        assert remove_absent(empty_redis, PROJECT, bundle_of(["b"], [1]).tables.users) == 1
        assert client.hgetall(key) == {stream: b"kept"}
        assert client.dbsize() == 3


def test_rows_expire_once_no_feature_in_them_may_be_used(empty_redis: str, tmp_path: Path):
    publish(bundle_of(["u"], [1]), empty_redis, tmp_path)
    oldest = max(feature.max_age_seconds for feature in CONTRACT.user.features)
    with redis.Redis.from_url(empty_redis) as client:
        assert oldest - 60 < client.ttl(layout.row_key(PROJECT, "u")) <= oldest


def test_what_is_restored_is_byte_for_byte_what_feast_wrote(empty_redis: str, tmp_path: Path):
    bundle = bundle_of([f"ü{i}" for i in range(20)], [i % 3 for i in range(20)])

    def everything(client: redis.Redis) -> dict[Any, Any]:
        keys = [key for key in client.scan_iter() if client.type(key) == b"hash"]
        return {key: client.hgetall(key) for key in keys} | {b"ages": {round(client.ttl(key), -3) for key in keys}}

    publish(bundle, empty_redis, tmp_path)
    with redis.Redis.from_url(empty_redis) as client:
        published = everything(client)
        client.flushdb()
        assert restore_user_features(bundle, empty_redis, echo=lambda _: None) == 20
        assert everything(client) == published


def test_restoring_leaves_the_stream_alone_and_removes_whom_the_bundle_does_not_know(empty_redis: str):
    session = layout.session_row(["film ü1"], [4.5], [AS_OF], AS_OF)
    known, gone = layout.row_key(PROJECT, "known"), layout.row_key(PROJECT, "gone")
    with redis.Redis.from_url(empty_redis) as client:
        client.hset(known, mapping=cast("dict[str | bytes, Any]", session))
        client.hset(gone, mapping=cast("dict[str | bytes, Any]", dict.fromkeys(layout.batch_fields(CONTRACT), b"old")))
        restore_user_features(bundle_of(["known"], [1]), empty_redis, echo=lambda _: None)
        assert session.items() <= client.hgetall(known).items()
        assert not client.exists(gone)


def test_restoring_into_a_redis_that_is_away_is_unreachable(free_port) -> None:
    with pytest.raises(Unreachable):
        restore_user_features(bundle_of(["u"], [1]), f"redis://127.0.0.1:{free_port()}/0", echo=lambda _: None)


def test_each_publication_leaves_one_parquet_file_and_nothing_outside_home(
    empty_redis: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    home, elsewhere = tmp_path / "home", tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("HOME", str(elsewhere))
    publish(bundle_of(["a", "b"], [2, 0]), empty_redis, home)
    publish(bundle_of(["a"], [2]), empty_redis, home, at=AS_OF + 90)
    files = sorted(path for path in (home / "feast" / "offline").rglob("*") if path.is_file())
    assert [pq.read_table(path).num_rows for path in files] == [2, 1]
    assert {path.name for path in (home / "feast").iterdir()} == {"offline", "registry.db"}
    assert list(elsewhere.iterdir()) == []


def test_many_users_are_written_in_parts_that_together_are_all():
    n = BATCH_USERS + 3
    bundle = bundle_of([f"u{i:05}" for i in range(n)], [i % 3 for i in range(n)])
    tables = list(user_tables(bundle.tables.users, CONTRACT, AS_OF))
    assert [len(table) for table in tables] == [BATCH_USERS, 3]
    assert [name for table in tables for name in table["user_id"].to_pylist()] == [f"u{i:05}" for i in range(n)]


def test_a_bundle_without_users_empties_the_store(empty_redis: str, tmp_path: Path):
    publish(bundle_of(["a"], [1]), empty_redis, tmp_path)
    publish(bundle_of([], []), empty_redis, tmp_path, at=AS_OF + 90)
    with redis.Redis.from_url(empty_redis, decode_responses=True) as client:
        assert client.keys() == [layout.meaning_key(PROJECT)]


def test_a_store_of_another_meaning_is_refused_and_the_feature_named(empty_redis: str, tmp_path: Path):
    minutes = CONTRACT.document()
    minutes["user"] = [{**minutes["user"][0], "unit": "minutes"}, *minutes["user"][1:]]
    with redis.Redis.from_url(empty_redis) as client:
        client.set(layout.meaning_key(PROJECT), json.dumps(Meaning(minutes, VOCABULARY).document()))
    with pytest.raises(PublishError, match="user_events_total_count: unit is 'count' here and 'minutes' there"):
        publish(bundle_of(["a"], [1]), empty_redis, tmp_path)
    with redis.Redis.from_url(empty_redis) as client:
        assert client.dbsize() == 1
    assert list(tmp_path.rglob("*.parquet")) == []


@pytest.mark.parametrize("held", ["not JSON", "[]", "7"])
def test_a_store_that_does_not_say_what_it_means_is_refused(empty_redis: str, tmp_path: Path, held: str):
    with redis.Redis.from_url(empty_redis) as client:
        client.set(layout.meaning_key(PROJECT), held)
    with pytest.raises(PublishError, match="cannot be read"):
        publish(bundle_of(["a"], [1]), empty_redis, tmp_path)


async def test_a_reader_of_another_meaning_is_told_which_slot_differs(empty_redis: str, tmp_path: Path):
    client = connect(empty_redis, PATIENT)
    ours, other = Meaning.of(CONTRACT, VOCABULARY), Meaning.of(CONTRACT, ("Action", "Drama"))
    assert await disagreements(client, PROJECT, ours) == []
    publish(bundle_of(["a"], [1]), empty_redis, tmp_path)
    assert await disagreements(client, PROJECT, ours) == []
    assert await disagreements(client, PROJECT, other) == [
        "genre slots: slot 1: value is 'Drama' here and 'Comedy' there"
    ]
    await client.aclose()


def test_each_publication_registers_a_service_and_only_the_last_stay(empty_redis: str, tmp_path: Path):
    bundle = bundle_of(["a"], [1])
    for version in ("1", "2", "3", "4", "2"):
        publish(replace(bundle, version=version), empty_redis, tmp_path)
    store = open_repository(empty_redis, OfflineTable(tmp_path, PROJECT))
    services = {service.name: service for service in store.list_feature_services()}
    assert set(services) == {"user_online_2", "user_online_3", "user_online_4"}
    views = services["user_online_2"].feature_view_projections
    assert [view.name for view in views] == [layout.VIEW, layout.SESSION_VIEW]


def test_delta_holds_the_same_rows_partitioned_by_day(empty_redis: str, tmp_path: Path):
    first, second = bundle_of(["a", "b"], [1, 1]), bundle_of(["b"], [1], seed=1, as_of=AS_OF + DAY)
    for bundle, at in ((first, AS_OF + 60), (second, AS_OF + DAY + 60)):
        write_user_features(bundle, empty_redis, tmp_path, offline="delta", echo=str, clock=partial(float, at))
    folder = OfflineTable(tmp_path, PROJECT, "delta").folder(layout.VIEW)
    table = DeltaTable(folder)
    assert table.version() == 1
    assert {path.name for path in folder.iterdir()} == {"_delta_log", "day=2016-10-16", "day=2016-10-17"}
    rows = pa.table(table.to_pyarrow_table()).sort_by([("event_timestamp", "ascending"), ("user_id", "ascending")])
    assert rows["user_id"].to_pylist() == ["a", "b", "b"]
    taste = np.array(rows["user_genre_taste_ratio"].to_pylist(), np.float32)
    span = CONTRACT.user.slices["user_genre_taste_ratio"]
    np.testing.assert_array_equal(taste[2], second.tables.users.features[0, span])


def test_a_dead_redis_is_unreachable_and_leaves_no_file_that_could_be_read(tmp_path: Path):
    with pytest.raises(Unreachable):
        write_user_features(bundle_of(["a"], [1]), "redis://127.0.0.1:1/0", tmp_path, echo=str)
    assert list(tmp_path.rglob("*.parquet")) == []


async def test_a_store_written_under_another_vocabulary_is_not_read(empty_redis: str, tmp_path: Path):
    bundle = bundle_of(["u"], [1])
    other = replace(bundle.tables, items=replace(bundle.tables.items, genre_names=("Comedy", "Action")))
    publish(Bundle(other), empty_redis, tmp_path)
    assert await stored(empty_redis, "u") is None


def connection_string(redis_url: str) -> str:
    from features.feast_repo import repository  # imports Feast: not while tests are collected

    return repository.connection_string(redis_url)


class TestARedisAddress:
    def test_becomes_feasts_notation(self):
        assert connection_string("redis://127.0.0.1:7000/3") == "127.0.0.1:7000,db=3"
        assert connection_string("rediss://cache") == "cache:6379,ssl=true"

    @pytest.mark.parametrize("password", ["00123", "12", "a,b=c", 'q"uote', "true"])
    def test_keeps_its_password_whatever_it_looks_like(self, password: str):
        from feast.infra.online_stores.redis import RedisOnlineStore

        written = connection_string(f"redis://me:{quote(password, safe='')}@cache:7000/1")
        nodes, options = RedisOnlineStore._parse_connection_string(written)
        assert nodes == [{"host": "cache", "port": "7000"}]
        assert options == {"db": 1, "username": "me", "password": password}

    @pytest.mark.parametrize("url", ["unix:///run/redis.sock", "redis://[::1]:6379/0", "http://cache"])
    def test_that_feast_cannot_use_is_refused(self, url: str):
        with pytest.raises(StartError):
            connection_string(url)


def test_reader_and_batch_step_are_imported_without_feast():
    check = "import sys, features.materialise, features.online; sys.exit('feast' in sys.modules)"
    root = Path(materialise.__file__).parents[1]
    assert subprocess.run([sys.executable, "-c", check], cwd=root, check=False).returncode == 0
