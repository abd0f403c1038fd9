"""The best of a flat FAISS index. All its scores are there sooner than it has kept the best thousand of nine."""

from __future__ import annotations

from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from domain.arrays import Floats
from domain.compiled import column, compiled, float32, int64, pair, written
from retrieval.ordering import lowest

FLAT_SHARE = 32
"""Up to so many vectors for each that is wanted it pays to take all scores; beyond, to let the index keep the best."""


def search(index: Any, x: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
    """``(q, k)`` scores and rows as ``index.search``, best first; a row of -1, or none, where there are no more.

    Of equal scores the higher row comes first, as FAISS has it; the lowest of them fall out where not all have room,
    which it leaves to chance.
    """
    if len(x) == 1 and isinstance(index, faiss.IndexFlatIP) and k <= index.ntotal <= FLAT_SHARE * k:
        _, scores, rows = index.range_search(x, -np.inf)
        score, row = _found(lowest(_keys(scores), k), scores, rows)
        return score[None], row[None]
    found: tuple[Floats, NDArray[np.int64]] = index.search(x, k)
    return found


@compiled(written(int64), column(float32))
def _keys(scores: Floats) -> NDArray[np.int64]:
    """``(n,)``: the lowest belongs to the highest score; in the low half the position, from the end."""
    bits, keys = scores.view(np.int32), np.empty(len(scores), np.int64)
    for at in range(len(scores)):
        magnitude = np.int64(bits[at]) & 0x7FFF_FFFF
        keys[at] = (magnitude if bits[at] < 0 else -magnitude) << 32 | (0xFFFF_FFFF - at)
    return keys


@compiled(pair(written(float32), written(int64)), column(int64), column(float32), column(int64))
def _found(keys: NDArray[np.int64], scores: Floats, rows: NDArray[np.int64]) -> tuple[Floats, NDArray[np.int64]]:
    score, row = np.empty(len(keys), np.float32), np.empty(len(keys), np.int64)
    for at in range(len(keys)):
        position = 0xFFFF_FFFF - (keys[at] & 0xFFFF_FFFF)
        score[at], row[at] = scores[position], rows[position]
    return score, row
