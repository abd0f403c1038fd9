"""Slow, large, lying and broken callers against the real server, over sockets."""

from __future__ import annotations

import asyncio
import time
from dataclasses import replace

import httpx
import pytest

from app.connection import MAX_HEADER_BYTES
from app.edge import MAX_REQUEST_BYTES
from tests.app.doors import Hasty, ask, listening, post, problems
from tests.app.fake_serving import FakeServing

MARKER = b"SmuggledMarker"
GOOD = b'{"user_id": "42"}'
CHUNKED = (
    b"POST /v1/recommendations HTTP/1.1\r\nHost: x\r\nContent-Type: application/json\r\nTransfer-Encoding: chunked\r\n"
)


@pytest.mark.parametrize(
    ("message", "status"),
    [
        (MARKER + b"\r\n\r\n", 400),
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + MARKER, 400),  # a TLS client at the wrong port
        (b"GET /v1/recommendations/\xff HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET /v1/recommendations/%ff HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400),
        (b"GET /v1/recommendations/%ed%a0%80 HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n", 400),
        (b"CONNECT example.com:443 HTTP/1.1\r\nHost: x\r\n\r\n", 400),
        (b"GET / HTTP/9.9\r\nHost: x\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nHost: x\r\nBro ken: " + MARKER + b"\r\n\r\n", 400),
        (b"GET /livez HTTP/1.1\r\nX: " + MARKER + b"\x00\r\n\r\n", 400),
        (post(GOOD, "Content-Length: 5"), 400),
        (post(GOOD, "Transfer-Encoding: chunked"), 400),
        (post(GOOD).replace(b"Content-Length: 17", b"Content-Length: " + MARKER), 400),
        (post(GOOD).replace(b"Content-Length: 17", b"Content-Length: -1"), 400),
        (post(GOOD).replace(b"Content-Length: 17", b"Content-Length: " + b"9" * 40), 400),
        (post(GOOD, length=10**15), 413),
        (post(GOOD, length=5), 400),  # longer than announced: what is announced is no JSON
        (post(GOOD + MARKER * 3, length=len(GOOD)).replace(b"Connection: close\r\n", b""), 400),  # it is, the rest not
        (CHUNKED + b"\r\nxyz\r\n" + MARKER, 400),
        (CHUNKED + b"\r\n-5\r\n" + MARKER, 400),
        (CHUNKED + b"\r\nffffffffffffffffff\r\n" + MARKER, 400),
        (CHUNKED + b'Connection: close\r\n\r\n5\r\n{"use\r\n0\r\n\r\n', 400),
        (post(b"\xff" + MARKER), 400),
        (post(b'{"user_id": "42", "limit": NaN}'), 400),
        (post(b'{"user_id": "42", "limit": -Infinity}'), 400),
        (post(b'{"user_id": "\\ud800' + MARKER + b'"}'), 400),
        (post(b'{"context":' * 5000), 400),
        (post(b'{"user_id": "42", "limit": ' + b"9" * 5000 + b"}"), 400),  # no float holds it
        (post(b'{"user_id": "42", "limit": 1e300}'), 422),
        (post(b'{"user_id": "42", "' + MARKER + b'": 1}'), 422),
        (post(b'{"events": [], "' + MARKER + b'": 1}', path="/v1/events"), 422),
        (post(GOOD, "Upgrade: " + MARKER.decode()).replace(b"n: close", b"n: upgrade, close"), 400),
        (post(GOOD, "X-Request-Timeout-Ms: 10", "X-Request-Timeout-Ms: 20"), 422),
        (post(GOOD, "X-Request-Timeout-Ms: " + "9" * 5000), 422),
        (b"GET /livez HTTP/1.1\r\nX: " + MARKER * MAX_HEADER_BYTES + b"\r\n\r\n", 431),
        (b"GET /livez?" + MARKER * MAX_HEADER_BYTES + b" HTTP/1.1\r\n\r\n", 431),
        (b"GET /livez HTTP/1.1\r\n" + b"A: b\r\n" * MAX_HEADER_BYTES + b"\r\n", 431),
        (CHUNKED + b"\r\n0\r\n" + b"A: b\r\n" * MAX_HEADER_BYTES + b"\r\n", 431),
    ],
    ids=lambda given: repr(given[:60]) if isinstance(given, bytes) else str(given),
)  # fmt: skip
async def test_nonsense_is_refused_with_a_problem_document_and_never_repeated(message: bytes, status: int) -> None:
    async with listening(FakeServing(), connection=Hasty) as port:
        answer = await ask(port, message)
    told = list(problems(answer))
    assert told[0]["status"] == status
    assert MARKER.lower() not in answer.lower()


@pytest.mark.parametrize("header", ["10", "0.001", "1" + "0" * 300])
async def test_a_timeout_within_reason_or_beyond_all_of_it_is_answered(header: str) -> None:
    async with listening(FakeServing()) as port:
        answer = await ask(port, post(GOOD, f"X-Request-Timeout-Ms: {header}"))
    assert answer.startswith(b"HTTP/1.1 200")


@pytest.mark.parametrize("head", [b"G", b"GET /livez HTTP/1.1\r\nHos", b"\r\n", post(GOOD)[:40]])
async def test_a_header_that_does_not_arrive_is_not_waited_for(head: bytes) -> None:
    async with listening(FakeServing(), connection=Hasty) as port:
        answer = await ask(port, head)
    assert [told["status"] for told in problems(answer)] == [408]


async def test_a_header_that_trickles_in_is_cut_off_too() -> None:
    async with listening(FakeServing(), connection=Hasty) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(b"GET /livez HTTP/1.1\r\n")
        answer = asyncio.create_task(reader.read())
        sent = 0
        while not answer.done() and sent < 1000:
            writer.write(b"A: b\r\n")
            sent += 1
            await asyncio.wait({answer}, timeout=0.02)
        writer.close()
    assert [told["status"] for told in problems(answer.result())] == [408]


async def test_a_body_already_refused_is_not_read_for_ever() -> None:
    async with listening(FakeServing(), connection=Hasty) as port:
        head = b"POST /nowhere HTTP/1.1\r\nHost: x\r\nContent-Length: 1000000\r\n\r\n"
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(head)
        answer = asyncio.create_task(reader.read())
        sent = 0
        while not answer.done() and sent < 1000:
            writer.write(b" ")
            sent += 1
            await asyncio.wait({answer}, timeout=0.02)
        writer.close()
    assert [told["status"] for told in problems(answer.result())] == [404]


async def test_sixty_megabytes_are_refused_and_the_refusal_is_heard() -> None:
    piece = b" " * 1_000_000
    async with listening(FakeServing()) as port:
        answer = await ask(port, post(b"", length=60_000_000), *[piece] * 60)
    assert [told["status"] for told in problems(answer)] == [413]


async def test_sixty_megabytes_of_unknown_length_are_refused_and_the_refusal_is_heard() -> None:
    piece = b"f4240\r\n" + b" " * 1_000_000 + b"\r\n"
    async with listening(FakeServing()) as port:
        answer = await ask(port, CHUNKED + b"\r\n", *[piece] * 60, b"0\r\n\r\n")
    assert [told["status"] for told in problems(answer)] == [413]


async def test_a_body_as_large_as_allowed_is_read() -> None:
    async with listening(FakeServing()) as port:
        answer = await ask(port, post(GOOD.ljust(MAX_REQUEST_BYTES)))
    assert answer.startswith(b"HTTP/1.1 200")


async def test_what_follows_the_last_request_of_a_connection_is_dropped_unread() -> None:
    async with listening(FakeServing()) as port:
        answer = await ask(port, post(GOOD + MARKER, length=len(GOOD)))
    assert answer.startswith(b"HTTP/1.1 200")
    assert answer.count(b"HTTP/1.1") == 1


async def test_a_chunked_body_in_many_pieces_is_read() -> None:
    pieces = [b"1\r\n%c\r\n" % byte for byte in GOOD]
    async with listening(FakeServing()) as port:
        answer = await ask(port, CHUNKED + b"Connection: close\r\n\r\n", *pieces, b"0\r\nTrailer: x\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 200")


class Wordy(FakeServing):
    """Has more to say than all buffers between it and its caller hold."""

    async def recommend(self, query, deadline):
        given = await super().recommend(query, deadline)
        return replace(given, items=(replace(given.items[0], title="x" * 32_000_000),))


async def test_an_answer_that_is_not_read_holds_no_place_for_long() -> None:
    serving = Wordy()
    async with listening(serving, connection=Hasty) as port:
        _, writer = await asyncio.open_connection("127.0.0.1", port, limit=1024)
        writer.write(post(GOOD).replace(b"Connection: close\r\n", b"") + post(GOOD))
        async with asyncio.timeout(20):
            while len(serving.asked) < 2 or serving.admission.in_process:  # noqa: ASYNC110
                await asyncio.sleep(0.01)
        writer.close()


async def test_an_answer_that_is_read_is_sent_whole_however_long_it_takes() -> None:
    async with listening(Wordy(), connection=Hasty) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(post(GOOD))
        told = 0
        while piece := await asyncio.wait_for(reader.read(1_000_000), 20):
            told += len(piece)
        writer.close()
    assert told > 32_000_000


async def test_a_second_request_on_the_same_connection_has_its_own_time() -> None:
    serving = FakeServing()
    async with listening(serving, connection=Hasty) as port:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in range(2):
            writer.write(post(GOOD).replace(b"Connection: close\r\n", b""))
            assert (await asyncio.wait_for(reader.readuntil(b"}}"), 10)).startswith(b"HTTP/1.1 200")
            await asyncio.sleep(Hasty.header_seconds * 2)  # idle for longer than a header may take
        writer.close()
    assert len(serving.asked) == 2


async def test_requests_sent_all_at_once_are_answered_in_order() -> None:
    serving = FakeServing()
    users = [b'{"user_id": "%d"}' % number for number in range(5)]
    whole = b"".join(post(user).replace(b"Connection: close\r\n", b"") for user in users[:-1]) + post(users[-1])
    async with listening(serving, connection=Hasty) as port:
        answer = await ask(port, whole)
    assert answer.count(b"HTTP/1.1 200") == 5
    assert [query.user_id for query in serving.asked] == ["0", "1", "2", "3", "4"]


async def test_a_hundred_silent_callers_do_not_keep_others_out() -> None:
    async with listening(FakeServing(), connection=Hasty) as port:
        silent = [await asyncio.open_connection("127.0.0.1", port) for _ in range(100)]
        for _, writer in silent:
            writer.write(b"POST /v1/recommendations HTTP/1.1\r\nHost")
        async with httpx.AsyncClient(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            assert (await client.get("/v1/recommendations/42")).status_code == 200
        started = time.monotonic()
        told = [list(problems(await asyncio.wait_for(reader.read(), 20))) for reader, _ in silent]
        for _, writer in silent:
            writer.close()
    assert [document["status"] for (document,) in told] == [408] * 100
    assert time.monotonic() - started < 20
