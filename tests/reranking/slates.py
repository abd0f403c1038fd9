"""A slate of ten items, best first, under any context."""

from __future__ import annotations

from typing import Any

import numpy as np

from domain.candidates import Candidates
from domain.catalogue import Facets
from domain.slate import Slate, SlateContext

N = 10


def slate(limit: int = 5, n: int = N, **context: Any) -> Slate:
    candidates = Candidates.proposed(np.arange(n, dtype=np.int32), np.linspace(1, 0, n, dtype=np.float32))
    return Slate(candidates, limit, SlateContext(**{"now": 0.0, "genres": np.zeros((n, 2), np.bool_), **context}))


def facets(**columns: Any) -> Facets:
    nothing = {
        "creator": np.full(N, -1, np.int32),
        "creator_names": (),
        "language": np.full(N, -1, np.int32),
        "language_names": (),
        "age_rating": np.full(N, np.nan, np.float32),
        "rated": "age_rating" in columns,
        "regions": np.zeros((N, 0), np.bool_),
        "region_names": (),
        "published_at": np.full(N, np.nan),
    }
    return Facets(**{**nothing, **columns})


def shown(after: Slate) -> list[int]:
    rows: list[int] = after.shown.item_row.tolist()
    return rows
