"""From one slate to the next, through the public API over a real Redis: memory, pages, why, and replay."""

from __future__ import annotations

import asyncio
import os
import stat
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import orjson
import pytest

from app import metrics
from app.admission import Admitted, Priority
from app.admission import Path as WayIn
from app.beside.recorder import KEPT_FILES, KEPT_SECONDS, path_of, prune
from app.commands.why_text import replay_text, why_text
from app.edge import Patience, Readiness
from app.http_api import create_app
from app.replay import bundle_of, ranked_anew, read, replayed
from app.serving import Serving
from app.settings import Settings
from app.wiring import Process, build
from domain.deadline import Deadline
from domain.errors import BadAnswer, BundleError
from domain.request import Query
from domain.slate import Campaign
from features.shown import KEPT_SLATES, decode, encode, promoted_key, shown_key, today
from release.bundle import Bundle, Publication
from retrieval.popularity import Popularity
from tests.app.fake_stages import Ranker

KNOWN = "user-3"
NO_CHANCE = "filters,memory"  # minimum exposure draws by user and hour


class Worker:
    """A whole service behind its HTTP door, but for Triton."""

    def __init__(self, serving: Serving, settings: Settings, client: httpx.AsyncClient) -> None:
        self.serving, self.settings, self.client = serving, settings, client

    async def ask(self, **query: Any) -> dict[str, Any]:
        response = await self.client.post("/v1/recommendations", json={"limit": 5, **query})
        assert response.status_code == 200, response.text
        answer: dict[str, Any] = response.json()
        return answer

    async def slate(self, **query: Any) -> list[str]:
        return [item["item_id"] for item in (await self.ask(**query))["items"]]

    async def remembered(self, user: str, slates: int) -> None:
        """Returns once so many slates of the user are in Redis; they are written within a fraction of a second."""
        async with asyncio.timeout(10):
            while await self.serving.process.redis.llen(shown_key(user)) < slates:  # noqa: ASYNC110  # Redis tells nobody
                await asyncio.sleep(0.01)

    def seen(self, user: str) -> set[str]:
        users, items = self.serving.pipeline.reader.users, self.serving.pipeline.items
        return {items.ids.text(row) for row in users.history(users.ids.row(user)).item_row.tolist()}


@pytest.fixture
async def worker(tiny_bundle: Bundle, redis_url: str, tmp_path: Path) -> AsyncIterator[Worker]:
    async with working(tiny_bundle, redis_url, tmp_path, rules=NO_CHANCE) as worker:
        yield worker


@asynccontextmanager
async def working(bundle: Bundle, redis_url: str, home: Path, **more: Any) -> AsyncIterator[Worker]:
    patient = dict.fromkeys(("features_seconds", "retrieval_seconds", "ranking_seconds", "reranking_seconds"), 5.0)
    settings = Settings(home=home, redis_url=redis_url, bundle=bundle.path, **patient | {"replay_ratio": 0.0} | more)
    process = Process.of(settings)
    serving = Serving(process, bundle, pipeline_of(bundle, process), lambda _: None)
    beside = [asyncio.create_task(process.memory.keep(process.redis)), asyncio.create_task(process.recorder.keep())]
    app = create_app(serving, Readiness(serving), Patience(30.0, 30.0))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://here") as client:
        yield Worker(serving, settings, client)
    for task in beside:
        task.cancel()
    await process.close()


def pipeline_of(bundle: Bundle, process: Process) -> Any:
    published = Bundle(bundle.path, bundle.manifest, bundle.tables, Publication(1, 0.0))
    return replace(build(published, process), ranker=Ranker())


def stranger() -> str:
    return f"stranger-{uuid4().hex}"


async def test_a_refresh_differs_whichever_worker_it_comes_to(
    worker: Worker, tiny_bundle: Bundle, redis_url: str, tmp_path: Path
) -> None:
    user = stranger()
    first = await worker.slate(user_id=user)
    await worker.remembered(user, 1)
    async with working(tiny_bundle, redis_url, tmp_path, rules=NO_CHANCE) as other:
        second = await other.slate(user_id=user)
        await other.remembered(user, 2)
    assert not set(first) & set(second)
    assert await worker.slate(user_id=stranger()) == first  # nobody else's slate moves


async def test_a_campaigns_cap_holds_in_every_worker_and_after_a_restart(
    tiny_bundle: Bundle, redis_url: str, tmp_path: Path
) -> None:
    user, campaigns = stranger(), tmp_path / "campaigns.toml"
    campaigns.write_text(
        f'[[campaign]]\nname = "{user}"\nslots = [0]\nitem_ids = ["item-40"]\ndaily_cap = 2\n'
        "starts_at = 2000-01-01T00:00:00Z\nends_at = 2100-01-01T00:00:00Z\n"
    )
    firsts = []
    for _ in range(3):  # each a worker that has just been started
        async with working(tiny_bundle, redis_url, tmp_path, rules="filters,promotion", campaigns=campaigns) as worker:
            firsts.append((await worker.ask(user_id=user))["items"][0]["rule"])
            await worker.serving.process.exposure.flush_caps(worker.serving.process.redis)
            key = promoted_key(user, today(time.time()))
            assert 0 < await worker.serving.process.redis.ttl(key) <= 2 * 86_400
            assert (await worker.ask(user_id=stranger()))["items"][0]["item_id"] == "item-40"
    assert firsts == ["promotion", "promotion", None]


async def test_without_the_rule_a_slate_stands_still_and_nothing_is_kept(
    tiny_bundle: Bundle, redis_url: str, tmp_path: Path
) -> None:
    user = stranger()
    async with working(tiny_bundle, redis_url, tmp_path, rules="filters,diversity") as worker:
        slates = [await worker.slate(user_id=user) for _ in range(3)]
        await worker.serving.process.memory.flush(worker.serving.process.redis)
        assert not await worker.serving.process.redis.exists(shown_key(user))
    assert slates[0] == slates[1] == slates[2]


async def test_memory_ends_by_itself_and_holds_a_few_slates(worker: Worker) -> None:
    user, client = stranger(), worker.serving.process.redis
    for n in range(KEPT_SLATES + 2):
        await worker.slate(user_id=user)
        await worker.remembered(user, min(n + 1, KEPT_SLATES))
    assert await client.llen(shown_key(user)) == KEPT_SLATES
    assert 0 < await client.ttl(shown_key(user)) <= 3600


async def test_a_prefetched_slate_counts_as_shown_nowhere(worker: Worker) -> None:
    def counted() -> float:
        return metrics.EXPOSURE_SLATES.labels("counted")._value.get()

    user, serving, process = stranger(), worker.serving, worker.serving.process
    shelf = serving.pipeline.shelf
    assert shelf is not None
    with process.admission.inside(Admitted(WayIn.FULL, Priority.PREFETCH)):
        prefetched = await serving.recommend(Query(user, limit=5), Deadline.after(30))
    assert prefetched.cursor is not None
    before = counted()
    await process.exposure.flush(process.redis, shelf)
    await process.memory.flush(process.redis)
    assert counted() == before
    assert not await process.redis.exists(shown_key(user))
    assert await worker.slate(user_id=user) == [item.item_id for item in prefetched.items]
    await process.exposure.flush(process.redis, shelf)
    assert counted() == before + 1
    await worker.remembered(user, 1)


async def test_an_entry_that_cannot_be_read_costs_nobody_their_slate(worker: Worker) -> None:
    user = stranger()
    await worker.serving.process.redis.lpush(shown_key(user), b"not json", b"[]", b'["x", "item-01"]')
    assert len(await worker.slate(user_id=user)) == 5
    assert decode([b"{", encode(5.0, ["a", "b"])]).item_ids == ("a", "b")


async def test_a_key_of_another_type_is_a_bad_answer_and_leaves_no_answer_for_the_next_reader(worker: Worker) -> None:
    user = stranger()
    await worker.serving.process.redis.set(shown_key(user), b"x")
    assert "features.bad_answer" in (await worker.ask(user_id=user))["degradation"]["reasons"]
    assert (await worker.ask(user_id=stranger()))["degradation"]["reasons"] == ["cold_start"]


async def test_pages_of_one_slate_repeat_nothing_and_bring_back_nothing_seen(worker: Worker) -> None:
    shown: list[str] = []
    answer = await worker.ask(user_id=KNOWN)
    while answer["items"]:
        shown += [item["item_id"] for item in answer["items"]]
        answer = await worker.ask(user_id=KNOWN, cursor=answer["cursor"])
    assert answer["cursor"] is None
    assert len(set(shown)) == len(shown)
    assert not set(shown) & worker.seen(KNOWN)
    assert set(shown) | worker.seen(KNOWN) == {f"item-{row:02}" for row in range(50)}


async def test_pages_go_on_without_repeats_after_the_bundle_was_replaced_and_say_so(
    worker: Worker, make_bundle: Callable[[int], Bundle]
) -> None:
    first = await worker.ask(user_id=KNOWN)
    other = make_bundle(7)
    worker.serving.bundle, worker.serving.pipeline = other, pipeline_of(other, worker.serving.process)
    second = await worker.ask(user_id=KNOWN, cursor=first["cursor"])
    third = await worker.ask(user_id=KNOWN, cursor=second["cursor"])
    assert second["bundle"] != first["bundle"]
    assert "cursor.other_bundle" in second["degradation"]["reasons"]
    assert "cursor.other_bundle" not in third["degradation"]["reasons"]
    shown = [item["item_id"] for answer in (first, second, third) for item in answer["items"]]
    assert len(shown) == len(set(shown)) == 15


@pytest.mark.parametrize("cursor", ["", "A" * 64, "x", 5, "ü"])
async def test_a_bad_cursor_is_the_callers_mistake(worker: Worker, cursor: object) -> None:
    response = await worker.client.post("/v1/recommendations", json={"user_id": KNOWN, "cursor": cursor})
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert "cursor" in response.json()["detail"]


async def test_somebody_elses_cursor_is_refused(worker: Worker) -> None:
    cursor = (await worker.ask(user_id=KNOWN))["cursor"]
    response = await worker.client.post("/v1/recommendations", json={"user_id": "user-4", "cursor": cursor})
    assert response.status_code == 422


async def test_why_tells_of_one_item_and_shows_it_to_nobody(worker: Worker) -> None:
    user = stranger()
    shown = await worker.slate(user_id=user)
    await worker.remembered(user, 1)
    seen = min(worker.seen(KNOWN))
    told = await worker.client.post("/v1/why", json={"user_id": user, "item_id": shown[0], "limit": 5})
    filtered = await worker.client.get(f"/v1/why/{KNOWN}?item_id={seen}&limit=5")
    assert (told.status_code, filtered.status_code) == (200, 200)
    item, body = filtered.json()["item"], told.json()
    assert (item["item_id"], item["step"], item["reason"]) == (seen, "filtered", "seen")
    assert (body["item"]["step"], body["item"]["reason"]) == ("displaced", "memory")  # it was shown just now
    assert body["funnel"]["slate"] == 5
    assert "moved out of the slate by the rule memory" in why_text(body)
    await worker.serving.process.memory.flush(worker.serving.process.redis)
    assert await worker.serving.process.redis.llen(shown_key(user)) == 1


@pytest.mark.parametrize("body", [{}, {"user_id": "u"}, {"item_id": "1"}, {"user_id": "u", "item_id": ""}])
async def test_a_question_without_an_item_or_a_user_is_refused(worker: Worker, body: dict[str, str]) -> None:
    assert (await worker.client.post("/v1/why", json=body)).status_code == 422
    assert (await worker.client.get("/v1/why/42")).status_code == 422


@pytest.mark.parametrize("user", [KNOWN, "nobody-knows-them"])
async def test_a_debug_answer_tells_the_funnel_and_every_item(worker: Worker, user: str) -> None:
    answer = await worker.ask(user_id=user, debug=True)
    debug = answer["debug"]
    assert [item["item_id"] for item in debug["items"]] == [item["item_id"] for item in answer["items"]]
    assert debug["funnel"]["ranked"] == debug["ranked"] > 5
    assert set(debug["funnel"]["sources"]) == {"two_tower", "collaborative", "content", "popularity", "preference"}


@asynccontextmanager
async def recording(bundle: Bundle, redis_url: str, home: Path, **more: Any) -> AsyncIterator[Worker]:
    async with working(bundle, redis_url, home, replay_ratio=1.0, **more) as worker:
        yield worker


async def kept(worker: Worker, request_id: str) -> Any:
    folder = worker.settings.home / "replay"
    async with asyncio.timeout(10):
        while not path_of(folder, request_id).exists():  # noqa: ASYNC110  # nor does a folder
            await asyncio.sleep(0.01)
    return read(folder, request_id)


async def test_a_recorded_request_gives_the_same_slate_again(
    tiny_bundle: Bundle, redis_url: str, tmp_path: Path
) -> None:
    user = stranger()
    async with recording(tiny_bundle, redis_url, tmp_path) as worker:
        await worker.slate(user_id=user)
        await worker.remembered(user, 1)
        for who in (user, KNOWN):  # one with memory, one with a history
            answer = await worker.ask(user_id=who, limit=8)
            record = await kept(worker, answer["request_id"])
            again = replayed(record, bundle_of(record, worker.settings))
            assert again.differences == ()
            assert [item for item, _ in again.slate] == [item["item_id"] for item in answer["items"]]
            assert [rule for _, rule in again.slate] == [item["rule"] for item in answer["items"]]
            assert "the same slate" in replay_text(record, again)
        path = path_of(tmp_path / "replay", answer["request_id"])
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_replay_says_where_it_comes_out_otherwise(tiny_bundle: Bundle, redis_url: str, tmp_path: Path) -> None:
    async with recording(tiny_bundle, redis_url, tmp_path) as worker:
        answer = await worker.ask(user_id=KNOWN)
        record = dict(await kept(worker, answer["request_id"]))
        bundle = bundle_of(record, worker.settings)
    fewer = record | {"sources": [*record["sources"][:-1], record["sources"][-1] | {"item_ids": [], "scores": []}]}
    assert any(line.startswith("merge: ") for line in replayed(fewer, bundle).differences)
    other = record | {"slate": [["item-49", None], *record["slate"][1:]]}
    assert replayed(other, bundle).differences == (f"slate: place 0 is {shown_at(record)}, was item-49",)
    with pytest.raises(BundleError, match="not kept any more"):
        bundle_of(record | {"bundle": "another"}, worker.settings)


def shown_at(record: dict[str, Any]) -> str:
    item, rule = record["slate"][0]
    return f"{item} ({rule})" if rule else str(item)


async def test_ranked_anew_by_what_ranked_then_the_scores_are_the_same(
    tiny_bundle: Bundle, redis_url: str, tmp_path: Path
) -> None:
    async with recording(tiny_bundle, redis_url, tmp_path) as worker:
        worker.serving.pipeline = replace(worker.serving.pipeline, ranker=Ranker(BadAnswer("triton")))
        answer = await worker.ask(user_id=KNOWN)
        assert "ranking.bad_answer" in answer["degradation"]["reasons"]
        record = await kept(worker, answer["request_id"])
        bundle = bundle_of(record, worker.settings)
        anew = await ranked_anew(record, bundle, worker.settings)
    again = replayed(record, bundle, anew)
    assert (again.ranker, again.differences) == ("logistic", ())
    off = replayed(record, bundle, (anew[0], -anew[1]))
    assert any("scores differ" in line for line in off.differences)


async def test_a_stranger_is_ranked_anew_by_nobody_with_campaigns_and_items_to_try_out(
    tiny_bundle: Bundle, redis_url: str, tmp_path: Path
) -> None:
    async with recording(tiny_bundle, redis_url, tmp_path, rules="filters,promotion,exposure") as worker:
        pipeline = worker.serving.pipeline
        shelf, popular = pipeline.shelf, [found.name for found in pipeline.sources].index("popularity")
        assert shelf is not None
        rows, tried = np.arange(40, 42, dtype=np.int32), np.arange(42, 48, dtype=np.int32)
        shelf.quota = replace(shelf.quota, share=0.4, explore=tried)
        few = Popularity(tiny_bundle.tables.popularity, 20)
        campaigns = (
            Campaign("spring", rows[:1], (2,), 0.0, 9e9),
            Campaign("lifted", rows[1:], (), 0.0, 9e9, boost=2.0),
        )
        sources = (*pipeline.sources[:popular], few, *pipeline.sources[popular + 1 :])
        worker.serving.pipeline = replace(pipeline, campaigns=campaigns, sources=sources)
        for who in (stranger(), KNOWN):
            answer = await worker.ask(user_id=who, limit=8, debug=True)
            assert answer["debug"]["funnel"]["added"] > 0 or who == KNOWN
            assert "promotion" in {item["rule"] for item in answer["items"]}
            record = await kept(worker, answer["request_id"])
            bundle = bundle_of(record, worker.settings)
            assert replayed(record, bundle).differences == ()
            if who != KNOWN:
                anew = await ranked_anew(record, bundle, worker.settings)
                assert (anew[0], replayed(record, bundle, anew).differences) == ("the merge", ())


async def test_a_share_of_requests_is_kept_and_nothing_without_one(worker: Worker, tmp_path: Path) -> None:
    await worker.slate(user_id=KNOWN)
    assert not (tmp_path / "replay").exists()
    with pytest.raises(BundleError, match="no such request"):
        read(tmp_path / "replay", "../../etc/passwd")


def test_old_records_and_too_many_are_removed(tmp_path: Path) -> None:
    for n in range(KEPT_FILES + 3):
        path = path_of(tmp_path, f"{n:05}")
        path.write_bytes(orjson.dumps(n))
        os.utime(path, (1e9 + n, 1e9 + n))
    prune(tmp_path, 1e9 + KEPT_FILES)
    left = sorted(path.name for path in tmp_path.iterdir())
    assert len(left) == KEPT_FILES
    assert left[0] == path_of(tmp_path, "00003").name
    prune(tmp_path, 1e9 + KEPT_FILES + KEPT_SECONDS)
    assert sorted(path.name for path in tmp_path.iterdir()) == left[-3:]
