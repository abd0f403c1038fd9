"""tritonserver 2.51 dies of cancelled calls, so a caller that leaves lets the call end by itself."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from domain.deadline import Deadline
from domain.errors import Late
from ranking.triton import TritonChannel
from tests.fake_triton import FakeTriton, serving_on


class SlowTriton(FakeTriton):
    """Answers when told, and notes calls that were cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.cancelled = 0

    async def ModelInfer(self, request, context):  # noqa: N802 - the protocol's name
        self.begun.set()
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await super().ModelInfer(request, context)


@pytest.mark.parametrize("leaves", [True, False], ids=["a caller that leaves", "a deadline"])
async def test_neither_cancels_the_call(free_port, leaves: bool) -> None:
    port = free_port()
    async with serving_on(port, SlowTriton()) as triton:
        channel = TritonChannel(f"127.0.0.1:{port}")
        rows = {"item_row": np.zeros((1, 3), np.int32)}
        asking = asyncio.create_task(channel.infer("1", rows, Deadline.after(5 if leaves else 0.5)))
        await triton.begun.wait()
        if leaves:
            asking.cancel()
        with pytest.raises(asyncio.CancelledError if leaves else Late):
            await asking
        triton.go_on.set()
        async with asyncio.timeout(5):
            while channel._calls:
                await asyncio.wait(channel._calls)
                await asyncio.sleep(0)
        assert (triton.cancelled, triton.asked) == (0, [3])
        await channel.close()
