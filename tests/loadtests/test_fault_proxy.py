"""The proxy that breaks things does exactly what its modes say, before anything is concluded from it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable

import pytest

from loadtests.fault_proxy import FaultProxy, Mode


@pytest.fixture
async def echo_port(free_port: Callable[[], int]) -> AsyncIterator[int]:
    echoing: list[asyncio.Task | None] = []

    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        echoing.append(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            while piece := await reader.read(1024):
                writer.write(piece)
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    port = free_port()
    async with await asyncio.start_server(echo, "127.0.0.1", port):
        yield port
        if echoing:
            await asyncio.wait([task for task in echoing if task], timeout=5)


@pytest.fixture
async def proxy(echo_port: int, free_port: Callable[[], int]) -> AsyncIterator[FaultProxy]:
    async with FaultProxy(free_port(), "127.0.0.1", echo_port) as proxy:
        yield proxy


async def connected(proxy: FaultProxy) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
    return await asyncio.open_connection("127.0.0.1", proxy.port)


async def said(proxy: FaultProxy, word: bytes = b"hello") -> bytes:
    reader, writer = await connected(proxy)
    writer.write(word)
    try:
        return await reader.read(1024)
    finally:
        await closed(writer)


async def closed(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def test_bytes_pass_until_told_otherwise(proxy: FaultProxy) -> None:
    assert await said(proxy) == b"hello"


async def test_an_open_connection_is_reset_and_so_is_a_new_one(proxy: FaultProxy) -> None:
    reader, writer = await connected(proxy)
    writer.write(b"a")
    assert await reader.read(1) == b"a"
    proxy.set(Mode.RESET)
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    await closed(writer)
    with pytest.raises(ConnectionResetError):
        await said(proxy)
    proxy.set(Mode.PASS)
    assert await said(proxy) == b"hello"


async def test_a_blackhole_answers_nothing_and_an_open_connection_does_not_outlive_it(proxy: FaultProxy) -> None:
    reader, writer = await connected(proxy)
    writer.write(b"a")
    assert await reader.read(1) == b"a"
    proxy.set(Mode.BLACKHOLE)
    writer.write(b"b")
    with pytest.raises(TimeoutError):
        await asyncio.wait_for(reader.read(1), 0.2)
    proxy.set(Mode.PASS)
    with pytest.raises(ConnectionResetError):
        await reader.read(1)
    await closed(writer)


async def test_a_delayed_answer_is_whole_and_so_much_later(proxy: FaultProxy) -> None:
    proxy.set(Mode.DELAY, 0.1)
    started = asyncio.get_running_loop().time()
    assert await said(proxy) == b"hello"
    assert asyncio.get_running_loop().time() - started >= 0.1


async def test_a_truncated_answer_ends_in_the_middle(proxy: FaultProxy) -> None:
    proxy.set(Mode.TRUNCATE)
    assert await said(proxy) == b"hel"


async def test_a_garbled_answer_is_as_long_and_nothing_like_it(proxy: FaultProxy) -> None:
    proxy.set(Mode.GARBLE)
    assert await said(proxy, b"\x00\xff") == b"\xff\x00"


async def test_without_a_server_behind_it_connections_are_reset(free_port: Callable[[], int]) -> None:
    async with FaultProxy(free_port(), "127.0.0.1", free_port()) as proxy:
        with pytest.raises(ConnectionResetError):
            await said(proxy)


async def test_leaving_it_closes_what_is_open(echo_port: int, free_port: Callable[[], int]) -> None:
    async with FaultProxy(free_port(), "127.0.0.1", echo_port) as proxy:
        reader, writer = await connected(proxy)
        writer.write(b"a")
        await reader.read(1)
    assert await reader.read(1) == b""
    assert proxy.connections == 0
    await closed(writer)
