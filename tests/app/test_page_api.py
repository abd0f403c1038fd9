"""The page's files and calls over a real bundle; what it does in a browser is in tests/page."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import httpx
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access import CLIENT, READER, Access, make_key
from app.edge import Patience, Readiness
from app.http_api import create_app
from app.page_api import MAX_ITEMS, RECENT, USERS, router, rows_with_prefix, wanted
from app.serving import open_serving
from app.settings import Settings
from domain.catalogue import IdTable
from release.bundle import PUBLICATION, Bundle
from tests.app.doors import ask, listening
from tests.app.fake_serving import FakeServing

FILES = ("/", "/page/page.js", "/page/style.css", "/page/icon.svg")
READY, READING = make_key("shop", CLIENT), make_key("prometheus", READER)


@pytest.fixture
async def client(tmp_path: Path, tiny_bundle: Bundle, free_port: Callable[[], int]) -> AsyncIterator[httpx.AsyncClient]:
    """The door with its page and keys, over a bundle; Redis and Triton are away."""
    shutil.copytree(tiny_bundle.path, tmp_path / "current")
    (tmp_path / "current" / PUBLICATION).write_text(json.dumps({"number": 1, "published_at": 1000.0}))
    (tmp_path / "keys").write_text(f"{READY[1].line}\n{READING[1].line}\n")
    serving = await open_serving(Settings(home=tmp_path, redis_port=free_port(), triton_grpc_port=free_port()))
    app = create_app(serving, Readiness(serving), Patience(0.15, 1.0), Access(tmp_path / "keys"))
    app.include_router(router(lambda: serving.pipeline))
    headers = {"authorization": f"Bearer {READY[0]}"}
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://x", headers=headers) as client:
        yield client
    await serving.close()


async def test_the_files_need_no_key_and_allow_no_script_but_their_own(client: httpx.AsyncClient) -> None:
    for path in FILES:
        response = await client.get(path, headers={"authorization": ""})
        assert response.status_code == 200, path
        policy = response.headers["content-security-policy"]
        assert policy.startswith("default-src 'none'; script-src 'self';")
        assert "unsafe" not in policy
        assert response.headers["x-content-type-options"] == "nosniff"
    assert "<script>" not in (await client.get("/")).text


@pytest.mark.parametrize("path", ["/v1/page/users", "/v1/page/recent?user_id=user-1", "/v1/page/items?id=item-1"])
async def test_what_tells_of_users_and_items_needs_a_clients_key(client: httpx.AsyncClient, path: str) -> None:
    assert (await client.get(path)).status_code == 200
    assert (await client.get(path, headers={"authorization": ""})).status_code == 401
    assert (await client.get(path, headers={"authorization": f"Bearer {READING[0]}"})).status_code == 403


async def test_users_are_found_by_the_beginning_of_their_id(client: httpx.AsyncClient, tiny_bundle: Bundle) -> None:
    users = tiny_bundle.tables.users
    some = (await client.get("/v1/page/users")).json()["users"]
    assert len({user["user_id"] for user in some}) == min(USERS, len(users))
    assert all(user["events"] == len(users.history(users.ids.row(user["user_id"]))) for user in some)
    assert [u["user_id"] for u in (await client.get("/v1/page/users?prefix=user-1")).json()["users"]] == ["user-1"]
    assert (await client.get("/v1/page/users?prefix=nobody")).json() == {"users": []}


async def test_what_a_user_did_last_is_told_latest_first(client: httpx.AsyncClient, tiny_bundle: Bundle) -> None:
    tables = tiny_bundle.tables
    history = tables.users.history(tables.users.ids.row("user-1"))
    told = (await client.get("/v1/page/recent?user_id=user-1")).json()
    assert told["known"]
    assert told["events"] == len(history)
    expected = [tables.items.ids.text(row) for row in history.latest(RECENT).item_row[::-1]]
    assert [event["item_id"] for event in told["recent"]] == expected
    nobody = (await client.get("/v1/page/recent", params={"user_id": "no/body ☃"})).json()
    assert nobody == {"user_id": "no/body ☃", "known": False, "events": 0, "recent": []}


async def test_items_are_described_and_unknown_ones_left_out(client: httpx.AsyncClient, tiny_bundle: Bundle) -> None:
    items = tiny_bundle.tables.items
    (told,) = (await client.get("/v1/page/items?id=nothing&id=item-01")).json()["items"]
    row = items.ids.row("item-01")
    genres = [name for name, has in zip(items.genre_names, items.genres[row], strict=False) if has]
    assert (told["title"], told["genres"]) == (items.titles.text(row), genres)


@pytest.mark.parametrize(
    "path",
    [
        "/v1/page/recent",
        "/v1/page/recent?user_id=a&user_id=b",
        "/v1/page/recent?user_id=%00",
        "/v1/page/users?limit=9",
        f"/v1/page/users?prefix={'x' * 257}",
        "/v1/page/items?" + "&".join(["id=1"] * (MAX_ITEMS + 1)),
    ],
)
async def test_what_is_not_meant_is_refused_in_few_words(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(path)
    assert response.status_code == 422
    assert len(response.content) < 2048


@given(st.sets(st.text("ab0é", min_size=1, max_size=4), min_size=1), st.text("ab0é", min_size=1, max_size=5))
def test_a_prefix_finds_the_ids_that_begin_with_it_in_order(ids: set[str], prefix: str) -> None:
    table = IdTable.of(ids)
    wanted_ids = sorted(text.encode() for text in ids if text.startswith(prefix))[:3]
    assert [table.text(int(row)).encode() for row in rows_with_prefix(table, prefix, 3)] == wanted_ids
    assert rows_with_prefix(table, prefix, 3).dtype == np.int32


def test_there_is_a_page_on_loopback_and_elsewhere_only_if_asked_for() -> None:
    assert wanted(Settings())
    assert not wanted(Settings(host="0.0.0.0"))
    assert wanted(Settings(host="0.0.0.0", page=True))
    assert not wanted(Settings(page=False))


@pytest.mark.parametrize(("page", "status"), [(None, b"200"), (False, b"404")])
async def test_a_worker_serves_the_page_as_its_settings_say(page: bool | None, status: bytes) -> None:
    async with listening(FakeServing(), Settings(page=page)) as port:
        answer = await ask(port, b"GET / HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
    assert answer.split()[1] == status


HERE = ("localhost", "LocalHost:8080", "127.0.0.1:8080", "[::1]", "[::1]:8080")
ELSEWHERE = (
    "rebound.example:8080",
    "127.0.0.1.rebound.example",
    "localhost.rebound.example",
    "10.0.0.1",
    "localhost:x",
    "",
)


async def status_of(port: int, host: str, *headers: str, path: str = "/") -> int:
    lines = [f"GET {path} HTTP/1.1", f"Host: {host}", "Connection: close", *headers, "", ""]
    return int((await ask(port, "\r\n".join(lines).encode())).split()[1])


async def test_without_keys_the_page_is_for_whoever_names_this_machine_and_came_straight_to_it() -> None:
    async with listening(FakeServing()) as port:
        assert [await status_of(port, host) for host in HERE] == [200] * len(HERE)
        assert [await status_of(port, host) for host in ELSEWHERE] == [403] * len(ELSEWHERE)
        for passed_on in ("X-Forwarded-For: 10.0.0.1", "Forwarded: for=10.0.0.1", "Host: localhost"):
            assert await status_of(port, "localhost", passed_on) == 403
        for path in ("/page/page.js", "/v1/page/users", "/v1/page/recent?user_id=1", "/v1/page/items?id=1"):
            assert await status_of(port, "rebound.example", path=path) == 403
        assert await status_of(port, "rebound.example", path="/livez") == 200


async def test_where_callers_are_checked_the_page_has_any_name(tmp_path: Path) -> None:
    (tmp_path / "keys").write_text(f"{READY[1].line}\n")
    async with listening(FakeServing(), access=Access(tmp_path / "keys")) as port:
        assert await status_of(port, "shop.example", "X-Forwarded-For: 10.0.0.1") == 200
    async with listening(FakeServing(), Settings(trusted_proxy=True)) as port:
        assert await status_of(port, "shop.example", "X-Forwarded-For: 10.0.0.1") == 200
