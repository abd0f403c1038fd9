"""Each user's list: the final pipeline's own order, kept for when there is no time for the pipeline."""

from __future__ import annotations

import numpy as np

from domain.arrays import Floats
from fallbacks.batch_lists import BatchListTables
from training.rank_rows import RankRows

LENGTH = 100


def build(rows: RankRows, score: Floats) -> BatchListTables:
    """The ``LENGTH`` best of each request, which stand for users 0, 1, 2, ...; ``score`` is ``(r, n)``.

    What a user has seen is not among their candidates, so it is not in their list.
    """
    order = np.argsort(-score, axis=1, kind="stable")[:, :LENGTH]
    kept = np.take_along_axis(rows.there, order, axis=1)
    indptr = np.concatenate(([0], np.cumsum(kept.sum(axis=1)))).astype(np.int64)
    item_row = np.take_along_axis(rows.item_row, order, axis=1)[kept]
    return BatchListTables(indptr, item_row.astype(np.int32), np.take_along_axis(score, order, axis=1)[kept])
