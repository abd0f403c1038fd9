"""The generator tells the truth: about a server that stalls, refuses, closes, or lies about nothing at all."""

from __future__ import annotations

import asyncio
import contextlib
from collections import Counter
from collections.abc import Awaitable, Callable

import pytest

from loadtests.load_result import LoadResult, Sample
from loadtests.open_loop import HttpDoor, broken_promises, budget, offer
from loadtests.traffic import Traffic, read_level

BODY = b'{"request_id":"x","items":[],"degradation":{"level":"FULL","reasons":["cold_start"]},"timing_ms":{}}'
OK = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n%s" % (len(BODY), BODY)
TRAFFIC = Traffic([str(user) for user in range(50)])

Answering = Callable[[int, asyncio.StreamWriter], Awaitable[None]]


async def offered(free_port, answering: Answering, rate: float, seconds: float, **more) -> tuple[LoadResult, int]:
    """The result of a load on a server that answers as told; and how many connections it saw."""
    connections = requests = 0
    serving: list[asyncio.Task | None] = []

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections, requests
        connections += 1
        serving.append(asyncio.current_task())
        try:
            while True:
                head = await reader.readuntil(b"\r\n\r\n")
                await reader.readexactly(int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0]))
                requests += 1
                await answering(requests, writer)
        except (asyncio.IncompleteReadError, ConnectionError):
            pass
        finally:
            writer.close()
            with contextlib.suppress(ConnectionError):
                await writer.wait_closed()

    port = free_port()
    async with await asyncio.start_server(serve, "127.0.0.1", port):
        door = HttpDoor("127.0.0.1", port, TRAFFIC, **more)
        result = await offer(door, rate, seconds)
        await door.close()
        await asyncio.wait([task for task in serving if task], timeout=5)
    return result, connections


async def test_every_request_is_counted_with_its_level_and_reasons(free_port) -> None:
    async def well(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)

    result, connections = await offered(free_port, well, 100, 0.5)
    assert (len(result.samples), result.availability) == (50, 1.0)
    assert result.levels == {"FULL": 50}
    assert result.reasons == {"cold_start": 50}
    assert connections < 50  # kept alive


async def test_a_stall_is_felt_by_every_request_that_was_due_in_it(free_port) -> None:
    stalled = asyncio.Event()

    async def stall(number: int, writer: asyncio.StreamWriter) -> None:
        if number == 10:
            asyncio.get_running_loop().call_later(0.5, stalled.set)
        if number >= 10:
            await stalled.wait()
        writer.write(OK)

    result, _ = await offered(free_port, stall, 100, 0.6)
    # Due 0.1 s into the load and later, served from 0.6 s on: a closed loop would have seen one slow request.
    assert sum(part.seconds > 0.2 for part in result.samples) >= 25


async def test_a_connection_closed_while_idle_is_no_failure_and_one_closed_on_a_request_is(free_port) -> None:
    async def close_after(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(OK)
        writer.close()

    async def close_before(_: int, writer: asyncio.StreamWriter) -> None:
        writer.close()

    kind, _ = await offered(free_port, close_after, 50, 0.3)
    assert kind.availability == 1.0
    rude, _ = await offered(free_port, close_before, 50, 0.3)
    assert rude.reasons == {"client.connection_lost": 15}
    assert rude.availability == 0.0


async def test_nobody_listening_is_counted_and_not_raised(free_port) -> None:
    door = HttpDoor("127.0.0.1", free_port(), TRAFFIC)
    result = await offer(door, 50, 0.2)
    assert result.statuses == {0: 10}
    assert result.reasons == {"client.refused": 10}


async def test_a_refusal_keeps_its_status(free_port) -> None:
    async def refuse(_: int, writer: asyncio.StreamWriter) -> None:
        writer.write(b"HTTP/1.1 429 Too Many Requests\r\ncontent-length: 0\r\n\r\n")

    result, _ = await offered(free_port, refuse, 50, 0.2)
    assert result.statuses == {429: 10}
    assert result.levels == {}


def test_few_users_ask_most_and_some_are_strangers() -> None:
    drawn = Counter(TRAFFIC.drawn())
    strangers = sum(n for user, n in drawn.items() if user.startswith("stranger"))
    assert 0.02 < strangers / sum(drawn.values()) < 0.08
    assert sum(n for _, n in drawn.most_common(5)) > sum(drawn.values()) / 3
    assert TRAFFIC.drawn() == TRAFFIC.drawn()


def test_traffic_of_nobody_is_refused() -> None:
    with pytest.raises(ValueError, match="needs users"):
        Traffic([])


def test_a_level_is_read_where_it_is_written_and_not_from_a_title() -> None:
    tricky = BODY.replace(b'"items":[]', b'"items":[{"title":"\\"degradation\\":{\\"level\\":\\"POPULAR\\"}"}]')
    assert read_level(tricky) == ("FULL", ("cold_start",))
    assert read_level(b'{"accepted":1}') == ("", ())


def test_a_broken_promise_is_named() -> None:
    result = LoadResult(10, 1.0, [Sample(i / 10, 0.010 + i / 1000, 200, "FULL") for i in range(10)])
    assert broken_promises(result, {"p50_ms": 12, "p95_ms": 25, "min_full_ratio": 1.0}) == ["p50_ms 12"]
    late = LoadResult(10, 1.0, [*result.samples[:-1], Sample(0.9, 5.0, 0, "")])
    assert broken_promises(late, {"min_availability": 0.95, "p50_ms": 100}) == ["min_availability 0.95"]


def test_every_gate_of_the_budget_can_be_asked() -> None:
    result = LoadResult(10, 1.0, [Sample(0.0, 0.001, 200, "FULL")])
    for gate in ("steady", "highest"):
        promises = {name: value for name, value in budget(gate).items() if name not in {"rate", "seconds"}}
        assert broken_promises(result, promises) == []
