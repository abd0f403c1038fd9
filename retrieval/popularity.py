"""What everybody likes at the moment: popularity with time decay. It knows nothing of the user and waits for nobody."""

from __future__ import annotations

from dataclasses import dataclass

from domain.arrays import Floats, Rows
from domain.candidates import Candidates
from domain.request import Request
from retrieval.computed import Impersonal


@dataclass(frozen=True, slots=True, eq=False)
class PopularityTables:
    """Items by decayed popularity, best first, aligned ``(m,)``."""

    item_row: Rows
    score: Floats


@dataclass(frozen=True, slots=True)
class Popularity(Impersonal):
    """The ``depth`` most popular items."""

    tables: PopularityTables
    depth: int
    name: str = "popularity"

    def propose(self, request: Request) -> Candidates:
        del request
        return Candidates.proposed(self.tables.item_row[: self.depth], self.tables.score[: self.depth])
