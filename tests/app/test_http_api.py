"""The HTTP door: over ASGI where that is the whole story, over a socket where the server has a part in it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator

import httpx
import pytest
from starlette.exceptions import HTTPException
from starlette.requests import Request as HttpRequest
from starlette.types import Message

from app.body import Bodies
from app.edge import MAX_REQUEST_BYTES, Patience, Readiness
from app.http_api import create_app
from app.metrics import REGISTRY
from domain.degradation import DegradationLevel
from tests.app.doors import ask, listening
from tests.app.fake_serving import TITLE, FakeServing

PATIENCE = Patience(default=0.150, longest=1.0)
MARKER = "SmuggledMarker"
JSON = {"content-type": "application/json"}


@pytest.fixture
def serving() -> FakeServing:
    return FakeServing()


@pytest.fixture
def readiness(serving: FakeServing) -> Readiness:
    return Readiness(serving)


@pytest.fixture
async def client(serving: FakeServing, readiness: Readiness) -> AsyncIterator[httpx.AsyncClient]:
    transport = httpx.ASGITransport(create_app(serving, readiness, PATIENCE), raise_app_exceptions=True)
    async with httpx.AsyncClient(transport=transport, base_url="http://streamrec") as client:
        yield client


def problem(response: httpx.Response) -> dict[str, object]:
    assert response.headers["content-type"] == "application/problem+json"
    assert len(response.content) < 2048
    body = response.json()
    assert body["status"] == response.status_code
    return body


async def test_a_request_is_answered_with_a_slate(client: httpx.AsyncClient, serving: FakeServing) -> None:
    response = await client.post("/v1/recommendations", json={"user_id": "42", "limit": 7})
    assert response.status_code == 200
    assert response.json()["items"][0]["title"] == TITLE
    assert response.json()["degradation"] == {"level": "FULL", "reasons": []}
    assert (serving.asked[0].user_id, serving.asked[0].limit) == ("42", 7)


async def test_a_person_with_curl_gets_the_same(client: httpx.AsyncClient, serving: FakeServing) -> None:
    response = await client.get("/v1/recommendations/caf%C3%A9%2F1?limit=3")
    assert response.status_code == 200
    assert (serving.asked[0].user_id, serving.asked[0].limit) == ("café/1", 3)


async def test_a_degraded_answer_is_a_200(client: httpx.AsyncClient, serving: FakeServing) -> None:
    serving.level, serving.reasons = DegradationLevel.SIMPLE_RANKING, ("ranking.open",)
    response = await client.get("/v1/recommendations/42")
    assert response.status_code == 200
    assert response.json()["degradation"] == {"level": "SIMPLE_RANKING", "reasons": ["ranking.open"]}


async def test_the_time_of_each_stage_is_in_a_header_that_browsers_read(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/recommendations/42")
    assert response.headers["server-timing"] == "retrieval;dur=2.000, ranking;dur=4.000, total;dur=8.000"
    assert "server-timing" not in (await client.get("/v1/recommendations/42?limit=x")).headers


@pytest.mark.parametrize("values", [("80", "80"), ("80", "soon"), ("", "80")])
async def test_a_timeout_given_twice_is_refused(client: httpx.AsyncClient, values: tuple[str, ...]) -> None:
    headers = [("x-request-timeout-ms", value) for value in values]
    assert (await client.get("/v1/recommendations/42", headers=headers)).status_code == 422


@pytest.mark.parametrize("path", ["%ff", "%ed%a0%80", "%c0%af", "a%fe"])
async def test_an_id_in_the_path_that_is_no_utf8_is_refused(client: httpx.AsyncClient, path: str) -> None:
    response = await client.get(f"/v1/recommendations/{path}")
    assert response.status_code == 400
    assert "UTF-8" in str(problem(response)["detail"])


async def test_a_sane_request_id_comes_back(client: httpx.AsyncClient) -> None:
    response = await client.get("/v1/recommendations/42", headers={"x-request-id": "checkout-7.a"})
    assert response.json()["request_id"] == response.headers["x-request-id"] == "checkout-7.a"


@pytest.mark.parametrize("given", [b"", b"a b", b"x" * 65, b'"><script>', "é".encode(), b"\xff"])
async def test_an_unfit_request_id_is_replaced(client: httpx.AsyncClient, given: bytes) -> None:
    response = await client.get("/v1/recommendations/42", headers={b"x-request-id": given})
    assert len(response.json()["request_id"]) == 32
    assert response.json()["request_id"].isalnum()


@pytest.mark.parametrize(
    ("header", "low", "high"),
    [(None, 0.1, 0.15), ("80", 0.03, 0.08), ("80.5", 0.03, 0.0805), ("60000", 0.9, 1.0), ("9" * 300, 0.9, 1.0)],
)
async def test_the_callers_time_is_kept_within_bounds(
    client: httpx.AsyncClient, serving: FakeServing, header: str | None, low: float, high: float
) -> None:
    headers = {} if header is None else {"x-request-timeout-ms": header}
    await client.get("/v1/recommendations/42", headers=headers)
    assert low < serving.remaining[0] <= high


@pytest.mark.parametrize("header", ["0", "-5", "0.0"])
async def test_time_already_over_is_answered_at_once(client: httpx.AsyncClient, header: str) -> None:
    response = await client.get("/v1/recommendations/42", headers={"x-request-timeout-ms": header})
    assert response.status_code == 200
    assert response.json()["degradation"]["level"] == "POPULAR"


@pytest.mark.parametrize("header", ["soon", "nan", "inf", "1e3", "", "0x10", "1,5", "9" * 5000])
async def test_a_timeout_that_is_no_number_is_refused(client: httpx.AsyncClient, header: str) -> None:
    response = await client.get("/v1/recommendations/42", headers={"x-request-timeout-ms": header})
    assert response.status_code == 422
    assert "X-Request-Timeout-Ms" in str(problem(response)["detail"])


@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"", 400),
        (f'{{"user_id": {MARKER}}}'.encode(), 400),
        (b'{"user_id": "42", "limit": NaN}', 400),
        (b'{"user_id": "\\ud800"}', 400),
        (b"[" * 50_000, 400),
        (f'{{"user_id": "42", "{MARKER}": 1}}'.encode(), 422),
        (f'{{"user_id": ["{MARKER}"]}}'.encode(), 422),
        (f'{{"user_id": "42", "limit": "{MARKER}"}}'.encode(), 422),
        (b'{"user_id": "42", "limit": true}', 422),
        (f'{{"user_id": "{MARKER * 30}"}}'.encode(), 422),
        (f'{{"user_id": "{MARKER * 5000}"}}'.encode(), 413),
    ],
)
async def test_a_bad_body_is_refused_and_never_repeated(client: httpx.AsyncClient, body: bytes, status: int) -> None:
    response = await client.post("/v1/recommendations", content=body, headers=JSON)
    assert response.status_code == status
    problem(response)
    assert MARKER not in response.text


@pytest.mark.parametrize("path", ["/v1/recommendations", "/v1/events", "/v1/why"])
@pytest.mark.parametrize(
    "given", [None, "text/plain", "application/x-www-form-urlencoded", "application/jsonp", MARKER]
)
async def test_a_body_that_any_web_page_could_send_is_refused(
    client: httpx.AsyncClient, serving: FakeServing, path: str, given: str | None
) -> None:
    headers = {} if given is None else {"content-type": given}
    response = await client.post(path, content=b'{"user_id": "42"}', headers=headers)
    assert problem(response)["status"] == 415
    assert MARKER not in response.text
    assert serving.asked == []


async def test_json_may_name_its_charset(client: httpx.AsyncClient) -> None:
    headers = {"content-type": "Application/JSON; charset=utf-8"}
    assert (await client.post("/v1/recommendations", content=b'{"user_id": "42"}', headers=headers)).status_code == 200


@pytest.mark.parametrize(
    ("method", "path", "status"),
    [
        ("GET", f"/{MARKER}", 404),
        ("GET", "/v1/recommendations", 405),
        ("DELETE", "/v1/recommendations/42", 405),
        ("PROPFIND", "/livez", 405),
        ("GET", "/livez/", 404),
        ("GET", "/v1/recommendations/", 422),
        ("GET", f"/v1/recommendations/42?{MARKER}=1", 422),
        ("GET", "/v1/recommendations/%00", 422),
        ("GET", "/v1/recommendations/%0A1", 404),
    ],
)
async def test_what_is_not_offered_is_a_problem_document(
    client: httpx.AsyncClient, method: str, path: str, status: int
) -> None:
    response = await client.request(method, path)
    assert response.status_code == status
    problem(response)
    assert MARKER not in response.text


async def test_a_bug_is_counted_logged_without_its_message_and_answered(
    client: httpx.AsyncClient, serving: FakeServing, caplog: pytest.LogCaptureFixture
) -> None:
    before = REGISTRY.get_sample_value("streamrec_bugs_total", {"where": "http"}) or 0
    serving.bug = KeyError(MARKER)
    with caplog.at_level(logging.ERROR, "streamrec.edge"):
        response = await client.get("/v1/recommendations/42")
    assert response.status_code == 500
    assert MARKER not in response.text
    problem(response)
    assert REGISTRY.get_sample_value("streamrec_bugs_total", {"where": "http"}) == before + 1
    assert caplog.records[0].getMessage() == "bug"


async def test_readiness_is_the_processs_own(
    client: httpx.AsyncClient, serving: FakeServing, readiness: Readiness
) -> None:
    assert (await client.get("/readyz")).status_code == 200  # though a dependency's breaker is open
    readiness.stopping = True
    assert (await client.get("/readyz")).status_code == 503
    assert (await client.get("/livez")).status_code == 200
    assert (await client.get("/v1/recommendations/42")).status_code == 200


async def test_health_tells_what_is_loaded(client: httpx.AsyncClient) -> None:
    state = (await client.get("/healthz")).json()
    assert state["ready"] is True
    assert state["bundle"]["number"] == 3
    assert state["dependencies"] == {"ranking": "closed", "features": "open"}


async def test_requests_and_levels_are_counted_and_probes_are_not(client: httpx.AsyncClient) -> None:
    def counted() -> tuple[float, float]:
        requests = REGISTRY.get_sample_value("streamrec_requests_total", {"transport": "http", "status": "200"})
        answers = REGISTRY.get_sample_value("streamrec_answers_total", {"level": "FULL"})
        return requests or 0, answers or 0

    requests, answers = counted()
    await client.get("/v1/recommendations/42")
    await client.get("/readyz")
    assert counted() == (requests + 1, answers + 1)
    assert 'le="0.2"' in (await client.get("/metrics")).text


async def test_the_documentation_describes_the_body(client: httpx.AsyncClient) -> None:
    document = (await client.get("/openapi.json")).json()
    post = document["paths"]["/v1/recommendations"]["post"]
    schema = post["requestBody"]["content"]["application/json"]["schema"]
    assert schema["additionalProperties"] is False
    assert {"200", "400", "413", "422"} <= set(post["responses"])
    parameters = document["paths"]["/v1/recommendations/{user_id}"]["get"]["parameters"]
    assert [part["name"] for part in parameters[:2]] == ["user_id", "limit"]
    assert (await client.get("/docs")).status_code == 200


async def test_a_body_announced_as_too_large_is_refused_before_it_is_sent() -> None:
    async with listening(FakeServing()) as port:
        head = f"POST /v1/recommendations HTTP/1.1\r\nHost: x\r\nContent-Length: {10**12}\r\n\r\n"
        answer = await ask(port, head.encode())
    assert answer.startswith(b"HTTP/1.1 413")


async def test_a_body_of_unknown_length_is_refused_as_soon_as_it_is_too_large() -> None:
    chunk = b"%x\r\n%s\r\n" % (8192, b" " * 8192)
    endless = b"POST /v1/recommendations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n"
    endless += b"Transfer-Encoding: chunked\r\n\r\n"
    endless += chunk * (MAX_REQUEST_BYTES // 8192 + 1)
    async with listening(FakeServing()) as port:
        answer = await ask(port, endless)  # no last chunk: whoever waits for it waits for ever
    assert answer.startswith(b"HTTP/1.1 413")


async def test_a_body_that_does_not_arrive_is_not_waited_for() -> None:
    async def silence() -> Message:
        return await asyncio.Future()

    request = HttpRequest({"type": "http", "headers": [(b"content-type", b"application/json")]}, silence)
    with pytest.raises(HTTPException) as caught:
        await Bodies(1).read(request, seconds=0.001)
    assert caught.value.status_code == 408


async def test_of_too_many_bodies_on_their_way_the_eldest_is_given_up() -> None:
    async def silence() -> Message:
        return await asyncio.Future()

    bodies = Bodies(2)
    eldest, *others = [
        asyncio.create_task(
            bodies.read(
                HttpRequest({"type": "http", "headers": [(b"content-type", b"application/json")]}, silence),
                seconds=3600,
            )
        )
        for _ in range(3)
    ]
    with pytest.raises(HTTPException) as caught:
        await asyncio.wait_for(eldest, 10)
    assert caught.value.status_code == 408
    assert not any(task.done() for task in others)
    for task in others:
        task.cancel()


async def test_a_caller_who_leaves_in_the_middle_of_a_body_harms_nobody() -> None:
    serving = FakeServing()
    async with listening(serving) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"POST /v1/recommendations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\n")
        writer.write(b'Content-Length: 100\r\n\r\n{"user_id"')
        await writer.drain()
        writer.close()
        await writer.wait_closed()
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            response = await client.post("/v1/recommendations", json={"user_id": "42"})
    assert response.status_code == 200
    assert len(serving.asked) == 1
