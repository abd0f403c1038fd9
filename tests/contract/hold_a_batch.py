"""A consumer that takes a batch, says how many entries it has, and is never done with it: ``KIND ADDRESS NAME``."""

import asyncio
import sys

from tests.contract.event_log_cases import case_of


async def hold(kind: str, address: str, name: str) -> None:
    feed = case_of(kind, address).open_feed(name)
    while not len(batch := await feed.take(100, 0.5)):
        pass
    print(len(batch), flush=True)  # noqa: T201  # the test that started us waits for it
    await asyncio.Event().wait()


asyncio.run(hold(*sys.argv[1:]))
