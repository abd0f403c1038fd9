"""The core of `make chaos`: each fault in turn, on the product's own wiring, and the level that each must give.

Real Redis behind the fault proxy, a Triton that speaks the real protocol behind another; no load, no timing.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import grpc
import pytest

from app.processes.parts import start_redis
from app.processes.process import Part
from app.serving import Serving
from app.settings import Settings
from domain.answer import Answer
from domain.deadline import Deadline
from domain.degradation import DegradationLevel as Level
from domain.request import Query
from features.materialise import write_user_features
from loadtests.chaos_app import Breakable
from loadtests.fault_proxy import FaultProxy
from release.bundle import PUBLICATION, Bundle
from tests import tiny_bundle as tiny
from tests.fake_triton import FakeTriton, serving_on

SOURCES = ("two_tower", "collaborative", "content", "popularity", "preference")
BREAKER_SECONDS = 10.0  # longest that an open breaker may keep a mended dependency waiting, on a busy machine


@dataclass
class Stage:
    """One worker's service and everything that can be broken about it."""

    opened: Breakable
    redis: FaultProxy
    triton: FaultProxy
    fake: FakeTriton

    @property
    def serving(self) -> Serving:
        return self.opened.serving

    async def ask(self, user: str = "user-1", seconds: float = 5.0) -> Answer:
        return await self.serving.recommend(Query(user, limit=10), Deadline.after(seconds))

    def break_(self, part: str, mode: str) -> None:
        for proxy in [self.redis, self.triton] if part == "both" else [getattr(self, part)]:
            proxy.set(mode, 0.0)

    async def until_full(self) -> Answer:
        end = time.monotonic() + BREAKER_SECONDS
        while (answer := await self.ask()).level is not Level.FULL:
            assert time.monotonic() < end, answer.reasons
            await asyncio.sleep(0.05)
        return answer


@pytest.fixture(scope="module")
def published(
    tmp_path_factory: pytest.TempPathFactory, free_port: Callable[[], int]
) -> Iterator[tuple[Path, Bundle, Part]]:
    """A home with a published bundle, and its users' features in a Redis of its own."""
    home = tmp_path_factory.mktemp("chaos")
    folder = home / "bundles" / "1"
    folder.parent.mkdir()
    tiny.make(folder)
    (folder / PUBLICATION).write_text(json.dumps({"number": 1, "published_at": 1000.0}))
    (home / "current").symlink_to(folder)
    redis = start_redis(home, free_port())
    try:
        bundle = Bundle.load(folder)
        write_user_features(bundle, redis.address, home)
        yield home, bundle, redis
    finally:
        redis.stop()


@pytest.fixture
async def stage(published: tuple[Path, Bundle, Part], free_port: Callable[[], int]) -> AsyncIterator[Stage]:
    home, _, redis = published
    redis_port = int(redis.address.rsplit(":", 1)[1].split("/")[0])
    ports = [free_port() for _ in range(3)]
    settings = Settings(
        home=home,
        redis_url=f"redis://127.0.0.1:{ports[0]}/0",
        triton_url=f"127.0.0.1:{ports[1]}",
        features_seconds=0.5,  # a busy machine is no fault; a fault is one for as long as it lasts
        retrieval_seconds=1.0,
        ranking_seconds=0.5,
        max_model_age_seconds=1e12,
    )
    async with (
        serving_on(ports[2], FakeTriton()) as fake,
        FaultProxy(ports[0], "127.0.0.1", redis_port) as to_redis,
        FaultProxy(ports[1], "127.0.0.1", ports[2]) as to_triton,
    ):
        opened = await Breakable.open(settings)
        try:
            yield Stage(opened, to_redis, to_triton, fake)
        finally:
            await opened.close()


async def test_all_well_is_full(stage: Stage) -> None:
    answer = await stage.ask()
    assert (answer.level, answer.reasons, len(answer.items)) == (Level.FULL, (), 10)


@pytest.mark.parametrize("mode", ["reset", "blackhole", "truncate", "garble"])
@pytest.mark.parametrize(
    ("part", "level"),
    [("redis", Level.STALE_FEATURES), ("triton", Level.SIMPLE_RANKING), ("both", Level.SIMPLE_RANKING)],
)
async def test_a_broken_dependency_gives_exactly_its_level_and_full_returns(
    stage: Stage, part: str, mode: str, level: Level
) -> None:
    await stage.until_full()
    stage.break_(part, mode)
    broken = [await stage.ask() for _ in range(2)]
    assert {answer.level for answer in broken} == {level}
    assert {len(answer.items) for answer in broken} == {10}
    stage.break_(part, "pass")
    await stage.until_full()


@pytest.mark.parametrize("scores", ["nan", "equal", "short"])
async def test_scores_that_cannot_decide_do_not(stage: Stage, scores: str) -> None:
    stage.opened.tell({"scores": scores})
    assert (await stage.ask()).level is Level.SIMPLE_RANKING


async def test_one_source_failing_is_partial_and_the_others_carry_on(stage: Stage) -> None:
    stage.opened.tell({"failing": ["two_tower"]})
    answer = await stage.ask()
    assert (answer.level, answer.reasons) == (Level.PARTIAL_RETRIEVAL, ("two_tower.unavailable",))
    assert {source for item in answer.items for source in item.sources} == set(SOURCES) - {"two_tower"}


async def test_what_nobody_broke_is_the_products_own(stage: Stage) -> None:
    whole = stage.serving.pipeline
    stage.opened.tell({"hung": ["content"], "scores": "nan"})
    kept = [one.name for one, own in zip(stage.serving.pipeline.sources, whole.sources, strict=True) if one is own]
    assert kept == [name for name in SOURCES if name != "content"]
    stage.opened.tell({})
    assert (stage.serving.pipeline.sources, stage.serving.pipeline.ranker) == (whole.sources, whole.ranker)


async def test_one_source_hanging_is_left_behind(stage: Stage) -> None:
    stage.opened.tell({"hung": ["content"]})
    answer = await stage.ask()
    assert (answer.level, answer.reasons) == (Level.PARTIAL_RETRIEVAL, ("content.timeout",))


async def test_all_sources_failing_leaves_the_list_or_what_is_popular(stage: Stage) -> None:
    stage.opened.tell({"failing": list(SOURCES)})
    assert (await stage.ask()).level is Level.BATCH_LIST
    stranger = await stage.ask("nobody has this id")
    assert (stranger.level, len(stranger.items)) == (Level.POPULAR, 10)


@pytest.mark.parametrize("status", [grpc.StatusCode.INTERNAL, grpc.StatusCode.RESOURCE_EXHAUSTED])
async def test_a_triton_out_of_memory_costs_the_ranking_at_most(stage: Stage, status: grpc.StatusCode) -> None:
    stage.fake.memory, stage.fake.status = 0, status
    answer = await stage.ask()
    assert (answer.level, len(answer.items)) == (Level.SIMPLE_RANKING, 10)
    stage.fake.memory = 10_000
    await stage.until_full()


async def test_callers_who_leave_get_nobody_elses_slate(stage: Stage) -> None:
    users = [f"user-{number}" for number in range(6)]
    own = {user: [item.item_id for item in (await stage.ask(user)).items] for user in users}
    assert len({tuple(slate) for slate in own.values()}) == len(users)
    leaving = [asyncio.create_task(stage.ask(users[number % 6])) for number in range(60)]
    staying = [asyncio.create_task(stage.ask(users[number % 6])) for number in range(24)]
    for number, task in enumerate(leaving):
        if number % 4 == 0:
            await asyncio.sleep(0)
        task.cancel()
    for number, task in enumerate(staying):
        answer = await task
        if answer.level is Level.FULL:
            assert [item.item_id for item in answer.items] == own[users[number % 6]]
    await asyncio.gather(*leaving, return_exceptions=True)
    assert (await stage.until_full()).level is Level.FULL


async def test_models_trained_too_long_ago_are_told_and_cost_no_level(
    stage: Stage, published: tuple[Path, Bundle, Part]
) -> None:
    from dataclasses import replace

    created = published[1].manifest.lineage.created_at
    for stale_at, reasons in ((created - 1, ("model_stale",)), (float("inf"), ())):
        stage.serving.pipeline = replace(stage.serving.pipeline, stale_at=stale_at)
        answer = await stage.ask()
        assert (answer.level, answer.reasons) == (Level.FULL, reasons)


async def test_a_damaged_bundle_changes_nothing_and_a_start_on_it_takes_the_one_before(stage: Stage) -> None:
    home = stage.serving.process.settings.home
    bad = home / "bundles" / "2"
    tiny.make(bad, seed=2)
    (bad / PUBLICATION).write_text(json.dumps({"number": 2, "published_at": 1000.0}))
    (bad / "two_tower" / "index.faiss").write_bytes(b"damaged")
    good = stage.serving.bundle.path
    try:
        _point(home, bad)
        await stage.serving.check()
        assert (stage.serving.bundle.path, (await stage.ask()).level) == (good, Level.FULL)
        started = await Breakable.open(stage.serving.process.settings)
        try:
            assert started.serving.bundle.path == good
        finally:
            await started.close()
    finally:
        _point(home, good)


def _point(home: Path, folder: Path) -> None:
    (home / "next").symlink_to(folder)
    (home / "next").replace(home / "current")
