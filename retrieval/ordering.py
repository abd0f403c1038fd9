"""Sorting whole numbers with their positions.

A stable ``argsort`` of a few thousand numbers costs several times what sorting the numbers themselves does, which numpy
does with the processor's vector instructions. So the position rides along in the low bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Floats, Mask

POSITION_BITS = 24
_POSITION = (1 << POSITION_BITS) - 1


def sorted_positions(key: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """``(n,)`` the stable order of ``key`` ascending, and the keys in it; they lie in [0, 2**39), n is below 2**24."""
    packed = key << POSITION_BITS | np.arange(len(key))
    packed.sort()
    return packed & _POSITION, packed >> POSITION_BITS


def best_first(score: Floats, sure: Mask | None = None, k: int | None = None) -> NDArray[np.int64]:
    """``(n,)`` positions of non-negative scores, highest first, ties in order; before all others those who are sure.

    With ``k`` only the first ``k`` of them. The bits of non-negative floats order as the floats do.
    """
    key = 0x7FFF_FFFF - score.view(np.int32).astype(np.int64)
    if sure is not None:
        key |= (~sure).astype(np.int64) << 31
    packed = key << POSITION_BITS | np.arange(len(key))
    if k is not None and k < len(packed):
        packed.partition(k)
        packed = packed[:k]
    packed.sort()
    return packed & _POSITION
