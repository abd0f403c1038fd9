"""Popular items, copied to RAM: the last rung, which cannot fail."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.arrays import Floats, Mask, Rows
from domain.candidates import Candidates
from domain.degradation import DegradationLevel
from domain.request import Request
from domain.stages import May, anything
from fallbacks.unseen import unseen
from retrieval.popularity import PopularityTables

NO_POSITIONS = np.empty(0, np.intp)


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

    def slate(self, request: Request, seen: Rows, may: May = anything) -> Candidates:
        """From the head of the list, which is enough unless much ``may`` not be shown; else from further down too."""
        kept, start, step = [NO_POSITIONS], 0, request.limit + len(seen)
        while start < len(self.item_row) and sum(map(len, kept)) < request.limit:
            rows = self.item_row[start : start + step]
            kept.append(start + np.flatnonzero(unseen(rows, seen) & may(rows)))
            start, step = start + step, 2 * step
        at = np.concatenate(kept)[: request.limit]
        return Candidates.proposed(self.item_row[at], self.score[at])
