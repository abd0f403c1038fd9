"""Each user's precomputed list: the answer when retrieval is impossible or there is no time for it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Floats, Mask, Rows
from domain.candidates import Candidates
from domain.degradation import DegradationLevel
from domain.request import Request
from domain.stages import May, anything
from fallbacks.unseen import unseen


@dataclass(frozen=True, slots=True, eq=False)
class BatchListTables:
    """CSR over the bundle's users, best first: user ``i`` has ``item_row[indptr[i]:indptr[i + 1]]``."""

    indptr: NDArray[np.int64]  # (users + 1,)
    item_row: Rows
    score: Floats


@dataclass(frozen=True, slots=True)
class BatchList:
    """The user's list, without what they have seen or what is no longer offered."""

    tables: BatchListTables
    eligible: Mask  # (items,)
    level: DegradationLevel = DegradationLevel.BATCH_LIST

    def slate(self, request: Request, seen: Rows, may: May = anything) -> Candidates:
        if request.user_row < 0:
            return Candidates.none()
        span = slice(*self.tables.indptr[request.user_row : request.user_row + 2].tolist())
        rows = self.tables.item_row[span]
        keep = self.eligible[rows] & unseen(rows, seen) & may(rows)
        return Candidates.proposed(rows[keep][: request.limit], self.tables.score[span][keep][: request.limit])
