"""A connection that was reset is a lost connection on either event loop."""

from __future__ import annotations

import asyncio

import pytest
import uvloop
from redis.exceptions import RedisError

from domain.errors import Unreachable
from features.online import connect, mapped


@pytest.mark.parametrize("loop", [asyncio.new_event_loop, uvloop.new_event_loop], ids=["asyncio", "uvloop"])
def test_a_write_on_a_connection_that_was_reset_says_unreachable(redis_url: str, loop) -> None:
    async def write_after_reset() -> Exception:
        async with connect(redis_url) as client:
            pool = client.connection_pool
            connection = await pool.get_connection()
            connection._writer.transport.abort()
            await asyncio.sleep(0)
            try:
                await connection.send_packed_command(b"*1\r\n$4\r\nPING\r\n")
                await connection.read_response()
            except Exception as error:  # noqa: BLE001 - which one it is, is the question
                return error
            finally:
                await pool.release(connection)
        raise AssertionError("an answer came over a closed connection")

    with asyncio.Runner(loop_factory=loop) as runner:
        error = runner.run(write_after_reset())
    assert isinstance(error, RedisError)
    assert isinstance(mapped(error), Unreachable)
