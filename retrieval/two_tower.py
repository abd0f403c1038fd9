"""Two-tower retrieval: a user vector made from the current history, and the nearest item vectors in FAISS."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, fields
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Floats
from domain.candidates import Candidates
from domain.catalogue import History
from domain.errors import BadAnswer
from domain.request import Request
from domain.user import UserFeatures
from features.contract import CONTRACT
from features.definitions import positive
from retrieval.computed import Personal

MAX_HISTORY = 100


def history_shares(h: int) -> Floats:
    """``(h,)``, summing to one: how much each of the latest likes, oldest first, weighs in their mean."""
    weight = 1.0 / np.sqrt(1.0 + np.arange(h - 1, -1, -1, dtype=np.float32))
    return (weight / weight.sum()).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class UserTower:
    """One hidden layer over the mean embedding of the latest likes, the last heard most, and the numeric features.

    ``e`` is the width of the history embedding, ``U`` of the numeric features, ``h`` of the hidden layer, ``d`` of the
    vectors in the index. All float32; ``out`` is normalised to unit length.
    """

    embedding: Floats  # (items, e)
    mean: Floats  # (U,)
    scale: Floats  # (U,), what the numeric features are divided by
    hidden_weight: Floats  # (h, e + U)
    hidden_bias: Floats  # (h,)
    out_weight: Floats  # (d, h)
    out_bias: Floats  # (d,)

    def digest(self) -> NDArray[np.uint8]:
        """``(32,)``: sha256 of all weights, which names the space that item vectors must lie in to be compared."""
        whole = hashlib.sha256()
        for part in fields(self):
            whole.update(np.ascontiguousarray(getattr(self, part.name)).tobytes())
        return np.frombuffer(whole.digest(), np.uint8)

    def vector(self, liked: History, numeric: Floats) -> Floats:
        """``(d,)``, unit length, for the latest likes and the raw numeric features ``(U,)``."""
        pooled = history_shares(len(liked)) @ self.embedding[liked.item_row]
        standard = (CONTRACT.numeric.scaled(numeric) - self.mean) / self.scale
        hidden = np.maximum(self.hidden_weight @ np.concatenate([pooled, standard]) + self.hidden_bias, 0.0)
        out = self.out_weight @ hidden + self.out_bias
        return (out / max(float(np.linalg.norm(out)), 1e-12)).astype(np.float32)


@dataclass(frozen=True, slots=True, eq=False)
class IndexTables:
    """What is known of the item index beside the vectors in it."""

    tower_digest: NDArray[np.uint8]  # (32,): ``UserTower.digest`` of the tower that its vectors were trained with


class Index(Protocol):
    """The part of a FAISS index that retrieval needs."""

    def search(self, x: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]: ...


@dataclass(frozen=True, slots=True)
class TwoTower(Personal):
    """The ``depth`` items nearest to the user.

    FAISS answers -1 where it found fewer items than asked, which are dropped here; rows it should not know are dropped
    by the filters. Raises ``BadAnswer`` when FAISS fails.
    """

    tower: UserTower
    index: Index
    positive_stars: float
    depth: int
    name: str = "two_tower"

    def propose(self, request: Request, user: UserFeatures) -> Candidates:
        del request
        liked = user.history.only(positive(user.history, self.positive_stars)).latest(MAX_HISTORY)
        if not len(liked):
            return Candidates.none()
        try:
            scores, rows = self.index.search(self.tower.vector(liked, user.numeric)[None], self.depth)
        except (RuntimeError, AssertionError) as error:  # what FAISS raises, in C++ and in its wrapper
            raise BadAnswer(f"{self.name}: FAISS cannot search") from error
        found = rows[0] >= 0
        return Candidates.proposed(rows[0][found].astype(np.int32), scores[0][found])
