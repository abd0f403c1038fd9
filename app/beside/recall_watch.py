"""Whether approximate search still finds what exact search would: live queries, asked again off the path."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass

from app import metrics
from domain.stages import Source
from retrieval.executor import Threaded
from retrieval.shadow import SampledIndex
from retrieval.two_tower import TwoTower

LOOK_SECONDS = 60.0

log = logging.getLogger("streamrec.recall")


@dataclass(slots=True, eq=False)
class RecallWatch:
    """The index in use. Outlives every bundle."""

    index: SampledIndex | None = None

    def over(self, sources: Sequence[Source]) -> None:
        """From now on these sources are asked: watch their index, and forget the one before."""
        asked = [source.source if isinstance(source, Threaded) else source for source in sources]
        indices = [source.index for source in asked if isinstance(source, TwoTower)]
        self.index = next((index for index in indices if isinstance(index, SampledIndex)), None)

    def look(self) -> float:
        """Recall over the last queries, NaN if there were none. Searches everything, so not on the event loop."""
        return self.index.recall(self.index.depth) if self.index is not None else float("nan")

    async def keep(self, sleep: Callable[[float], Awaitable[object]] = asyncio.sleep) -> None:
        """Look and tell for as long as the worker lives, whatever fails."""
        while True:
            await sleep(LOOK_SECONDS)
            try:
                metrics.index_recall_is(await asyncio.to_thread(self.look))
            except Exception:
                metrics.bug_found("recall_watch")
                log.exception("bug in the recall watch")
