"""A user's latest likes, which several sources go by."""

from __future__ import annotations

import numpy as np

from domain.arrays import Floats, Rows
from domain.catalogue import History
from domain.compiled import column, compiled, float32, int32, int64, written


def latest_likes(history: History, positive_stars: float, k: int) -> Rows:
    """``(l,)``, ``l <= k``: the items of the latest events that are ``positive``, oldest first."""
    return _latest_likes(history.item_row, history.rating, positive_stars, k)


@compiled(written(int32), column(int32), column(float32), float32, int64)
def _latest_likes(item_row: Rows, rating: Floats, positive_stars: float, k: int) -> Rows:
    """From the end, no further than it must: a history may be long."""
    likes = np.empty(min(k, len(rating)), np.int32)
    begin = len(likes)
    at = len(rating)
    while begin > 0 and at > 0:
        at -= 1
        if np.isnan(rating[at]) or rating[at] >= positive_stars:
            begin -= 1
            likes[begin] = item_row[at]
    return likes[begin:]
