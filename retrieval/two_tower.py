"""Two-tower retrieval: a user vector made from the current history, and the nearest item vectors in FAISS."""

from __future__ import annotations

import hashlib
import math
from dataclasses import dataclass, fields
from functools import cache
from typing import Protocol

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Floats, Rows
from domain.candidates import Candidates
from domain.catalogue import History
from domain.compiled import column, compiled, float32, int32, int64, pair, written
from domain.errors import BadAnswer
from domain.request import Request
from domain.user import UserFeatures
from features.contract import CONTRACT
from retrieval.computed import Personal
from retrieval.likes import latest_likes

MAX_HISTORY = 100


def history_shares(h: int) -> Floats:
    """``(h,)``, summing to one: how much each of the latest likes, oldest first, weighs in their mean."""
    weight = 1.0 / np.sqrt(1.0 + np.arange(h - 1, -1, -1, dtype=np.float32))
    return (weight / weight.sum()).astype(np.float32)


_shares = cache(history_shares)  # for those who only read them


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
        return self.vector_of(liked.item_row, numeric)

    def vector_of(self, liked: Rows, numeric: Floats) -> Floats:
        """The same for the rows of the latest likes, oldest first."""
        pooled = _shares(len(liked)) @ self.embedding.take(liked, axis=0)
        standard = (CONTRACT.numeric.scaled(numeric) - self.mean) / self.scale
        hidden = self.hidden_weight @ np.concatenate([pooled, standard])
        hidden += self.hidden_bias
        out: Floats = self.out_weight @ np.maximum(hidden, 0.0, out=hidden)
        out += self.out_bias
        out /= max(math.sqrt(out.dot(out)), 1e-12)
        return out


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
        liked = latest_likes(user.history, self.positive_stars, MAX_HISTORY)
        if not len(liked):
            return Candidates.none()
        try:
            scores, rows = self.index.search(self.tower.vector_of(liked, user.numeric)[None], self.depth)
        except (RuntimeError, AssertionError) as error:  # what FAISS raises, in C++ and in its wrapper
            raise BadAnswer(f"{self.name}: FAISS cannot search") from error
        return Candidates.proposed(*_found(rows[0], scores[0]))


@compiled(pair(written(int32), written(float32)), column(int64), column(float32))
def _found(rows: NDArray[np.int64], scores: Floats) -> tuple[Rows, Floats]:
    """The answer without its -1."""
    item_row, score, n = np.empty(len(rows), np.int32), np.empty(len(rows), np.float32), 0
    for at in range(len(rows)):
        item_row[n], score[n] = rows[at], scores[at]
        n += rows[at] >= 0
    return item_row[:n], score[:n]
