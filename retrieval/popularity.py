"""What everybody likes at the moment: popularity with time decay. It knows nothing of the user and waits for nobody."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from domain.arrays import Floats, Rows
from domain.candidates import Candidates
from domain.deadline import Deadline
from domain.request import Request
from domain.user import UserFeatures
from retrieval.computed import Computed


@dataclass(frozen=True, slots=True, eq=False)
class PopularityTables:
    """Items by decayed popularity, best first, aligned ``(m,)``."""

    item_row: Rows
    score: Floats


@dataclass(frozen=True, slots=True)
class Popularity(Computed):
    """The ``depth`` most popular items."""

    tables: PopularityTables
    depth: int
    name: str = "popularity"

    async def retrieve(self, request: Request, user: asyncio.Task[UserFeatures], deadline: Deadline) -> Candidates:
        del request, user, deadline
        return Candidates.proposed(self.tables.item_row[: self.depth], self.tables.score[: self.depth])
