"""The catalogue changes under a running service: an item is taken out, a new one appears, and nothing is trained.

The last test publishes another bundle, so this file comes after those that know which one is served.
"""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import httpx
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tests.e2e.conftest import DATA, Service, eventually

HASTE = {"X-Request-Timeout-Ms": "1"}  # no time for the full path: the precomputed lists answer
PEOPLE: tuple[str, ...] = ("1", "42", "213", "a stranger")


def answer(service: Service, user: str, headers: dict[str, str]) -> dict[str, Any]:
    response = httpx.post(
        f"{service.address}/v1/recommendations", json={"user_id": user, "limit": 100}, headers=headers, timeout=10
    )
    assert response.status_code == 200, response.text
    found: dict[str, Any] = response.json()
    return found


def shown(service: Service) -> dict[str, set[str]]:
    """Level -> the items that several people see at it, over both workers."""
    seen: dict[str, set[str]] = {}
    for user in PEOPLE:
        for headers in ({}, HASTE) * 3:
            found = answer(service, user, headers)
            ids = {item["item_id"] for item in found["items"]}
            assert ids
            seen.setdefault(found["degradation"]["level"], set()).update(ids)
    return seen


def everything(service: Service) -> set[str]:
    return set().union(*shown(service).values())


def test_a_removed_item_leaves_every_rung_within_a_minute_and_comes_back_when_restored(service: Service) -> None:
    service.ask_at_full(user_id="42")
    before = shown(service)
    assert {"BATCH_LIST", "POPULAR"} <= set(before)
    item = next(iter(before["BATCH_LIST"] & before["POPULAR"]))
    assert service.run("remove", item).returncode == 0
    # each worker looks for itself, and a few answers may all be from the one that has
    eventually(lambda: all(item not in everything(service) for _ in range(5)), seconds=60)
    assert service.run("restore", item).returncode == 0
    eventually(lambda: item in everything(service), seconds=60)


def test_a_series_that_nobody_trained_on_is_recommended_after_a_refresh(service: Service, tmp_path: Path) -> None:
    data = with_a_new_series(tmp_path / "data")
    before = service.ask(user_id="42")["bundle"]
    started = time.monotonic()
    child = service.run("publish", "--refresh-items", "--data", str(data))
    assert child.returncode == 0, child.stdout + child.stderr
    assert "1 new items" in child.stdout
    assert "scores equal training's" in child.stdout
    eventually(lambda: before not in {service.ask(user_id="42")["bundle"] for _ in range(10)}, seconds=60)
    assert time.monotonic() - started < 180  # it is seconds where nothing else runs; training takes minutes
    slate = [item["item_id"] for item in service.ask_at_full(user_id="a stranger")["items"]]
    assert len(slate) == 20
    assert "the-series" in slate  # what everybody watches and no model has met
    assert "the-series" in {item["item_id"] for item in answer(service, "a stranger", HASTE)["items"]}
    about = service.ask_at_full(recent_item_ids=["the-series"])
    assert {source for item in about["items"] for source in item["sources"]} >= {"two_tower", "content"}


def with_a_new_series(folder: Path) -> Path:
    """The quick start's data with an item that everybody watched on the last day."""
    shutil.copytree(DATA, folder)
    items, ratings = (pq.read_table(folder / f"{name}.parquet") for name in ("items", "ratings"))
    row = {name: pa.nulls(1, items.schema.field(name).type) for name in items.schema.names}
    row |= {
        "item_id": pa.array(["the-series"], items.schema.field("item_id").type),
        "title": pa.array(["The Series (2016)"], items.schema.field("title").type),
        "genres": items["genres"].slice(0, 1).combine_chunks(),
        "year": pa.array([2016], items.schema.field("year").type),
    }
    pq.write_table(pa.concat_tables([items, pa.table(row, schema=items.schema)]), folder / "items.parquet")
    users, last = pc.unique(ratings["user_id"]), pc.max(ratings["timestamp"])
    watched = {
        "user_id": users,
        "item_id": ["the-series"] * len(users),
        "rating": [5.0] * len(users),
        "timestamp": pa.repeat(last, len(users)),
    }
    more = pa.table(watched).select(ratings.schema.names).cast(ratings.schema)
    pq.write_table(pa.concat_tables([ratings, more]), folder / "ratings.parquet")
    return folder
