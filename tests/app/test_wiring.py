"""A worker's service over real bundles: opening, swapping, refusing. Redis and Triton are away throughout."""

import asyncio
import json
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from redis.asyncio import Redis

from app import metrics
from app.serving import Serving, open_serving
from app.settings import Settings
from domain.deadline import Deadline
from domain.degradation import DegradationLevel as Level
from domain.errors import StartError
from domain.request import Query
from features import layout
from features.contract import CONTRACT
from features.contract_diff import Meaning
from release.bundle import MANIFEST, PUBLICATION, Bundle, Publication
from tests import tiny_bundle as tiny


def publish(bundle: Bundle, home: Path, number: int) -> Path:
    """What publishing leaves on disk, without Triton and Redis: they are not there in these tests."""
    folder = home / "bundles" / str(number)
    shutil.copytree(bundle.path, folder)
    (folder / PUBLICATION).write_text(json.dumps({"number": number, "published_at": 1000.0}))
    link = home / "next"
    link.symlink_to(folder)
    link.replace(home / "current")
    return folder


@pytest.fixture
def settings(tmp_path: Path, tiny_bundle: Bundle, free_port) -> Settings:
    publish(tiny_bundle, tmp_path, 1)
    return Settings(
        home=tmp_path,
        redis_port=free_port(),
        triton_grpc_port=free_port(),
        features_seconds=2.0,
        retrieval_seconds=2.0,
        ranking_seconds=2.0,
        reranking_seconds=2.0,
    )


@pytest.fixture
async def serving(settings: Settings):
    serving = await open_serving(settings)
    yield serving
    await serving.close()


async def ask(serving: Serving, user: str = "user-1"):
    return await serving.recommend(Query(user, limit=10), Deadline.after(5))


async def test_it_starts_and_answers_without_redis_and_triton(serving: Serving) -> None:
    answer = await ask(serving)
    assert answer.level is Level.SIMPLE_RANKING
    assert set(answer.reasons) == {"features.unavailable", "ranking.unavailable"}
    assert len(answer.items) == 10
    assert serving.ready


async def test_the_state_says_what_is_loaded_in_json(serving: Serving) -> None:
    state = json.loads(json.dumps(serving.state()))
    assert state["bundle"]["number"] == 1
    assert state["triton_model_version"] == "1"
    assert state["dependencies"] == dict.fromkeys(
        ["features", "ranking", "two_tower", "collaborative", "content", "popularity", "preference"], "closed"
    )


async def test_a_new_bundle_is_swapped_in_whole(settings: Settings, tmp_path: Path) -> None:
    swapped: list[str] = []
    serving = await open_serving(settings, lambda bundle: swapped.append(bundle.version))
    try:
        before = await ask(serving)
        other = tiny.make(tmp_path / "other", seed=1)
        publish(other, tmp_path, 2)
        await serving.check()
        after = await ask(serving)
    finally:
        await serving.close()
    assert (before.bundle, after.bundle) == (swapped[0], other.version)
    assert swapped == [before.bundle, other.version]
    assert [item.item_id for item in before.items] != [item.item_id for item in after.items]


async def test_requests_in_flight_during_a_swap_stay_with_one_bundle(serving: Serving, tmp_path: Path) -> None:
    items = {serving.bundle.version: await ask(serving)}
    publish(tiny.make(tmp_path / "other", seed=1), tmp_path, 2)
    asking = [asyncio.create_task(ask(serving)) for _ in range(6)]  # as many as admission lets in
    await serving.check()
    items[serving.bundle.version] = await ask(serving)
    for task in asking:
        answer = await task
        assert answer.items == items[answer.bundle].items


async def test_a_corrupt_bundle_is_refused_and_the_old_one_serves_on(serving: Serving, tmp_path: Path) -> None:
    folder = publish(tiny.make(tmp_path / "other", seed=1), tmp_path, 2)
    (folder / "two_tower" / "index.faiss").write_bytes(b"nonsense")
    before = serving.bundle.version
    await serving.check()
    assert serving.bundle.version == before
    assert (await ask(serving)).bundle == before


async def test_after_a_refusal_the_watch_judges_the_index_in_use_and_after_a_swap_the_new_one(
    serving: Serving, tmp_path: Path
) -> None:
    watched = serving.process.recall.index
    assert watched is not None
    (publish(tiny.make(tmp_path / "b2", seed=2), tmp_path, 2) / PUBLICATION).unlink()
    await serving.check()
    assert serving.bundle.publication == Publication(1, 1000.0)
    await ask(serving)
    assert serving.process.recall.index is watched
    assert len(watched.queries) == 1
    publish(tiny.make(tmp_path / "b3", seed=3), tmp_path, 3)
    await serving.check()
    await ask(serving)
    assert serving.process.recall.index is not watched
    assert len(watched.queries) == 1
    assert serving.process.recall.look() == 1.0


async def test_what_a_request_finds_of_the_model_before_a_swap_is_not_told_after_it(
    serving: Serving, tmp_path: Path
) -> None:
    before = serving.pipeline
    publish(tiny.make(tmp_path / "b2", seed=2), tmp_path, 2)
    await serving.check()
    before.mark.spoil("all the same")
    assert metrics.BAD_MODEL_WORKERS._value.get() == 0
    serving.pipeline.mark.spoil("all the same")
    assert metrics.BAD_MODEL_WORKERS._value.get() == 1
    metrics.model_is(bad=False)


async def test_a_refused_bundle_may_come_back_mended(serving: Serving, tmp_path: Path) -> None:
    first = serving.bundle.path
    folder = publish(tiny.make(tmp_path / "other", seed=1), tmp_path, 2)
    index = folder / "two_tower" / "index.faiss"
    whole = index.read_bytes()
    index.write_bytes(b"nonsense")
    await serving.check()
    assert serving.bundle.path == first
    for target in (first, folder):
        index.write_bytes(whole)
        (tmp_path / "next").symlink_to(target)
        (tmp_path / "next").replace(tmp_path / "current")
        await serving.check()
    assert serving.bundle.path == folder


async def test_an_index_that_faiss_cannot_read_is_refused_even_if_the_manifest_vouches(
    serving: Serving, tmp_path: Path
) -> None:
    from release.bundle import sha256

    folder = publish(tiny.make(tmp_path / "other", seed=1), tmp_path, 2)
    index = folder / "two_tower" / "index.faiss"
    index.write_bytes(b"nonsense")
    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["two_tower/index.faiss"]["sha256"] = sha256(index)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    before = serving.bundle.version
    await serving.check()
    assert serving.bundle.version == before


async def test_no_bundle_is_a_clear_refusal_to_start(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="manifest"):
        await open_serving(Settings(home=tmp_path))


async def test_a_store_whose_features_mean_something_else_is_refused_by_name(
    settings: Settings, redis_url: str, tiny_bundle: Bundle
) -> None:
    names = tiny_bundle.tables.items.genre_names
    meaning = Meaning.of(CONTRACT, names).document()
    meaning["user"][3]["unit"] = "points"
    key = layout.meaning_key(layout.project_name(CONTRACT, names))
    async with Redis.from_url(redis_url) as client:
        await client.set(key, json.dumps(meaning))
        try:
            with pytest.raises(StartError, match="user_rating_mean_stars: unit is 'stars' here and 'points' there"):
                await open_serving(replace(settings, redis_url=redis_url))
        finally:
            await client.delete(key)


async def test_campaigns_come_from_the_file_that_the_setting_names(settings: Settings, tiny_bundle: Bundle) -> None:
    users, items = tiny_bundle.tables.users, tiny_bundle.tables.items
    seen = set(users.history(users.ids.row("user-1")).item_row.tolist())
    sold = next(items.ids.text(row) for row in range(len(items)) if row not in seen)
    file = settings.home / "campaigns.toml"
    file.write_text(
        f'[[campaign]]\nname = "spring"\nitem_ids = ["{sold}"]\nslots = [2]\n'
        "starts_at = 2020-01-01T00:00:00Z\nends_at = 2100-01-01T00:00:00Z\n"
    )
    serving = await open_serving(replace(settings, campaigns=file))
    try:
        answer = await ask(serving)
    finally:
        await serving.close()
    assert (answer.items[2].item_id, answer.items[2].rule) == (sold, "promotion")
