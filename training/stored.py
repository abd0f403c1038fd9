"""What serving would have known of users at earlier moments: Feast's point-in-time join, then the request's own part.

Training rows take the stored features the way serving does, out of the store, and compute only what the request
computes (session, time since the last event) from the history. The store lives as long as the question and holds one
row a moment asked about, so nothing of another moment's making can enter.
"""

from __future__ import annotations

import tempfile
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from domain.arrays import Floats, Seconds
from domain.catalogue import History
from features import layout
from features.contract import CONTRACT
from features.definitions import ItemFacts, request_features
from features.history import record, training_rows
from features.materialise import open_repository
from features.offline import OfflineTable
from training.dataset import Dataset


def numeric_at(
    dataset: Dataset, users: Sequence[int], histories: Sequence[History], moments: Seconds, facts: ItemFacts
) -> Floats:
    """``(n, numeric)`` in the contract's order: each user's features at the moment, all arguments aligned, ``(n,)``.

    Of a history counts what lies strictly before the second of the moment.
    """
    stored = stored_features(dataset, users, histories, moments, facts)
    rows = zip(stored, histories, moments.tolist(), strict=True)
    found = [np.concatenate([row, request_features(history, moment, facts)]) for row, history, moment in rows]
    return np.stack(found) if found else np.zeros((0, CONTRACT.numeric.width), np.float32)


def stored_features(
    dataset: Dataset, users: Sequence[int], histories: Sequence[History], moments: Seconds, facts: ItemFacts
) -> Floats:
    """``(n, U)``: the part of it that the store holds."""
    if not users:
        return np.zeros((0, CONTRACT.user.width), np.float32)
    ids = [dataset.user_ids.text(user) for user in users]
    with tempfile.TemporaryDirectory() as home:
        offline = OfflineTable(Path(home), layout.project_name(CONTRACT, dataset.genre_names))
        record(offline, ids, histories, moments, facts, float(moments.max()))
        return training_rows(open_repository(None, offline), ids, moments)
