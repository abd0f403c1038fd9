"""Admission: the three outcomes and two priorities, at the doors and in an overload that lasts."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter

import grpc
import grpc.aio
import httpx
import pytest
from starlette.middleware import Middleware

from app.admission import (
    ADMITTED,
    Admission,
    AdmissionPolicy,
    Admitted,
    Path,
    Priority,
    StandingDelay,
)
from app.admission_doors import GrpcAdmission, HttpAdmission
from app.edge import Patience, Readiness
from app.events_api import EVENTS
from app.grpc_api import CALLS_PER_REQUEST, RECOMMENDER, GrpcDoor
from app.http_api import create_app
from app.limit import LimitPolicy, Outcome
from app.proto.streamrec.v1 import events_pb2
from app.proto.streamrec.v1 import recommender_pb2 as pb
from tests.app.doors import ask, listening, post
from tests.app.fake_serving import FakeServing
from tests.app.overload import Load, Simulation

FOUR = AdmissionPolicy(LimitPolicy(initial=4, least=4, most=4), most_in_process=8)
PATH = "/v1/recommendations/42"


def get(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()


def taking(admission: Admission, priority: Priority, times: int) -> list[Path]:
    """What ``times`` requests are told, each of which takes its place and keeps it."""
    told = []
    for _ in range(times):
        told.append(admission.decide(priority))
        token = ADMITTED.set(Admitted(told[-1], priority))
        admission.begin()
        ADMITTED.reset(token)
    return told


def test_past_the_limit_the_path_is_short() -> None:
    assert taking(Admission(FOUR), Priority.USER, 6) == [Path.FULL] * 4 + [Path.SHORT] * 2


def test_a_prefetch_has_half_of_the_places_and_a_person_all() -> None:
    admission = Admission(FOUR)
    assert taking(admission, Priority.PREFETCH, 3) == [Path.FULL] * 2 + [Path.SHORT]
    assert taking(admission, Priority.USER, 3) == [Path.FULL] * 2 + [Path.SHORT]


def test_a_place_given_back_is_taken_again() -> None:
    admission = Admission(FOUR)
    places = [admission.begin() for _ in range(4)]
    assert admission.begin() is None
    assert places[0] is not None
    places[0].end(Outcome.IGNORE)
    assert admission.begin() is not None


def test_a_burst_is_counted_by_the_paths_that_it_took() -> None:
    """Over gRPC all of a burst may be decided before the first of it begins."""
    told = Counter[str]()
    admission = Admission(FOUR, observe=lambda _, path: told.update([path]))
    decided = [admission.decide(Priority.USER) for _ in range(10)]
    assert decided == [Path.FULL] * 10
    for path in decided:
        with admission.inside(Admitted(path)):
            admission.begin()
    with crowd(admission, 8):
        admission.decide(Priority.USER)
    assert told == {Path.FULL: 4, Path.SHORT: 6, Path.REFUSED: 1}


def quality_after(*outcomes: Outcome) -> float:
    """What the quality factor is when two requests at a time have ended so, each 0.1 s after it began."""
    now = [100.0]
    admission = Admission(FOUR, clock=lambda: now[0])
    for outcome in outcomes:
        first, second = admission.begin(), admission.begin()
        assert first is not None
        assert second is not None
        now[0] += 0.1
        first.end(Outcome.IGNORE)
        second.end(outcome)
    return admission.quality.factor


def test_answers_that_are_late_beside_successes_narrow_what_is_ranked() -> None:
    assert quality_after(Outcome.SUCCESS) < 1
    assert quality_after(Outcome.SUCCESS, Outcome.FAILURE) < quality_after(Outcome.SUCCESS)


def test_a_dependency_that_hangs_does_not_narrow_what_is_ranked() -> None:
    assert quality_after(*[Outcome.FAILURE] * 50) == 1
    assert quality_after(*[Outcome.ASIDE] * 50) == 1


def test_whoever_was_sent_the_short_path_stays_on_it() -> None:
    admission = Admission(FOUR)
    with admission.inside(Admitted(Path.SHORT)):
        assert admission.begin() is None
    assert admission.begin() is not None


def test_past_the_second_limit_a_prefetch_is_refused_first_and_then_everyone() -> None:
    admission = Admission(FOUR)
    with contextlib.ExitStack() as inside:
        for _ in range(4):
            inside.enter_context(admission.inside(Admitted()))
        assert admission.decide(Priority.PREFETCH) is Path.REFUSED
        assert admission.decide(Priority.USER) is Path.FULL
        for _ in range(4):
            inside.enter_context(admission.inside(Admitted()))
        assert admission.decide(Priority.USER) is Path.REFUSED
    assert admission.decide(Priority.USER) is Path.FULL


def test_a_burst_is_no_standing_delay_and_a_queue_is() -> None:
    delay = StandingDelay()
    admission = Admission(FOUR, delay=delay)
    for late in (0.0, 0.5, 0.5):
        delay.on_sample(late)
    assert admission.decide(Priority.USER) is Path.FULL
    delay.on_sample(0.5)
    assert admission.decide(Priority.USER) is Path.REFUSED
    delay.on_sample(0.0)
    assert admission.decide(Priority.USER) is Path.FULL


def test_a_delay_needs_all_of_its_looks() -> None:
    delay = StandingDelay()
    for late in (0.04, 0.03):
        delay.on_sample(late)
        assert delay.seconds == 0
    delay.on_sample(0.05)
    assert delay.seconds == 0.03


async def test_a_loop_that_has_been_late_and_does_not_come_back_is_a_queue() -> None:
    now = [0.0]
    delay = StandingDelay(lambda: now[0])
    watching = asyncio.create_task(delay.watch())
    await asyncio.sleep(0)
    now[0] = 0.4  # and the loop has not come to look
    assert delay.seconds == 0
    for late in (0.0, 0.3):
        delay.on_sample(late)
    assert delay.seconds == 0
    delay.on_sample(0.3)
    assert delay.seconds == pytest.approx(0.3)  # the two latest and the overdue one
    watching.cancel()


def test_a_priority_that_nobody_knows_is_a_person() -> None:
    assert [Priority.named(text) for text in (None, "user", "prefetch", "PREFETCH", "x" * 1000)] == [
        Priority.USER, Priority.USER, Priority.PREFETCH, Priority.USER, Priority.USER,
    ]  # fmt: skip


class Asking(FakeServing):
    """Keeps what the doors decided about each request."""

    def __init__(self) -> None:
        super().__init__(admission=Admission(FOUR))
        self.decided: list[Admitted] = []

    async def recommend(self, query, deadline):
        self.decided.append(ADMITTED.get())
        return await super().recommend(query, deadline)


@pytest.fixture
def serving() -> Asking:
    return Asking()


@pytest.fixture
async def client(serving: Asking):
    readiness = Readiness(serving)
    app = create_app(serving, readiness, Patience(0.15, 1.0))
    app.user_middleware.append(Middleware(HttpAdmission, serving.admission))
    app.state.readiness = readiness
    async with httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://test") as client:
        client.app = app  # type: ignore[attr-defined]
        yield client


def crowd(admission: Admission, requests: int) -> contextlib.ExitStack:
    inside = contextlib.ExitStack()
    for _ in range(requests):
        inside.enter_context(admission.inside(Admitted()))
    return inside


async def test_http_tells_the_path_and_the_priority(client: httpx.AsyncClient, serving: Asking) -> None:
    await client.get(PATH)
    await client.get(PATH, headers={"X-Request-Priority": "prefetch"})
    taking(serving.admission, Priority.USER, 4)
    await client.post("/v1/recommendations", json={"user_id": "42"})
    assert serving.decided == [Admitted(), Admitted(Path.FULL, Priority.PREFETCH), Admitted(Path.SHORT)]


async def test_http_refuses_with_429_and_a_problem_document_that_says_when_to_return(
    client: httpx.AsyncClient, serving: Asking
) -> None:
    with crowd(serving.admission, 8):
        refused = await client.post("/v1/recommendations", content=b"not even json")
        alive = await client.get("/livez")
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")
    assert refused.headers["content-type"] == "application/problem+json"
    assert refused.json()["title"] == "Too Many Requests"
    assert "x-request-id" in refused.headers
    assert alive.status_code == 200
    assert serving.asked == []
    assert (await client.get(PATH)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path"),
    [("POST", "/v1/events"), ("POST", "/v1/why"), ("GET", "/v1/why/42?item_id=1"), ("GET", "/v1/page/users")],
)
async def test_everything_under_v1_is_refused_past_the_second_limit(
    client: httpx.AsyncClient, serving: Asking, method: str, path: str
) -> None:
    with crowd(serving.admission, 8):
        refused = await client.request(method, path)
    assert (refused.status_code, refused.headers["retry-after"]) == (429, "1")


async def test_a_stopping_worker_asks_its_callers_to_open_the_next_connection_elsewhere(
    client: httpx.AsyncClient,
) -> None:
    paths = {PATH: 200, "/nowhere": 404, f"{PATH}?limit=0": 422}
    for path, status in paths.items():
        answer = await client.get(path)
        assert (answer.status_code, answer.headers.get("connection")) == (status, None)
    client.app.state.readiness.stopping = True  # type: ignore[attr-defined]
    for path, status in paths.items():
        answer = await client.get(path)
        assert (answer.status_code, answer.headers["connection"]) == (status, "close")


def slowly(length: int) -> bytes:
    return (
        b"POST /v1/recommendations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nContent-Length: %d\r\n\r\n{"
        % length
    )


async def test_bodies_that_do_not_come_shut_nobody_out_and_the_eldest_make_room() -> None:
    serving = FakeServing(admission=Admission(FOUR))
    async with listening(serving) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(20)]
        for _, writer in silent:
            writer.write(slowly(100))
        for reader, _ in silent[:-8]:
            assert (await asyncio.wait_for(reader.readline(), 20)).startswith(b"HTTP/1.1 408")
        assert serving.admission.in_process == 0
        assert (await ask(port, post(b'{"user_id": "42"}'))).startswith(b"HTTP/1.1 200")
        assert (await ask(port, get(PATH))).startswith(b"HTTP/1.1 200")
        for _, writer in silent:
            writer.close()


async def test_a_body_counts_once_it_is_there() -> None:
    gate = asyncio.Event()
    serving = FakeServing(admission=Admission(FOUR), gate=gate)
    async with listening(serving) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(b'{"user_id": "42"}'))
        await asyncio.wait_for(serving.arrived.wait(), 10)
        assert serving.admission.in_process == 1
        gate.set()
        await asyncio.wait_for(reader.read(), 10)
        assert serving.admission.in_process == 0
        writer.close()


async def test_grpc_tells_the_same_and_refuses_with_resource_exhausted(serving: Asking) -> None:
    door = GrpcDoor(serving, Patience(0.15, 1.0), [GrpcAdmission(serving.admission)])
    port = await door.open("127.0.0.1:0")
    message = pb.RecommendRequest(user_id="42").SerializeToString()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            ask = channel.unary_unary(f"/{RECOMMENDER}/Recommend")
            await ask(message, timeout=10, metadata=(("x-request-priority", "prefetch"),))
            assert serving.decided == [Admitted(Path.FULL, Priority.PREFETCH)]
            with crowd(serving.admission, 8), pytest.raises(grpc.aio.AioRpcError) as refused:
                await ask(message, timeout=10)
    finally:
        await door.close(0)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert ("retry-after", "1") in list(refused.value.trailing_metadata())


async def test_grpc_refuses_events_too_and_counts_them_while_they_are_written(serving: Asking) -> None:
    door = GrpcDoor(serving, Patience(0.15, 1.0), [GrpcAdmission(serving.admission)])
    port = await door.open("127.0.0.1:0")
    event = events_pb2.Event(event_id="e", user_id="42", item_id="1", kind="click")
    message = events_pb2.AppendRequest(events=[event]).SerializeToString()
    serving.events.gate = asyncio.Event()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            append = channel.unary_unary(f"/{EVENTS}/Append")
            with crowd(serving.admission, 8), pytest.raises(grpc.aio.AioRpcError) as refused:
                await append(message, timeout=10)
            writing = asyncio.ensure_future(append(message, timeout=30))
            async with asyncio.timeout(10):
                while not serving.admission.in_process:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            serving.events.gate.set()
            await writing
    finally:
        await door.close(0)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert serving.admission.in_process == 0


async def test_grpc_takes_so_many_calls_at_once_and_no_more(serving: Asking) -> None:
    """Even without admission in front: what is not counted there yet is bounded by the server itself."""
    door = GrpcDoor(serving, Patience(0.15, 1.0))
    port = await door.open("127.0.0.1:0")
    message, most = pb.RecommendRequest(user_id="42").SerializeToString(), CALLS_PER_REQUEST * FOUR.most_in_process
    serving.gate = asyncio.Event()
    try:
        async with grpc.aio.insecure_channel(f"127.0.0.1:{port}") as channel:
            ask = channel.unary_unary(f"/{RECOMMENDER}/Recommend")
            asking = [asyncio.ensure_future(ask(message, timeout=30)) for _ in range(most)]
            async with asyncio.timeout(20):
                while len(serving.asked) < most:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await ask(message, timeout=10)
            serving.gate.set()
            await asyncio.gather(*asking)
    finally:
        await door.close(0)
    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED


async def test_a_request_leaves_the_process_when_its_answer_has_gone(
    client: httpx.AsyncClient, serving: Asking
) -> None:
    serving.gate = asyncio.Event()
    asking = asyncio.create_task(client.get(PATH))
    await asyncio.wait_for(serving.arrived.wait(), 10)
    assert serving.admission.in_process == 1
    serving.gate.set()
    await asking
    assert serving.admission.in_process == 0


CAPACITY = 200


def test_without_a_cap_a_fifth_too_much_is_enough_to_lose_all_useful_answers() -> None:
    assert Simulation(CAPACITY, capped=False).run(Load(1.2 * CAPACITY, 30)).goodput(10, 30) < 0.1 * CAPACITY


@pytest.mark.parametrize("times", [1.2, 2, 5])
def test_with_it_overload_leaves_nearly_all_of_the_capacity_useful(times: float) -> None:
    assert Simulation(CAPACITY).run(Load(times * CAPACITY, 20)).goodput(1, 20) >= 0.85 * CAPACITY


def test_at_four_fifths_of_the_capacity_hardly_anybody_is_sent_the_short_path() -> None:
    told = Simulation(CAPACITY).run(Load(0.8 * CAPACITY, 30))
    assert told.short[Priority.USER] <= 0.005 * told.full


def test_after_an_overload_everything_is_normal_within_seconds() -> None:
    told = Simulation(CAPACITY).run(Load(100, 5), Load(5 * CAPACITY, 20), Load(100, 10))
    normal = Simulation(CAPACITY).run(Load(100, 35))
    assert sum(told.useful[27:35]) >= 0.9 * sum(normal.useful[27:35])


def test_a_long_overload_does_not_pass_for_normal() -> None:
    told = Simulation(CAPACITY).run(Load(2 * CAPACITY, 90))
    assert told.goodput(70, 90) >= 0.85 * CAPACITY
    assert max(told.estimates[-2000:]) < 0.13 * CAPACITY  # as much as fits into the deadline


def test_a_fast_service_gets_a_longer_queue() -> None:
    told = Simulation(2000).run(Load(4000, 8))
    assert told.goodput(2, 8) >= 0.85 * 2000
    assert told.estimates[-1] > 40


def test_people_are_served_before_prefetches() -> None:
    told = Simulation(CAPACITY).run(Load(2 * CAPACITY, 10, prefetch=2))
    assert told.short[Priority.USER] < 0.1 * told.short[Priority.PREFETCH]


def test_narrowing_comes_before_the_short_path() -> None:
    """At half as much again as the capacity, ranking fewer candidates is enough."""
    narrowing = Simulation(CAPACITY, narrows=True).run(Load(1.5 * CAPACITY, 20), Load(50, 40))
    whole = Simulation(CAPACITY).run(Load(1.5 * CAPACITY, 20))
    assert min(narrowing.ranked) < 400
    assert narrowing.ranked[-1] == 500
    assert narrowing.short[Priority.USER] < 0.1 * whole.short[Priority.USER]
