"""How much of the truth the index finds: live queries kept as they pass, and compared with an exact search later.

Off the path of a request: a search costs one append more.
"""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Any

import faiss
import numpy as np
from numpy.typing import NDArray

from domain.arrays import Floats
from retrieval.flat import search

KEPT_QUERIES = 16
BLOCK = 8192  # vectors rebuilt at once: 2 MB at 64 columns


@dataclass(slots=True, eq=False)
class SampledIndex:
    """A FAISS index that remembers what it was asked last."""

    index: Any = field(repr=False)
    queries: deque[Floats] = field(default_factory=lambda: deque(maxlen=KEPT_QUERIES), repr=False)
    depth: int = 0  # of the last search

    def search(self, x: Floats, k: int) -> tuple[Floats, NDArray[np.int64]]:
        """``(q, k)`` scores and rows, best first; a row of -1, or none, where there are no more."""
        self.queries.append(x[0])
        self.depth = k
        return search(self.index, x, k)

    def recall(self, k: int) -> float:
        """Share of the exact ``k`` best that the index finds, over the queries kept; NaN without any. Slow."""
        asked = list(self.queries)
        if not asked:
            return float("nan")
        queries = np.stack(asked)
        k = min(k, int(self.index.ntotal))
        _, found = self.index.search(queries, k)
        exact = exact_rows(self.index, queries, k)
        hits = sum(len(np.intersect1d(a, b)) for a, b in zip(found, exact, strict=True))
        return hits / exact.size


def exact_rows(index: Any, queries: Floats, k: int) -> NDArray[np.int64]:
    """``(q, k)``: the rows of the greatest inner products with ``queries`` ``(q, d)``, of everything in the index.

    An inverted index is asked to look into each of its lists; any other gives its vectors back, a block at a time.
    """
    if isinstance(index, faiss.IndexIVF):
        everything = faiss.SearchParametersIVF(nprobe=index.nlist)  # type: ignore[call-arg]  # its stubs lag
        rows: NDArray[np.int64] = index.search(queries, k, params=everything)[1]
        return rows
    scores = np.concatenate(
        [
            queries @ index.reconstruct_n(start, min(BLOCK, index.ntotal - start)).T
            for start in range(0, index.ntotal, BLOCK)
        ],
        axis=1,
    )
    return np.argsort(-scores, axis=1, kind="stable")[:, :k]
