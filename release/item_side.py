"""The item's part of DCN-V2, kept beside the graph so that it can be computed for items that came later.

The exported graph holds one table with a row an item, which a request gathers. A row is an affine map of the item's
inputs, its standardised features and its learned embedding, and begins with those inputs themselves.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.arrays import Floats
from features.contract import CONTRACT


@dataclass(frozen=True, slots=True, eq=False)
class ItemSide:
    """From ``I`` raw features and an embedding of width ``e`` to a row of width ``t``."""

    mean: Floats  # (I,) of the scaled features
    scale: Floats  # (I,)
    weight: Floats  # (I + e, t)
    bias: Floats  # (t,)

    def rows(self, features: Floats, embedding: Floats) -> Floats:
        """``(n, t)`` for raw ``features`` ``(n, I)`` and ``embedding`` ``(n, e)``."""
        standard = (CONTRACT.item.scaled(features) - self.mean) / self.scale
        return np.concatenate([standard, embedding], axis=1).astype(np.float32) @ self.weight + self.bias

    def embedding(self, table: Floats) -> Floats:
        """``(n, e)``: the embeddings that a table ``(n, t)`` holds."""
        return table[:, len(self.mean) : len(self.weight)]
