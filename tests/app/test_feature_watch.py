"""The serving side of the skew watch: counted as it passes, kept in Redis by hour and bundle, lost without harm."""

from __future__ import annotations

import asyncio
import json
import math
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
import redis

from app import metrics
from app.beside.feature_watch import BATCH, FeatureWatch, keep_watching, tell, watch_of
from app.cli import main
from app.serving import open_serving
from app.settings import Settings
from domain.arrays import Floats
from domain.catalogue import History
from domain.clock import LiveClock, ReplayClock
from domain.deadline import Deadline
from domain.errors import DependencyError
from domain.request import Query
from domain.user import Freshness, UserFeatures
from features.contract import CONTRACT, HOUR
from features.counts import FIRST_MONDAY, PHASES, Bins, counts_key, phase
from features.online import connect
from monitoring.skew import MIN_REQUESTS
from monitoring.window import read_window
from release.bundle import PUBLICATION, Bundle

NOW = 500_000 * HOUR
BINS = Bins(np.tile(np.array([0.0, 1.0], np.float32), (CONTRACT.numeric.width, 1)), np.array([1800.0]))


@dataclass
class Wall:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


def user(age: float = 10.0, value: float = 0.5) -> UserFeatures:
    numeric: Floats = np.full(CONTRACT.numeric.width, value, np.float32)
    history = History(np.zeros(1, np.int32), np.ones(1, np.float32), np.array([NOW - age]))
    return UserFeatures(0, numeric, np.zeros(len(CONTRACT.context), np.int32), history, NOW, Freshness.FRESH)


def watch(bundle: str, wall: Wall | None = None) -> FeatureWatch:
    return FeatureWatch(bundle, BINS, LiveClock(), wall or Wall())


@pytest.fixture
async def client(redis_url: str):
    client = connect(redis_url)
    yield client
    await client.aclose()


class TestCounting:
    def test_puts_each_value_where_searchsorted_would(self) -> None:
        values = np.array([-1.0, 0.0, 0.5, 1.0, 7.0])
        watched = watch("b")
        for value in values.tolist():
            watched.saw(user(value=value), NOW)
        expected = np.bincount(np.searchsorted(BINS.edges[0], values), minlength=3)
        assert (watched.count().bins == expected).all()

    def test_goes_on_over_full_buffers(self) -> None:
        watched = watch("b")
        for _ in range(2 * BATCH + 5):
            watched.saw(user(), NOW)
        counted = watched.count()
        assert counted.requests == 2 * BATCH + 5
        assert watched.count().requests == 2 * BATCH + 5
        assert (counted.bins.sum(axis=1) == 2 * BATCH + 5).all()

    def test_tells_ages_apart(self) -> None:
        watched = watch("b")
        for age in (1.0, 1800.0, 1801.0):
            watched.saw(user(age), NOW)
        assert watched.count().ages.tolist() == [2, 1]

    def test_leaves_out_whom_the_bundle_does_not_know(self) -> None:
        watched = watch("b")
        watched.saw(replace(user(), row=-1), NOW)
        assert watched.count().requests == 0

    def test_knows_a_default_when_all_columns_have_it(self) -> None:
        watched = watch("b")
        watched.saw(user(value=0.0), NOW)
        expected = [feature.default == 0 for feature in CONTRACT.numeric.features]
        assert watched.count().defaults.tolist() == expected

    def test_begins_anew_with_the_hour(self) -> None:
        wall = Wall()
        watched = watch("b", wall)
        watched.saw(user(), NOW)
        assert watched.count().requests == 1
        wall.now += HOUR
        watched.read(whole=True)
        assert watched.count().requests == 0
        assert watched.count().reads.tolist() == [1, 1]

    def test_a_code_that_the_contract_does_not_have_breaks_nothing(self) -> None:
        watched, odd = watch("b"), user()
        odd.codes[:] = 999
        watched.saw(odd, NOW)
        assert watched.count().codes.sum() == len(CONTRACT.context)


class TestThePhase:
    def test_of_a_live_week_begins_on_monday(self) -> None:
        assert phase(FIRST_MONDAY, LiveClock()) == 0
        assert phase(FIRST_MONDAY - 1, LiveClock()) == PHASES - 1
        assert phase(FIRST_MONDAY + 899, LiveClock()) == 0

    def test_of_a_replay_begins_with_the_publication(self) -> None:
        clock = ReplayClock(NOW, 0.0)
        assert [phase(NOW + later, clock) for later in (-5, 0, 449, 451, 7 * 24 * HOUR)] == [0, 0, 0, 1, 0]


class TestInRedis:
    async def test_all_workers_add_up(self, client) -> None:
        for requests in (3, 4):
            watched = watch("adds-up")
            for _ in range(requests):
                watched.saw(user(), NOW)
                watched.read(whole=requests == 3)
            await watched.flush(client)
        counted = await read_window(client, "adds-up", BINS, NOW, 1)
        assert (counted.requests, counted.reads.tolist()) == (7, [7, 3])

    async def test_a_repeated_write_counts_once(self, client) -> None:
        watched = watch("repeats")
        watched.saw(user(), NOW)
        await watched.flush(client)
        await watched.flush(client)
        assert (await read_window(client, "repeats", BINS, NOW, 1)).requests == 1

    async def test_the_window_is_summed_by_the_hour(self, client) -> None:
        wall = Wall()
        watched = watch("hours", wall)
        for later in range(4):
            wall.now = NOW + later * HOUR
            watched.saw(user(), NOW)
            await watched.flush(client)
        until = NOW + 3 * HOUR
        sizes = [(await read_window(client, "hours", BINS, until, hours)).requests for hours in (1, 2, 48)]
        assert sizes == [1, 2, 4]

    async def test_bundles_are_kept_apart_and_forgotten_in_time(self, client) -> None:
        watched = watch("apart")
        watched.saw(user(), NOW)
        await watched.flush(client)
        assert (await read_window(client, "another", BINS, NOW, 2)).requests == 0
        assert 0 < await client.ttl(counts_key("apart", int(NOW // HOUR))) <= 48 * HOUR

    async def test_counts_of_another_shape_are_left_out(self, client) -> None:
        key = counts_key("shapes", int(NOW // HOUR))
        await client.hset(key, "short", b"12345678")
        await client.hset(key, "ragged", b"123")
        await client.hset(key, "long", BINS.none().packed() + b"1234")
        assert (await read_window(client, "shapes", BINS, NOW, 1)).requests == 0

    async def test_an_absent_redis_is_told_and_the_counts_go_on(self, free_port: Callable[[], int]) -> None:
        watched = watch("away")
        watched.saw(user(), NOW)
        async with connect(f"redis://127.0.0.1:{free_port()}/0") as nobody:
            with pytest.raises(DependencyError):
                await watched.flush(nobody)
        assert watched.count().requests == 1


def psi(feature: str) -> float:
    return metrics.REGISTRY.get_sample_value("streamrec_feature_psi", {"feature": feature}) or 0.0


async def test_the_metrics_name_what_moved_and_forget_it_when_nothing_is_known(tiny_bundle: Bundle, client) -> None:
    watched = watch_of(tiny_bundle)
    watched.wall = Wall()
    for _ in range(MIN_REQUESTS):
        watched.saw(user(value=1e5), NOW)
    await watched.flush(client)
    await tell(tiny_bundle, client, NOW)
    assert psi("session_length_seconds") > 0.25
    assert metrics.REGISTRY.get_sample_value("streamrec_feature_watch_requests") == MIN_REQUESTS
    metrics.skew_unknown()
    assert math.isnan(psi("session_length_seconds"))


class Enough(Exception):
    """The loop was asked to wait so often."""


def naps(times: int):
    """A sleep that takes no time, ``times`` times."""
    left = iter(range(times))

    async def sleep(seconds: float) -> None:
        if next(left, None) is None:
            raise Enough

    return sleep


async def test_the_loop_outlives_an_absent_redis(tiny_bundle: Bundle, free_port: Callable[[], int]) -> None:
    watched = watch_of(tiny_bundle)
    watched.saw(user(), NOW)
    async with connect(f"redis://127.0.0.1:{free_port()}/0") as nobody:
        with pytest.raises(Enough):
            await keep_watching(lambda: (tiny_bundle, watched), nobody, naps(3))
    assert math.isnan(metrics.REGISTRY.get_sample_value("streamrec_feature_hit_ratio") or 0.0)
    assert watched.count().requests == 1


async def test_the_loop_outlives_a_bug_and_counts_it(tiny_bundle: Bundle, client) -> None:
    def bugs() -> float:
        return metrics.REGISTRY.get_sample_value("streamrec_bugs_total", {"where": "feature_watch"}) or 0.0

    watched, before = watch_of(tiny_bundle), bugs()
    watched.bins = BINS  # no longer the bins of what it has counted
    watched.saw(user(), NOW)
    with pytest.raises(Enough):
        await keep_watching(lambda: (tiny_bundle, watched), client, naps(2))
    assert bugs() > before


async def test_the_loop_writes_and_tells_of_the_bundle_of_the_moment(tiny_bundle: Bundle, client) -> None:
    watched = watch_of(tiny_bundle)
    watched.bundle, watched.wall = "of-the-moment", Wall()
    watched.saw(user(), NOW)
    with pytest.raises(Enough):
        await keep_watching(lambda: (tiny_bundle, watched), client, naps(1))
    assert (await read_window(client, "of-the-moment", watched.bins, NOW, 1)).requests == 1


@pytest.fixture
def home(tmp_path: Path, tiny_bundle: Bundle) -> Path:
    shutil.copytree(tiny_bundle.path, tmp_path / "bundles" / "1")
    (tmp_path / "bundles" / "1" / PUBLICATION).write_text(json.dumps({"number": 1, "published_at": 1000.0}))
    (tmp_path / "current").symlink_to(tmp_path / "bundles" / "1")
    return tmp_path


@pytest.fixture
def own_redis(redis_url: str, tiny_bundle: Bundle) -> Iterator[str]:
    """The shared Redis without what others counted for the tiny bundle."""
    with redis.Redis.from_url(redis_url) as client:
        for key in client.scan_iter(counts_key(tiny_bundle.version, 0)[:-1] + "*"):
            client.delete(key)
        yield redis_url


async def test_what_is_served_is_counted(home: Path, own_redis: str, tiny_bundle: Bundle, client) -> None:
    serving = await open_serving(Settings(home=home, redis_url=own_redis, features_seconds=2.0))
    try:
        for user_id in ("user-1", "user-2", "nobody knows"):
            await serving.recommend(Query(user_id, limit=5), Deadline.after(5))
        watched = serving.pipeline.reader.watch
        await watched.flush(client)
        counted = await read_window(client, tiny_bundle.version, watched.bins, watched.wall(), 2)
    finally:
        await serving.close()
    assert counted.requests == 2  # the bundle's rows, since the store has none
    assert counted.reads.tolist() == [2, 0]


def test_the_command_prints_the_table_and_fails_on_an_alert(
    home: Path, own_redis: str, tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"STREAMREC_HOME": str(home), "STREAMREC_REDIS_URL": own_redis}
    assert main(["skew"], environ) == 0
    assert "too few to judge" in capsys.readouterr().out
    watched = watch_of(tiny_bundle)
    for _ in range(MIN_REQUESTS):
        watched.saw(user(value=1e5), NOW)
    asyncio.run(_flushed(watched, own_redis))
    assert main(["skew", "--hours", "2"], environ) == 1
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("session_length_seconds")]
    assert line.endswith("alert")


async def _flushed(watched: FeatureWatch, redis_url: str) -> None:
    async with connect(redis_url) as client:
        await watched.flush(client)
