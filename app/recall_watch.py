"""Whether approximate search still finds what exact search would: live queries, asked again off the path."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

from app import metrics
from retrieval.shadow import SampledIndex

LOOK_SECONDS = 60.0

log = logging.getLogger("streamrec.recall")


@dataclass(slots=True, eq=False)
class RecallWatch:
    """The index in use, and how deep retrieval asks it. Outlives every bundle."""

    _index: SampledIndex | None = None
    _depth: int = 0

    def over(self, index: Any, depth: int) -> SampledIndex:
        """The index as retrieval is to ask it from now on; the one before is forgotten."""
        self._index, self._depth = SampledIndex(index), depth
        return self._index

    def look(self) -> float:
        """Recall over the last queries, NaN if there were none. Searches everything, so not on the event loop."""
        return self._index.recall(self._depth) if self._index is not None else float("nan")

    async def keep(self, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        """Look and tell for as long as the worker lives, whatever fails."""
        while True:
            await sleep(LOOK_SECONDS)
            try:
                metrics.index_recall_is(await asyncio.to_thread(self.look))
            except Exception:
                metrics.bug_found("recall_watch")
                log.exception("bug in the recall watch")
