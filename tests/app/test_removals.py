"""Removals: what an operator takes out is in no answer of any worker, on any rung, and stays out through outages."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import redis

from app.cli import main
from app.removals import FILE, KEY, LOOK_SECONDS, Removals, remove_items, removed_items, restore_items
from app.serving import Serving, open_serving
from app.settings import Settings
from domain.deadline import Deadline
from domain.errors import Unreachable
from domain.request import Query
from features import online
from release.bundle import PUBLICATION, Bundle

ITEM = "item-05"


@pytest.fixture
def url(redis_url: str):
    with redis.Redis.from_url(redis_url) as client:
        client.delete(KEY)
        yield redis_url
        client.delete(KEY)


@pytest.fixture
def settings(tmp_path: Path, tiny_bundle: Bundle, url: str, free_port) -> Settings:
    folder = tmp_path / "bundles" / "1"
    shutil.copytree(tiny_bundle.path, folder)
    (folder / PUBLICATION).write_text(json.dumps({"number": 1, "published_at": 1000.0}))
    (tmp_path / "current").symlink_to(folder)
    campaigns = tmp_path / "campaigns.toml"
    campaigns.write_text(
        '[[campaign]]\nname = "all year"\nslots = [0]\n'
        f'item_ids = ["{ITEM}", "item-06"]\nstarts_at = 2000-01-01T00:00:00Z\nends_at = 2100-01-01T00:00:00Z\n'
    )
    patient: dict[str, Any] = dict.fromkeys(("features_seconds", "retrieval_seconds", "ranking_seconds"), 5.0)
    return Settings(home=tmp_path, redis_url=url, triton_grpc_port=free_port(), campaigns=campaigns, **patient)


@pytest.fixture
async def serving(settings: Settings) -> AsyncIterator[Serving]:
    serving = await open_serving(settings)
    yield serving
    await serving.close()


async def shown(serving: Serving) -> set[str]:
    """Everything that several people see, on the full path and from the lists."""
    asked = [(Query(user, limit=50), seconds) for user in ("user-1", "user-2", "nobody") for seconds in (20.0, 0.0)]
    answers = [await serving.recommend(query, Deadline.after(seconds)) for query, seconds in asked]
    assert all(answer.items for answer in answers)
    return {item.item_id for answer in answers for item in answer.items}


async def look(serving: Serving) -> None:
    """What the watch loop does, without waiting for it."""
    removals = serving.process.removals
    removals._next_look_at = 0.0
    await serving.look_at_removals()


async def test_a_removed_item_is_on_no_rung_and_in_no_campaign_until_it_is_restored(serving: Serving, url: str) -> None:
    assert ITEM in await shown(serving)
    remove_items(url, [ITEM, "of another bundle"], 100.0)
    await look(serving)
    assert ITEM not in await shown(serving)
    assert "item-06" in await shown(serving)
    restore_items(url, [ITEM], 200.0)
    await look(serving)
    assert ITEM in await shown(serving)


async def test_a_removed_item_is_owed_no_exposure_until_it_is_restored(serving: Serving, url: str) -> None:
    shelf = serving.pipeline.shelf
    assert shelf is not None
    row = shelf.items.ids.row(ITEM)
    assert shelf.items.eligible[row]
    remove_items(url, [ITEM], 100.0)
    await look(serving)
    assert serving.pipeline.shelf is shelf
    assert not shelf.items.eligible[row]
    restore_items(url, [ITEM], 200.0)
    await look(serving)
    assert shelf.items.eligible[row]


async def test_a_swapped_in_bundle_keeps_the_removal(serving: Serving, url: str, make_bundle) -> None:
    remove_items(url, [ITEM], 100.0)
    await look(serving)
    other = make_bundle(3)
    (other.path / PUBLICATION).write_text(json.dumps({"number": 2, "published_at": 1000.0}))
    link = serving.process.settings.home / "next"
    link.symlink_to(other.path)
    link.replace(serving.process.settings.bundle)
    await serving.check()
    assert serving.bundle.version == other.version
    assert ITEM not in await shown(serving)


async def test_a_worker_that_starts_without_redis_knows_what_the_last_one_knew(
    serving: Serving, settings: Settings, url: str, free_port: Callable[[], int]
) -> None:
    remove_items(url, [ITEM], 100.0)
    await look(serving)
    later = await open_serving(replace(settings, redis_url=f"redis://127.0.0.1:{free_port()}/0"))
    try:
        assert ITEM not in await shown(later)
    finally:
        await later.close()


async def test_a_redis_that_lost_the_list_is_given_it_again(serving: Serving, url: str) -> None:
    remove_items(url, [ITEM], 100.0)
    await look(serving)
    with redis.Redis.from_url(url) as client:
        client.delete(KEY)
    await look(serving)
    assert removed_items(url) == {ITEM: 100.0}
    assert ITEM not in await shown(serving)


async def test_what_is_removed_from_a_redis_that_lost_the_list_comes_on_top(serving: Serving, url: str) -> None:
    remove_items(url, [ITEM], 100.0)
    await look(serving)
    with redis.Redis.from_url(url) as client:
        client.delete(KEY)
    remove_items(url, ["item-06"], 200.0)
    await look(serving)
    assert not {ITEM, "item-06"} & await shown(serving)
    assert removed_items(url) == {ITEM: 100.0, "item-06": 200.0}
    assert set(json.loads((serving.process.settings.home / FILE).read_text())) == {ITEM, "item-06"}


async def test_what_is_restored_in_a_redis_that_lost_the_list_comes_back(serving: Serving, url: str) -> None:
    remove_items(url, [ITEM, "item-06"], 100.0)
    await look(serving)
    with redis.Redis.from_url(url) as client:
        client.delete(KEY)
    restore_items(url, [ITEM], 200.0)
    await look(serving)
    assert ITEM in await shown(serving)
    assert removed_items(url) == {"item-06": 100.0}


async def test_a_worker_that_slept_through_a_restoration_does_not_undo_it(serving: Serving, url: str) -> None:
    remove_items(url, [ITEM], 100.0)
    await look(serving)
    restore_items(url, [ITEM], 50.0)  # by a machine whose clock is behind
    await look(serving)
    assert ITEM in await shown(serving)
    assert removed_items(url) == {}
    remove_items(url, [ITEM], 60.0)
    await look(serving)
    assert ITEM not in await shown(serving)


async def test_a_file_that_is_no_list_is_no_list(tmp_path: Path, url: str) -> None:
    for content in ("{half", "[1]", '{"item-05": "yesterday"}'):
        (tmp_path / FILE).write_text(content)
        client = online.connect(url)
        assert Removals.kept_at(client, tmp_path).since == {}
        await client.aclose()


async def test_between_two_looks_redis_is_left_alone(tmp_path: Path, free_port: Callable[[], int]) -> None:
    now = 100.0
    client = online.connect(f"redis://127.0.0.1:{free_port()}/0")
    removals = Removals(client, tmp_path / FILE, clock=lambda: now)
    with pytest.raises(Unreachable):
        await removals.look()
    assert not await removals.look()
    now += LOOK_SECONDS
    with pytest.raises(Unreachable):
        await removals.look()
    with suppress(Unreachable):
        await client.aclose()


def test_the_command_line_removes_lists_and_restores(
    settings: Settings, url: str, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"STREAMREC_HOME": str(settings.home), "STREAMREC_REDIS_URL": url}
    assert main(["remove", ITEM, "typing-error"], environ) == 0
    printed = capsys.readouterr().out
    assert "removed 2" in printed
    assert "held for later ones: typing-error" in printed
    assert main(["removed"], environ) == 0
    assert ITEM in capsys.readouterr().out
    assert main(["restore", ITEM, "typing-error"], environ) == 0
    assert main(["restore", ITEM], environ) == 1
    assert main(["removed"], environ) == 0
    assert "no item is removed" in capsys.readouterr().out


def test_removing_without_redis_is_an_error_in_one_line(
    tmp_path: Path, free_port: Callable[[], int], capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"STREAMREC_HOME": str(tmp_path), "STREAMREC_REDIS_URL": f"redis://127.0.0.1:{free_port()}/0"}
    assert main(["remove", ITEM], environ) == 2
    assert "Redis does not answer" in capsys.readouterr().err
