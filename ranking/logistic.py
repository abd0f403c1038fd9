"""Logistic regression on the CPU, in process: what ranks when Triton does not."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.arrays import Floats
from domain.candidates import Candidates
from domain.catalogue import Items
from domain.deadline import Deadline
from domain.user import UserFeatures
from features.contract import CONTRACT
from features.encode import encode_candidates


@dataclass(frozen=True, slots=True, eq=False)
class LogisticTables:
    """Weights over the candidate columns followed by the scaled item features: ``(C + I,)`` each, and one bias.

    The user's own features are the same for every candidate of a request, so they cannot change an order; they act
    through the pair columns.
    """

    mean: Floats
    scale: Floats
    weight: Floats
    bias: Floats  # (1,)


@dataclass(frozen=True, slots=True)
class LogisticRanker:
    """The probability that an item is liked, from the same columns that DCN-V2 is given."""

    tables: LogisticTables
    items: Items
    name: str = "logistic"

    async def score(self, user: UserFeatures, candidates: Candidates, deadline: Deadline) -> Floats:
        """``(n,)``. 500 candidates take about 0.2 ms, so it runs inline and is never late."""
        del deadline
        columns = encode_candidates(user, candidates, self.items.features, self.items.genres)
        item = CONTRACT.item.scaled(self.items.features[candidates.item_row])
        inputs = (np.concatenate([columns, item], axis=1) - self.tables.mean) / self.tables.scale
        logit = inputs @ self.tables.weight + self.tables.bias[0]
        return (1.0 / (1.0 + np.exp(-logit))).astype(np.float32)
