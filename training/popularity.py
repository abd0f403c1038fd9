"""Popularity with time decay: an event counts ``0.5 ** (age / half-life)``, age before the last known event.

Under replay users live at different times, so a short half-life knows only what the last of them saw; the half-life is
therefore chosen on held-out events, and no decay at all is among the choices.
"""

from __future__ import annotations

import numpy as np

from domain.arrays import Floats
from features.contract import DAY
from retrieval.popularity import PopularityTables
from training.split import Cut

HALF_LIVES_DAYS = (90.0, 365.0, 1825.0, 7300.0, np.inf)
DEPTH = 10_000  # more is never asked for
JUDGED_AT = 500  # candidates of a request


def fit(cut: Cut, half_life_days: float) -> PopularityTables:
    """All items, most popular first; ties go to the lower row.

    Those without an event come last: where nothing is known of a user, they are what fills up the candidates.
    """
    counts = decayed_counts(cut, half_life_days)
    order = np.argsort(-counts, kind="stable")[:DEPTH]
    return PopularityTables(order.astype(np.int32), counts[order])


def decayed_counts(cut: Cut, half_life_days: float) -> Floats:
    """``(items,)``: the decayed number of events before the cut."""
    known = cut.known
    timestamp = cut.dataset.timestamp[known]
    age_days = (timestamp.max(initial=0.0) - timestamp) / DAY
    weight = 0.5 ** (age_days / half_life_days)
    rows = cut.dataset.item_row[known]
    return np.bincount(rows, weight, minlength=len(cut.dataset.item_ids)).astype(np.float32)


def best_half_life_days(cut: Cut) -> float:
    """The half-life whose top ``JUDGED_AT`` unseen items hold most of what users liked after the cut."""
    recalls = [_recall(cut, decayed_counts(cut, half_life)) for half_life in HALF_LIVES_DAYS]
    return HALF_LIVES_DAYS[int(np.argmax(recalls))]


def _recall(cut: Cut, score: Floats) -> float:
    """Mean over users with held-out positives of the share found in the top ``JUDGED_AT``."""
    found = []
    for user in range(len(cut.length)):
        liked = cut.liked(user)
        if len(liked):
            left = score.copy()
            left[cut.history(user).item_row] = -1.0
            top = np.argpartition(-left, min(JUDGED_AT, len(left) - 1))[:JUDGED_AT]
            found.append(float(np.isin(liked, top).mean()))
    return float(np.mean(found)) if found else 0.0
