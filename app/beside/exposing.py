"""``/metrics`` without a queue: one exposition at a time, which all who ask meanwhile share.

It has a thread of its own: the loop's default threads load bundles, and a flood of scrapes must keep no swap waiting.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor


class Exposing:
    """``make`` reads a file for each worker. Used from one event loop."""

    def __init__(self, make: Callable[[], tuple[bytes, str]]) -> None:
        self._make = make
        self._thread = ThreadPoolExecutor(1, "metrics")
        self._current: asyncio.Future[tuple[bytes, str]] | None = None

    async def told(self) -> tuple[bytes, str]:
        """The text and its media type; begun when nobody else's is being made."""
        if self._current is None or self._current.done():
            self._current = asyncio.get_running_loop().run_in_executor(self._thread, self._make)
        return await asyncio.shield(self._current)
