"""The doors for events: strict, taken only when the log has them, and never a 500."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import grpc
import grpc.aio
import httpx
import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import events_api, openapi
from app.edge import Patience, Readiness
from app.events_api import EVENTS, MAX_EVENTS, events_from_fields, events_from_json
from app.grpc_api import GrpcDoor
from app.http_api import create_app
from app.metrics import REGISTRY
from app.proto.streamrec.v1 import events_pb2 as pb
from domain.errors import DependencyError, InvalidRequest, Unreachable
from events.consumer import FUTURE_SECONDS
from events.event import Event
from events.log import LogFull
from tests.app.fake_serving import FakeServing

PATIENCE = Patience(default=0.150, longest=1.0)
NOW = 1_800_000_000.0
PLAY = {"event_id": "e1", "user_id": "42", "item_id": "296", "kind": "play", "timestamp": NOW - 10}
MARKER = "SmuggledMarker"


@pytest.fixture
def serving() -> FakeServing:
    return FakeServing()


@pytest.fixture
async def client(serving: FakeServing) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(serving, Readiness(serving), PATIENCE))
    async with httpx.AsyncClient(transport=transport, base_url="http://streamrec") as client:
        yield client


async def send(client: httpx.AsyncClient, *events: dict[str, Any]) -> httpx.Response:
    return await client.post("/v1/events", json={"events": events})


def of(**change: Any) -> Event:
    (event,) = events_from_fields([PLAY | change], NOW)
    return event


async def test_events_in_the_log_are_a_202(client: httpx.AsyncClient, serving: FakeServing) -> None:
    rated = {"event_id": "e2", "user_id": "42", "item_id": "50", "kind": "rating", "rating": 4.5, "timestamp": 1}
    response = await send(client, PLAY | {"timestamp": 2}, rated)
    assert (response.status_code, response.json()) == (202, {"accepted": 2})
    assert serving.events.held == [
        Event("e1", "42", "296", "play", 2.0),
        Event("e2", "42", "50", "rating", 1.0, 4.5),
    ]


def test_an_event_without_a_time_is_of_now() -> None:
    (event,) = events_from_fields([{name: value for name, value in PLAY.items() if name != "timestamp"}], NOW)
    assert event.timestamp == NOW


def test_a_clock_a_little_ahead_becomes_now_and_one_far_ahead_is_refused() -> None:
    assert of(timestamp=NOW + FUTURE_SECONDS).timestamp == NOW
    for far in (NOW + FUTURE_SECONDS + 1, NOW * 1000):  # the second is milliseconds
        with pytest.raises(InvalidRequest, match="ahead"):
            of(timestamp=far)


@pytest.mark.parametrize(
    "change",
    [
        {"kind": MARKER},
        {"kind": None},
        {"event_id": ""},
        {"event_id": 7},
        {"user_id": None},
        {"user_id": "x" * 257},
        {"item_id": "a\x00b"},
        {"item_id": [MARKER]},
        {"timestamp": "1"},
        {"timestamp": True},
        {"timestamp": None},
        {"timestamp": -1},
        {"rating": 4},
        {"kind": "rating"},
        {"kind": "rating", "rating": "5"},
        {"kind": "rating", "rating": 5.5},
        {"kind": "rating", "rating": True},
        {MARKER: 1},
    ],
)
async def test_a_wrong_event_refuses_the_whole_batch_and_is_not_repeated(
    client: httpx.AsyncClient, serving: FakeServing, change: dict[str, Any]
) -> None:
    response = await send(client, PLAY | {"timestamp": 1}, PLAY | {"timestamp": 1} | change)
    assert response.status_code == 422
    assert response.headers["content-type"] == "application/problem+json"
    assert MARKER not in response.text
    assert serving.events.held == []


@pytest.mark.parametrize("missing", ["event_id", "user_id", "item_id", "kind"])
async def test_what_an_event_cannot_do_without_is_named(client: httpx.AsyncClient, missing: str) -> None:
    response = await send(client, {name: value for name, value in PLAY.items() if name != missing})
    assert (response.status_code, response.json()["detail"]) == (422, f"each event needs {missing}")


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"{", 400),
        (b'{"events": [NaN]}', 400),
        (b"[]", 422),
        (b'{"events": []}', 422),
        (b'{"events": {}}', 422),
        (b'{"events": [[]]}', 422),
        (b'{"events": [], "more": 1}', 422),
        (b'{"events": [' + b"{}," * MAX_EVENTS + b"{}]}", 422),
        (b" " * 70_000, 413),
    ],
)
async def test_a_body_that_is_no_batch_is_refused(client: httpx.AsyncClient, body: bytes, status: int) -> None:
    assert (
        await client.post("/v1/events", content=body, headers={"content-type": "application/json"})
    ).status_code == status


JSON = st.recursive(
    st.none() | st.booleans() | st.floats() | st.text() | st.sampled_from([*PLAY, "rating"]),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=3,
)


@given(st.lists(st.dictionaries(st.sampled_from([*PLAY, "rating"]), JSON, max_size=3), max_size=3))
def test_whatever_the_fields_hold_they_are_events_or_the_callers_mistake(fields: list[dict[str, Any]]) -> None:
    for given_fields in ([*fields], [PLAY | some for some in fields]):
        try:
            events = events_from_fields(given_fields, NOW)
        except InvalidRequest:
            continue
        assert all(isinstance(event, Event) and event.timestamp <= NOW for event in events)


@given(st.binary())
def test_whatever_the_body_is_nothing_but_a_refusal_is_raised(body: bytes) -> None:
    with pytest.raises(InvalidRequest):
        events_from_json(body, NOW)


@pytest.mark.parametrize("error", [Unreachable("gone"), LogFull("full")])
async def test_a_log_that_cannot_take_it_is_a_503_that_asks_to_come_again(
    client: httpx.AsyncClient, serving: FakeServing, error: DependencyError
) -> None:
    serving.events.broken = error
    before = REGISTRY.get_sample_value("streamrec_event_batches_not_taken_total", {"cause": error.cause}) or 0
    response = await send(client, PLAY | {"timestamp": 1})
    assert response.status_code == 503
    assert response.headers["retry-after"] == "1"
    assert response.headers["content-type"] == "application/problem+json"
    after = REGISTRY.get_sample_value("streamrec_event_batches_not_taken_total", {"cause": error.cause})
    assert after == before + 1


async def test_a_bug_behind_the_door_is_a_500_problem(client: httpx.AsyncClient, serving: FakeServing) -> None:
    serving.events.broken = RuntimeError(MARKER)
    response = await send(client, PLAY | {"timestamp": 1})
    assert response.status_code == 500
    assert MARKER not in response.text


async def test_batches_are_counted_apart_from_recommendations(client: httpx.AsyncClient) -> None:
    def count(name: str, status: str) -> float:
        return REGISTRY.get_sample_value(name, {"transport": "http", "status": status}) or 0

    batches, requests = count("streamrec_event_batches_total", "202"), count("streamrec_requests_total", "202")
    await send(client, PLAY | {"timestamp": 1})
    assert count("streamrec_event_batches_total", "202") == batches + 1
    assert count("streamrec_requests_total", "202") == requests


def test_the_documentation_knows_the_fields_that_are_read() -> None:
    event = openapi.EVENTS["properties"]["events"]["items"]
    assert set(event["properties"]) == set(events_api._FIELDS)
    assert event["required"] == list(events_api._REQUIRED)
    assert events_from_fields(openapi.EVENTS["example"]["events"], NOW)


@pytest.fixture
async def channel(serving: FakeServing) -> AsyncIterator[grpc.aio.Channel]:
    door = GrpcDoor(serving, PATIENCE)
    port = await door.open("127.0.0.1:0")
    async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
        yield channel
    await door.close(1.0)


async def append(channel: grpc.aio.Channel, message: bytes) -> pb.AppendResponse:
    call = channel.unary_unary(f"/{EVENTS}/Append", response_deserializer=pb.AppendResponse.FromString)
    return await call(message, timeout=10)


async def test_grpc_takes_the_same_events(channel: grpc.aio.Channel, serving: FakeServing) -> None:
    batch = pb.AppendRequest(
        events=[
            pb.Event(event_id="a", user_id="1", item_id="2", kind="rating", timestamp=3.5, rating=0),
            pb.Event(event_id="b", user_id="1", item_id="2", kind="like", timestamp=0),
        ]
    )
    assert (await append(channel, batch.SerializeToString())).accepted == 2
    assert serving.events.held == [Event("a", "1", "2", "rating", 3.5, 0.0), Event("b", "1", "2", "like", 0.0)]


@pytest.mark.parametrize(
    ("message", "code"),
    [
        (b"\xff\xff", grpc.StatusCode.INVALID_ARGUMENT),
        (b"", grpc.StatusCode.INVALID_ARGUMENT),
        (pb.AppendRequest(events=[pb.Event(event_id="a")]).SerializeToString(), grpc.StatusCode.INVALID_ARGUMENT),
    ],
)
async def test_grpc_refuses_what_http_refuses(channel: grpc.aio.Channel, message: bytes, code: grpc.StatusCode) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await append(channel, message)
    assert caught.value.code() is code


@pytest.mark.parametrize(
    ("broken", "code"),
    [(LogFull("full"), grpc.StatusCode.UNAVAILABLE), (RuntimeError(MARKER), grpc.StatusCode.INTERNAL)],
)
async def test_grpc_says_that_the_log_cannot_take_it(
    channel: grpc.aio.Channel, serving: FakeServing, broken: Exception, code: grpc.StatusCode
) -> None:
    serving.events.broken = broken
    batch = pb.AppendRequest(events=[pb.Event(event_id="b", user_id="1", item_id="2", kind="like")])
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await append(channel, batch.SerializeToString())
    assert caught.value.code() is code
    assert MARKER not in str(caught.value.details())
