"""The column types, and a draw from rows."""

from __future__ import annotations

import random
from typing import TypeAlias

import numpy as np
from numpy.typing import NDArray

Rows: TypeAlias = NDArray[np.int32]
"""Rows of this bundle's item table. They never leave the request: outside, items are known by their external ids."""

Codes: TypeAlias = NDArray[np.int32]
Floats: TypeAlias = NDArray[np.float32]
Seconds: TypeAlias = NDArray[np.float64]
Mask: TypeAlias = NDArray[np.bool_]

NO_ROWS: Rows = np.empty(0, np.int32)
NO_ROWS.flags.writeable = False


def drawn(rows: Rows, n: int, seed: int) -> Rows:
    """``n`` of ``rows`` without repeats, in their order, or all if there are no more; others for every seed."""
    return rows if len(rows) <= n else rows[sorted(random.Random(seed).sample(range(len(rows)), n))]
