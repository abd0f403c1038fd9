"""tritonserver 2.51 dies of cancelled calls, so a caller that leaves lets the call end by itself."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from domain.deadline import Deadline
from domain.errors import Busy, Late
from ranking.triton import MOST_OVERDUE, ONE_BATCH, TritonChannel
from tests.fake_triton import FakeTriton, serving_on


class SlowTriton(FakeTriton):
    """Answers when told, and notes calls that were cancelled."""

    def __init__(self) -> None:
        super().__init__()
        self.begun, self.go_on = asyncio.Event(), asyncio.Event()
        self.waiting = self.cancelled = 0

    async def ModelInfer(self, request, context):  # noqa: N802 - the protocol's name
        self.begun.set()
        self.waiting += 1
        try:
            await self.go_on.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return await super().ModelInfer(request, context)


ROWS = {"item_row": np.zeros((1, 3), np.int32)}


async def drained(channel: TritonChannel) -> None:
    async with asyncio.timeout(5):
        while channel._calls:
            await asyncio.wait(channel._calls)
            await asyncio.sleep(0)


@pytest.mark.parametrize("leaves", [True, False], ids=["a caller that leaves", "a deadline"])
async def test_neither_cancels_the_call(free_port, leaves: bool) -> None:
    port = free_port()
    async with serving_on(port, SlowTriton()) as triton:
        channel = TritonChannel(f"127.0.0.1:{port}")
        asking = asyncio.create_task(channel.infer("1", ROWS, Deadline.after(5 if leaves else 0.5)))
        await triton.begun.wait()
        if leaves:
            asking.cancel()
        with pytest.raises(asyncio.CancelledError if leaves else Late):
            await asking
        triton.go_on.set()
        await drained(channel)
        assert (triton.cancelled, triton.asked) == (0, [3])
        await channel.close()


@pytest.mark.parametrize(("usual", "most"), [(0.0, ONE_BATCH), (20.0, 20)], ids=["a batch", "what is usual, if more"])
async def test_callers_who_leave_queue_up_no_more_than_triton_answers_in_time(
    free_port, usual: float, most: int
) -> None:
    port = free_port()
    async with serving_on(port, SlowTriton()) as triton:
        channel = TritonChannel(f"127.0.0.1:{port}", lambda: usual)
        asking = [asyncio.create_task(channel.infer("1", ROWS, Deadline.after(30))) for _ in range(most)]
        async with asyncio.timeout(10):
            while triton.waiting < most:  # noqa: ASYNC110
                await asyncio.sleep(0.001)
        for one in asking:
            one.cancel()
        await asyncio.wait(asking)
        with pytest.raises(Busy) as refused:
            await channel.infer("1", ROWS, Deadline.after(30))
        assert not refused.value.is_fault
        triton.go_on.set()
        await drained(channel)
        assert await channel.infer("1", ROWS, Deadline.after(30)) is not None
        assert (triton.cancelled, len(triton.asked)) == (0, most + 1)
        await channel.close()


@pytest.mark.parametrize("earlier", [0.0, 60.0], ids=["a guard's timer", "its own timer"])
async def test_once_some_have_waited_in_vain_nobody_waits_until_an_answer_comes(free_port, earlier: float) -> None:
    port = free_port()
    async with serving_on(port, SlowTriton()) as triton:
        channel = TritonChannel(f"127.0.0.1:{port}")
        for _ in range(MOST_OVERDUE):
            deadline = Deadline.after(0.3)
            with pytest.raises((Late, TimeoutError)):
                async with asyncio.timeout(max(earlier, deadline.remaining)):
                    await channel.infer("1", ROWS, deadline)
        with pytest.raises(Late, match="overdue"):
            await channel.infer("1", ROWS, Deadline.after(60))
        triton.go_on.set()
        await drained(channel)
        assert await channel.infer("1", ROWS, Deadline.after(30)) is not None
        await channel.close()


async def test_who_leaves_makes_nothing_overdue(free_port) -> None:
    port = free_port()
    async with serving_on(port, SlowTriton()) as triton:
        channel = TritonChannel(f"127.0.0.1:{port}")
        for n in range(1, MOST_OVERDUE + 1):
            asking = asyncio.create_task(channel.infer("1", ROWS, Deadline.after(0.3)))
            async with asyncio.timeout(10):
                while triton.waiting < n:  # noqa: ASYNC110
                    await asyncio.sleep(0.001)
            asking.cancel()
            await asyncio.wait({asking})
        await asyncio.sleep(0.4)  # past every deadline
        asking = asyncio.create_task(channel.infer("1", ROWS, Deadline.after(30)))
        await asyncio.sleep(0)
        triton.go_on.set()
        assert await asking is not None
        await channel.close()
