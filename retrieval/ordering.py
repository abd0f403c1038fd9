"""Sorting whole numbers with their positions.

A stable ``argsort`` of a few thousand numbers costs several times what sorting the numbers themselves does, which numpy
does with the processor's vector instructions. So the position rides along in the low bits.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Floats, Mask, Rows
from domain.compiled import bool_, column, compiled, float32, int32, int64, pair, written

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
    packed = lowest(_packed(score, _NOBODY if sure is None else sure), len(score) if k is None else k)
    packed &= _POSITION
    return packed


def lowest(keys: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The ``k`` lowest of the keys, ascending; the array given is used up."""
    if k < len(keys):
        keys.partition(k)
        keys = keys[:k]
    keys.sort()
    return keys


def best_of_keys(keys: NDArray[np.int64], k: int) -> tuple[Rows, Floats]:
    """Rows and scores of the ``k`` best, best first, ties by row; the keys are used up.

    A key holds 0x7FFF_FFFF minus the bits of a score above zero, and in its low half the row.
    """
    return _unpacked(lowest(keys, k))


_NOBODY: Mask = np.empty(0, np.bool_)


@compiled(written(int64), column(float32), column(bool_))
def _packed(score: Floats, sure: Mask) -> NDArray[np.int64]:
    """``(n,)``: who is not sure, if anybody is told to be; the score, upside down; the position."""
    bits, packed = score.view(np.int32), np.empty(len(score), np.int64)
    for at in range(len(score)):
        packed[at] = (0x7FFF_FFFF - np.int64(bits[at])) << POSITION_BITS | at
    for at in range(len(sure)):
        packed[at] |= np.int64(not sure[at]) << (31 + POSITION_BITS)
    return packed


@compiled(pair(written(int32), written(float32)), column(int64))
def _unpacked(keys: NDArray[np.int64]) -> tuple[Rows, Floats]:
    rows, bits = np.empty(len(keys), np.int32), np.empty(len(keys), np.int32)
    for at in range(len(keys)):
        rows[at] = keys[at] & 0x7FFF_FFFF
        bits[at] = 0x7FFF_FFFF - (keys[at] >> 32)
    return rows, bits.view(np.float32)
