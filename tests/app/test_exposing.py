"""A flood of scrapes is one exposition."""

from __future__ import annotations

import asyncio
import threading

import pytest

from app.beside.exposing import Exposing


async def test_those_who_ask_together_share_one_and_who_comes_later_gets_a_new_one() -> None:
    go_on, made = threading.Event(), list[int]()

    def make() -> tuple[bytes, str]:
        go_on.wait(20)
        made.append(len(made))
        return b"%d" % made[-1], "text/plain"

    exposing = Exposing(make)
    asking = [asyncio.create_task(exposing.told()) for _ in range(100)]
    await asyncio.sleep(0)
    asking[0].cancel()  # whoever leaves takes it from nobody
    go_on.set()
    told = await asyncio.gather(*asking, return_exceptions=True)
    assert isinstance(told[0], asyncio.CancelledError)
    assert told[1:] == [(b"0", "text/plain")] * 99
    assert await exposing.told() == (b"1", "text/plain")


async def test_one_that_fails_is_not_kept() -> None:
    failures = iter([OSError("no such file")])

    def make() -> tuple[bytes, str]:
        for failure in failures:
            raise failure
        return b"", "text/plain"

    exposing = Exposing(make)
    with pytest.raises(OSError, match="no such file"):
        await exposing.told()
    assert await exposing.told() == (b"", "text/plain")
