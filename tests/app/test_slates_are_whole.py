"""Slates that age limits, campaigns and strangers must not spoil, asked for over HTTP and a real Redis."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.beside.exposure_watch import Shelf
from app.replay import bundle_of, replayed
from domain.catalogue import Facets
from domain.slate import Campaign, ExposureQuota, Spent
from release.bundle import Bundle
from reranking.configured import configured
from tests.app.test_slates_go_on import Worker, kept, recording, stranger

SOMEBODY: dict[str, Any] = {"recent_item_ids": ["item-01", "item-02", "item-03"]}
CHILD = {"max_age_rating": 6}


@pytest.fixture
async def worker(tiny_bundle: Bundle, redis_url: str, tmp_path: Path) -> AsyncIterator[Worker]:
    """Ranks ten candidates, and keeps each request for replay."""
    async with recording(tiny_bundle, redis_url, tmp_path, rules="filters,promotion,diversity") as worker:
        pipeline = worker.serving.pipeline
        worker.serving.pipeline = replace(pipeline, shelf=None, budget=replace(pipeline.budget, candidates=10))
        yield worker


def facets(n: int, **columns: Any) -> Facets:
    unknown, never = np.full(n, -1, np.int32), np.full(n, np.nan)
    nowhere = np.zeros((n, 0), np.bool_)
    nothing = Facets(unknown, (), unknown, (), never.astype(np.float32), False, nowhere, (), never)
    return replace(nothing, **columns)


def with_facets(worker: Worker, **columns: Any) -> None:
    pipeline = worker.serving.pipeline
    of_items = facets(len(pipeline.items), **columns)
    worker.serving.pipeline = replace(pipeline, items=replace(pipeline.items, facets=of_items))


async def unlikely(worker: Worker, n: int) -> list[int]:
    """The rows that would be ranked last for somebody, if all were."""
    pipeline = worker.serving.pipeline
    worker.serving.pipeline = replace(pipeline, budget=replace(pipeline.budget, candidates=500))
    last = (await worker.slate(**SOMEBODY, limit=50))[-n:]
    worker.serving.pipeline = pipeline
    rows: list[int] = pipeline.items.ids.rows(last).tolist()
    return rows


async def test_a_child_has_a_whole_slate_of_a_catalogue_for_adults(worker: Worker) -> None:
    for_children = await unlikely(worker, 6)
    ages = np.full(len(worker.serving.pipeline.items), 18, np.float32)
    ages[for_children] = 6
    with_facets(worker, age_rating=ages, rated=True)
    answer = await worker.ask(**SOMEBODY, context=CHILD)
    assert answer["degradation"] == {"level": "FULL", "reasons": ["cold_start"]}
    assert len(answer["items"]) == 5
    assert {worker.serving.pipeline.items.ids.row(item["item_id"]) for item in answer["items"]} <= set(for_children)
    adult = (await worker.slate(**SOMEBODY))[0]
    told = (await worker.client.post("/v1/why", json={**SOMEBODY, "item_id": adult, "context": CHILD})).json()
    assert (told["item"]["step"], told["item"]["reason"]) == ("filtered", "audience")
    record = await kept(worker, answer["request_id"])
    assert replayed(record, bundle_of(record, worker.settings)).differences == ()


async def test_a_region_has_a_whole_slate_of_what_is_licensed_there(worker: Worker) -> None:
    licensed = await unlikely(worker, 6)
    regions = np.zeros((len(worker.serving.pipeline.items), 2), np.bool_)
    regions[:, 0] = True
    regions[licensed] = (False, True)
    with_facets(worker, regions=regions, region_names=("DE", "FR"))
    slate = await worker.slate(**SOMEBODY, context={"region": "FR"})
    assert len(slate) == 5
    assert set(worker.serving.pipeline.items.ids.rows(slate).tolist()) <= set(licensed)


async def test_what_a_later_rule_moves_stays_on_the_campaigns_account(worker: Worker) -> None:
    """All are of one genre but one, which diversity lifts; it is the campaign's, lifted before."""
    pipeline, (last,) = worker.serving.pipeline, await unlikely(worker, 1)
    genres = np.zeros_like(pipeline.items.genres)
    others = np.setdiff1d(np.arange(len(genres)), [last])
    genres[others[:25], 0], genres[others[25:], 1] = True, True
    campaign = Campaign("spring", np.array([last], np.int32), (), 0.0, 9e9, boost=0.5, daily_cap=1)
    rules = configured("filters,promotion,diversity window=5 most=1")
    worker.serving.pipeline = replace(
        pipeline,
        items=replace(pipeline.items, genres=genres),
        campaigns=(campaign,),
        rules=rules,
        spent=lambda user_id: worker.serving.process.exposure.spent(user_id, (campaign,)),
        shelf=Shelf.of(pipeline.items, ("genre",), 0.0),
    )
    user = stranger()
    item_id = pipeline.items.ids.text(last)
    first = await worker.ask(user_id=user, **SOMEBODY)
    assert {item["item_id"]: item["rule"] for item in first["items"]}[item_id] == "diversity"
    assert worker.serving.process.exposure.spent(user, (campaign,))["spring"].on_user_today == 1


@pytest.mark.parametrize(("spent", "ranked"), [(4, True), (5, False)])
async def test_a_campaign_without_budget_takes_no_place_among_the_ranked(
    worker: Worker, spent: int, ranked: bool
) -> None:
    pipeline, (last,) = worker.serving.pipeline, await unlikely(worker, 1)
    campaign = Campaign("spring", np.array([last], np.int32), (0,), 0.0, 9e9, budget=5)
    so_far = {"spring": Spent(in_all=spent)}
    worker.serving.pipeline = replace(pipeline, campaigns=(campaign,), spent=lambda _: so_far, shelf=None)
    asked = {**SOMEBODY, "item_id": pipeline.items.ids.text(last)}
    told = (await worker.client.post("/v1/why", json=asked)).json()
    assert (told["item"]["step"] != "below_the_cut") == ranked


async def test_requests_without_a_user_draw_their_own_exposure(worker: Worker) -> None:
    """A twentieth of five places is owed: some of the slates show an item for it, the others do not."""
    pipeline = worker.serving.pipeline
    shelf = Shelf.of(pipeline.items, ("genre",), 0.05)
    owed = np.zeros(len(pipeline.items), np.int32)
    owed[await unlikely(worker, 10)] = 1
    shelf.quota = ExposureQuota(0.05, owed - 1, np.ones(1, np.float32))
    worker.serving.pipeline = replace(
        pipeline, shelf=shelf, rules=configured("exposure"), budget=replace(pipeline.budget, candidates=50)
    )
    delivered = []
    for n in range(20):
        answer = await worker.client.post(
            "/v1/recommendations", json={"limit": 5, **SOMEBODY}, headers={"X-Request-Id": f"r-{n}"}
        )
        delivered.append(any(item["rule"] == "exposure" for item in answer.json()["items"]))
    assert 0 < sum(delivered) < 20


async def test_why_tells_of_what_was_cut_off_and_of_what_a_campaign_moved_out(worker: Worker) -> None:
    async def told(item_id: str) -> tuple[str, str | None]:
        body = {"item_id": item_id, "limit": 5, **SOMEBODY}
        item = (await worker.client.post("/v1/why", json=body)).json()["item"]
        return item["step"], item["reason"]

    pipeline, (last,) = worker.serving.pipeline, await unlikely(worker, 1)
    assert await told(pipeline.items.ids.text(last)) == ("below_the_cut", None)
    campaign = Campaign("spring", np.array([last], np.int32), (0,), 0.0, 9e9)
    worker.serving.pipeline = replace(pipeline, campaigns=(campaign,), rules=configured("filters,promotion"))
    assert await told(pipeline.items.ids.text(last)) == ("shown", None)
    ranked_fifth = (await worker.slate(**SOMEBODY, limit=6))[5]
    assert await told(ranked_fifth) == ("displaced", "promotion")
