"""Keys and their rates, then both questions at the HTTP door."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app.access import (
    ADMIN,
    ANYBODY,
    CLIENT,
    MAX_KEYS,
    READER,
    Access,
    Bucket,
    Outcome,
    bearer,
    make_key,
    open_access,
    read_keys,
    roles_of_method,
    roles_of_path,
)
from app.edge import Patience, Readiness
from app.http_api import create_app
from app.metrics import REGISTRY
from app.orders import OrderBook
from app.settings import Settings
from domain.errors import StartError
from tests.app.fake_serving import FakeServing

FOR_CLIENTS = frozenset({CLIENT})
DIGEST = "0" * 64


class Clock:
    """Stands still until told."""

    def __init__(self) -> None:
        self.now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def write(path: Path, *lines: str) -> Path:
    path.write_text("# ours\n\n" + "\n".join(lines) + "  # the last\n")
    return path


def test_a_key_opens_what_its_role_is_for_and_nothing_else(tmp_path: Path) -> None:
    token, key = make_key("shop")
    access = Access(write(tmp_path / "keys", key.line))
    assert access.check(token, FOR_CLIENTS).outcome is Outcome.GRANTED
    assert access.check(token, ANYBODY).name == "shop"
    assert access.check(token, frozenset({ADMIN})).outcome is Outcome.FORBIDDEN


def test_neither_the_file_nor_the_key_in_memory_holds_the_secret(tmp_path: Path) -> None:
    token, key = make_key("shop")
    name, _, secret = token.partition(".")
    path = write(tmp_path / "keys", key.line)
    assert secret not in path.read_text()
    assert hashlib.sha256(secret.encode()).hexdigest() in path.read_text()
    assert key.digest not in repr(key)
    assert (name, len(secret)) == ("shop", 43)


@pytest.mark.parametrize("token", [None, "", "shop", "shop.", "shop." + "A" * 43, "shop." + "A" * 5000, "é.x", "ship."])
def test_any_other_token_is_unknown(tmp_path: Path, token: str | None) -> None:
    good, key = make_key("shop")
    access = Access(write(tmp_path / "keys", key.line))
    assert access.check(token, ANYBODY).outcome is Outcome.UNKNOWN
    assert access.check(good.replace("shop", "ship"), ANYBODY).outcome is Outcome.UNKNOWN
    assert access.check(good[:-1] + ("A" if good[-1] != "A" else "B"), ANYBODY).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize(
    "line",
    [
        "shop",
        f"shop owner {DIGEST} 1 1",
        f"shop client {DIGEST[:-1]} 1 1",
        f"shop client {DIGEST} 0 1",
        f"shop client {DIGEST} 1 0.5",
        f"shop client {DIGEST} 1.2.3 1",
        f"shop client {DIGEST} nan 1",
        f"SHOP client {DIGEST} 1 1",
        f"shop client {DIGEST} 1 1\nshop client {DIGEST} 1 1",
        "\n".join(f"k{number} client {DIGEST} 1 1" for number in range(MAX_KEYS + 1)),
    ],
)
def test_a_file_that_is_no_key_file_is_refused_by_its_line_and_not_repeated(line: str) -> None:
    with pytest.raises(StartError, match=r"^line \d+ of the key file") as caught:
        read_keys(line)
    assert DIGEST[:20] not in str(caught.value)


def test_a_key_that_the_file_could_not_hold_is_not_made() -> None:
    with pytest.raises(StartError):
        make_key("Shop One")
    with pytest.raises(StartError):
        make_key("shop", rate=-1.0)


def test_a_bucket_grants_its_burst_then_its_rate(clock: Clock) -> None:
    bucket = Bucket(rate=2.0, burst=3.0, clock=clock)
    assert [bucket.take() for _ in range(4)] == [0, 0, 0, pytest.approx(0.5)]
    clock.now += 0.5
    assert [bucket.take() for _ in range(2)] == [0, pytest.approx(0.5)]
    clock.now += 1e9
    assert [bucket.take() == 0 for _ in range(4)] == [True, True, True, False]


@given(st.lists(st.floats(0, 2), min_size=1, max_size=60), st.floats(0.1, 50), st.floats(1, 20))
def test_a_bucket_never_grants_more_than_burst_and_rate_allow(gaps: list[float], rate: float, burst: float) -> None:
    clock = Clock()
    bucket = Bucket(rate, burst, clock)
    granted = 0
    for gap in gaps:
        clock.now += gap
        granted += bucket.take() == 0
    assert granted <= burst + rate * sum(gaps) + 1e-6


def test_every_worker_grants_its_share(tmp_path: Path, clock: Clock) -> None:
    token, key = make_key("shop", rate=8, burst=8)
    access = Access(write(tmp_path / "keys", key.line), workers=4, clock=clock)
    outcomes = [access.check(token, FOR_CLIENTS) for _ in range(3)]
    assert [verdict.outcome for verdict in outcomes] == [Outcome.GRANTED, Outcome.GRANTED, Outcome.LIMITED]
    assert outcomes[-1].retry_seconds == pytest.approx(0.5)


def test_one_key_too_often_takes_nothing_from_another(tmp_path: Path, clock: Clock) -> None:
    (greedy, one), (modest, other) = make_key("greedy", rate=1), make_key("modest", rate=1)
    access = Access(write(tmp_path / "keys", one.line, other.line), clock=clock)
    assert {access.check(greedy, FOR_CLIENTS).outcome for _ in range(100)} == {Outcome.GRANTED, Outcome.LIMITED}
    assert access.check(modest, FOR_CLIENTS).outcome is Outcome.GRANTED


def test_keys_are_given_and_taken_away_while_serving(tmp_path: Path, clock: Clock) -> None:
    (old, old_key), (new, new_key) = make_key("old", rate=1), make_key("new")
    path = write(tmp_path / "keys", old_key.line)
    access = Access(path, clock=clock)
    assert access.check(old, FOR_CLIENTS).outcome is Outcome.GRANTED
    write(path, old_key.line, new_key.line)
    clock.now += 0.9
    assert access.check(new, FOR_CLIENTS).outcome is Outcome.UNKNOWN  # it is looked at once a second
    clock.now += 0.2
    assert access.check(new, FOR_CLIENTS).outcome is Outcome.GRANTED
    write(path, new_key.line)
    clock.now += 2
    assert access.check(old, FOR_CLIENTS).outcome is Outcome.UNKNOWN


@pytest.mark.parametrize("content", ["not a key file", None, "\xe9"])
def test_a_file_broken_while_serving_changes_nothing_and_is_told(
    tmp_path: Path, clock: Clock, caplog: pytest.LogCaptureFixture, content: str | None
) -> None:
    token, key = make_key("shop")
    path = write(tmp_path / "keys", key.line)
    access = Access(path, clock=clock)
    path.unlink() if content is None else path.write_text(content, "latin-1")
    clock.now += 2
    assert access.check(token, FOR_CLIENTS).outcome is Outcome.GRANTED
    assert [record.getMessage() for record in caplog.records] == ["keys not read again"]


def test_a_file_that_cannot_be_read_at_the_start_is_told(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="STREAMREC_API_KEYS"):
        open_access(Settings(api_keys=tmp_path / "missing"))


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_on_loopback_nobody_needs_a_key(host: str) -> None:
    access = open_access(Settings(host=host))
    assert not access.required
    assert access.check(None, FOR_CLIENTS).outcome is Outcome.GRANTED
    assert access.check(None, frozenset({ADMIN})).outcome is Outcome.FORBIDDEN


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.7", "rec.example.com"])
def test_where_others_can_connect_the_service_does_not_start_without_keys(tmp_path: Path, host: str) -> None:
    with pytest.raises(StartError, match=r"STREAMREC_API_KEYS.*STREAMREC_TRUSTED_PROXY"):
        open_access(Settings(host=host))
    assert not open_access(Settings(host=host, trusted_proxy=True)).required
    keys = write(tmp_path / "keys", make_key("shop")[1].line)
    assert open_access(Settings(host=host, api_keys=keys)).required


@pytest.mark.parametrize(
    ("values", "token"),
    [([], None), (["Bearer a.b"], "a.b"), (["bearer  a.b "], "a.b"), (["Basic a.b"], None), (["Bearer"], ""),
     (["Bearer a.b", "Bearer c.d"], None), (["a.b"], None)],
)  # fmt: skip
def test_exactly_one_bearer_is_a_token(values: list[str], token: str | None) -> None:
    assert bearer(values) == token


def test_every_path_and_method_has_its_rule() -> None:
    assert [roles_of_path(path) for path in ("/livez", "/readyz")] == [None, None]
    assert {roles_of_path(path) for path in ("/v1/recommendations", "/v1/events")} == {FOR_CLIENTS}
    assert roles_of_path("/admin/orders") == frozenset({ADMIN})
    assert [roles_of_path(path) for path in ("/", "/page/page.js")] == [None, None]
    assert roles_of_path("/v1/page/recent") == FOR_CLIENTS
    others = ("/metrics", "/healthz", "/docs", "/openapi.json", "/page", "/nothing", "//v1/recommendations")
    assert {roles_of_path(path) for path in others} == {ANYBODY}
    assert roles_of_method("/grpc.health.v1.Health/Check") is None
    assert roles_of_method("/streamrec.v1.Recommender/Recommend") == FOR_CLIENTS
    assert roles_of_method("/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo") == ANYBODY


@asynccontextmanager
async def door(access: Access, home: Path, serving: FakeServing) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(serving, Readiness(serving), Patience(0.150, 1.0), access, OrderBook(home))
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://streamrec") as client:
        yield client


def with_key(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_the_door_asks_for_a_key_before_it_reads_anything(tmp_path: Path) -> None:
    token, key = make_key("shop")
    serving = FakeServing()
    async with door(Access(write(tmp_path / "keys", key.line)), tmp_path, serving) as client:
        refused = [
            await client.post("/v1/recommendations", content=b"no JSON at all"),
            await client.get("/v1/recommendations/42", headers=with_key(token[:-1])),
            await client.get("/nothing"),
            await client.get("/metrics"),
            await client.get("/docs"),
        ]
        opened = [await client.get(path) for path in ("/livez", "/readyz")]
        granted = await client.get("/v1/recommendations/42", headers=with_key(token))
    assert {response.status_code for response in refused} == {401}
    assert {response.headers["www-authenticate"] for response in refused} == {"Bearer"}
    assert {response.headers["content-type"] for response in refused} == {"application/problem+json"}
    assert {response.status_code for response in opened} == {200}
    assert granted.status_code == 200
    assert len(serving.asked) == 1


async def test_each_role_has_its_own_paths(tmp_path: Path) -> None:
    tokens, keys = zip(*(make_key(role, role) for role in (CLIENT, READER, ADMIN)), strict=True)
    access = Access(write(tmp_path / "keys", *(key.line for key in keys)))
    paths = ("/v1/recommendations/42", "/healthz", "/metrics", "/openapi.json", "/admin/orders")
    async with door(access, tmp_path, FakeServing()) as client:
        table = {
            key.role: [(await client.get(path, headers=with_key(token))).status_code for path in paths]
            for token, key in zip(tokens, keys, strict=True)
        }
    assert table == {
        CLIENT: [200, 200, 200, 200, 403],
        READER: [403, 200, 200, 200, 403],
        ADMIN: [403, 200, 200, 200, 200],
    }


async def test_too_often_is_a_429_that_says_when_to_come_again(tmp_path: Path, clock: Clock) -> None:
    token, key = make_key("shop", rate=0.1, burst=1)
    serving = FakeServing()
    async with door(Access(write(tmp_path / "keys", key.line), clock=clock), tmp_path, serving) as client:
        first, second = [await client.get("/v1/recommendations/42", headers=with_key(token)) for _ in range(2)]
    assert (first.status_code, second.status_code) == (200, 429)
    assert second.headers["retry-after"] == "10"
    assert len(serving.asked) == 1


async def test_refusals_are_counted_by_the_name_of_the_key_and_no_key_is_logged(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    token, key = make_key("counted")
    with caplog.at_level(logging.DEBUG):
        async with door(Access(write(tmp_path / "keys", key.line)), tmp_path, FakeServing()) as client:
            await client.get("/v1/recommendations/42", headers=with_key(token))
            await client.get("/v1/recommendations/42", headers=with_key(token + "x"))
            text = (await client.get("/metrics", headers=with_key(token))).text
    assert REGISTRY.get_sample_value("streamrec_access_total", {"key": "counted", "outcome": "granted"}) == 2
    assert REGISTRY.get_sample_value("streamrec_access_total", {"key": "", "outcome": "unknown"})
    secret = token.partition(".")[2]
    assert secret not in text
    assert secret not in caplog.text
