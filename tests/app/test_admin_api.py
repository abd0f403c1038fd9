"""Orders by hand: who may give them, what they say, and that every worker follows."""

from __future__ import annotations

import asyncio
import json
import logging
import shutil
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import pytest

from app.access import ADMIN, Access, make_key
from app.edge import Patience, Readiness
from app.guard import Guard
from app.http_api import create_app
from app.orders import FILE, Follower, OrderBook, Orders
from app.serving import open_serving
from app.settings import Settings
from domain.deadline import Deadline
from domain.errors import BreakerOpen
from domain.request import Query
from fallbacks.breakers import Breaker, BreakerPolicy
from release.bundle import PUBLICATION, Bundle
from tests.app.fake_serving import FakeServing


@dataclass
class Door:
    client: httpx.AsyncClient
    book: OrderBook


@pytest.fixture
async def door(tmp_path: Path) -> AsyncIterator[Door]:
    token, key = make_key("ops", ADMIN)
    (tmp_path / "keys").write_text(key.line)
    serving, book = FakeServing(), OrderBook(tmp_path / "home")
    app = create_app(serving, Readiness(serving), Patience(0.15, 1.0), Access(tmp_path / "keys"), book)
    headers = {"authorization": f"Bearer {token}"}
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://streamrec", headers=headers) as client:
        yield Door(client, book)


async def test_orders_are_written_down_told_and_logged_with_the_name_of_the_key(
    door: Door, caplog: pytest.LogCaptureFixture
) -> None:
    assert (await door.client.get("/admin/orders")).json() == {"held": [], "reloads": 0}
    with caplog.at_level(logging.WARNING, "streamrec.admin"):
        held = await door.client.put("/admin/holds", json={"parts": ["ranking"]})
        again = await door.client.post("/admin/bundle/reload")
    assert held.json() == {"held": ["ranking"], "reloads": 0}
    assert again.json() == {"held": ["ranking"], "reloads": 1}
    assert door.book.read() == Orders(frozenset({"ranking"}), 1)
    assert [(vars(record)["order"], vars(record)["key"]) for record in caplog.records] == [
        ("hold", "ops"),
        ("reload", "ops"),
    ]
    assert (await door.client.put("/admin/holds", json={"parts": []})).json()["held"] == []


@pytest.mark.parametrize(
    "body",
    [{}, {"parts": "ranking"}, {"parts": ["SmuggledMarker"]}, {"parts": [["ranking"]]}, {"parts": [], "x": 1}, []],
)
async def test_an_order_that_is_none_is_refused(door: Door, body: Any) -> None:
    response = await door.client.put("/admin/holds", json=body)
    assert response.status_code == 422
    assert "SmuggledMarker" not in response.text
    assert door.book.read() == Orders()


async def test_without_keys_nobody_gives_orders(tmp_path: Path) -> None:
    serving, book = FakeServing(), OrderBook(tmp_path)
    app = create_app(serving, Readiness(serving), Patience(0.15, 1.0), orders=book)
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://streamrec") as client:
        assert (await client.put("/admin/holds", json={"parts": ["ranking"]})).status_code == 403
    assert book.read() == Orders()


async def test_a_disk_that_cannot_be_written_refuses_the_order(door: Door) -> None:
    door.book.home.write_text("a file where the folder should be")
    response = await door.client.post("/admin/bundle/reload")
    assert (response.status_code, response.headers["content-type"]) == (500, "application/problem+json")


@pytest.mark.parametrize("content", ["", "{}", "[]", '{"held": 1, "reloads": 2}'])
def test_a_file_that_is_no_orders_counts_as_none(tmp_path: Path, content: str) -> None:
    (tmp_path / FILE).write_text(content)
    assert OrderBook(tmp_path).read() == Orders()


def test_a_worker_that_starts_later_holds_what_was_ordered_before(tmp_path: Path) -> None:
    OrderBook(tmp_path).hold(frozenset({"ranking"}))
    told: list[frozenset[str]] = []
    follower = Follower(OrderBook(tmp_path), told.append)
    assert told == [{"ranking"}]
    assert not follower.follow()
    OrderBook(tmp_path).reload()
    assert follower.follow()
    assert told == [{"ranking"}]
    OrderBook(tmp_path).hold(frozenset())
    assert not follower.follow()
    assert told[-1] == frozenset()


async def test_what_is_held_is_not_asked_until_it_is_let_go() -> None:
    seen: list[str] = []
    guard = Guard({"x": Breaker("x", BreakerPolicy())}, {"x": 1.0}, lambda _, outcome, __: seen.append(outcome))

    async def work() -> int:
        return 7

    guard.hold(frozenset({"x"}))
    with pytest.raises(BreakerOpen):
        await guard.attempt("x", work, Deadline.after(5))
    guard.hold(frozenset())
    assert await guard.attempt("x", work, Deadline.after(5)) == 7
    assert seen == ["open", "ok"]


async def test_a_running_worker_follows_the_orders(tmp_path: Path, tiny_bundle: Bundle) -> None:
    """A hold shows in the answers, and a refused bundle gets the second chance that a reload orders."""
    for number in ("7", "8"):
        shutil.copytree(tiny_bundle.path, tmp_path / "bundles" / number)
        published = {"number": int(number), "published_at": 1.7e9}
        (tmp_path / "bundles" / number / PUBLICATION).write_text(json.dumps(published))
    (tmp_path / "current").symlink_to("bundles/7")
    dead = Settings(home=tmp_path, redis_url="redis://127.0.0.1:1", triton_url="127.0.0.1:1")
    serving = await open_serving(dead)
    book, broken = OrderBook(tmp_path), tmp_path / "bundles" / "8" / "manifest.json"
    try:
        book.hold(frozenset({"popularity"}))
        await serving.check()
        answer = await serving.recommend(Query("nobody"), Deadline.after(1.0))
        assert "popularity.open" in answer.reasons
        assert serving.state()["held"] == ["popularity"]

        whole = broken.read_bytes()
        broken.write_bytes(b"{}")
        (tmp_path / "new").symlink_to("bundles/8")
        (tmp_path / "new").replace(tmp_path / "current")
        await serving.check()
        broken.write_bytes(whole)
        await serving.check()
        assert serving.state()["bundle"]["number"] == 7  # refused once, and left alone
        book.reload()
        async with asyncio.timeout(30):
            await serving.check()
        assert serving.state()["bundle"]["number"] == 8
    finally:
        await serving.close()
