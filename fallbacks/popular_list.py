"""Popular items, copied to RAM: the last rung, which cannot fail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.arrays import Floats, Mask, Rows
from domain.candidates import Candidates
from domain.degradation import DegradationLevel
from domain.request import Request
from retrieval.popularity import PopularityTables


@dataclass(frozen=True, slots=True, eq=False)
class PopularList:
    """Items best first, eligible only, aligned ``(m,)``."""

    item_row: Rows
    score: Floats
    level: DegradationLevel = DegradationLevel.POPULAR

    @classmethod
    def of(cls, tables: PopularityTables, eligible: Mask) -> PopularList:
        """A copy in RAM, so that not even a lost disk can take it away."""
        keep = eligible[tables.item_row]
        return cls(np.array(tables.item_row[keep]), np.array(tables.score[keep]))

    def slate(self, request: Request, seen: Rows) -> Candidates:
        head = slice(request.limit + len(seen))
        keep = ~np.isin(self.item_row[head], seen)
        return Candidates.proposed(self.item_row[head][keep][: request.limit], self.score[head][keep][: request.limit])
