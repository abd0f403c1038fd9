"""The population stability index: how far one histogram lies from another.

``sum over bins of (observed - expected) * ln(observed / expected)``, in shares. By the custom of credit scoring, where
it comes from, under 0.10 is the same population, 0.25 and more another one. Chance alone gives about
``(bins - 1) / n``: 0.02 for 12 bins and 500 requests.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

WARN = 0.10
ALERT = 0.25
FLOOR = 1e-3
"""Added to every share: a bin that is empty on one side is a finite difference, and one request in it a small one."""

Shares = NDArray[np.float64]


def shares(counts: NDArray[Any]) -> Shares:
    """``(..., B)`` counts as shares of their last axis; zeros where nothing was counted."""
    total = counts.sum(axis=-1, keepdims=True)
    return np.divide(counts, total, out=np.zeros(counts.shape), where=total > 0)


def psi(expected: Shares, observed: Shares) -> Shares:
    """``(...)``: the index over the last axis of shares ``(..., B)``."""
    wanted, found = expected + FLOOR, observed + FLOOR
    return ((found - wanted) * np.log(found / wanted)).sum(axis=-1)
