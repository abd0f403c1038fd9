"""The best first, by sorting whole numbers.

A stable ``argsort`` of a few thousand scores costs several times what sorting as many whole numbers does, which numpy
does with the processor's vector instructions. So score and row become one number, whose order is that of the bits of a
non-negative float.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Floats, Rows
from domain.compiled import column, compiled, float32, int32, int64, pair, written


def lowest(keys: NDArray[np.int64], k: int) -> NDArray[np.int64]:
    """The ``k`` lowest of the keys, ascending; the array given is used up."""
    if k < len(keys):
        keys.partition(k)
        keys = keys[:k]
    keys.sort()
    return keys


def best_of_keys(keys: NDArray[np.int64], k: int) -> tuple[Rows, Floats]:
    """Rows (or whatever the low halves hold) and scores of the ``k`` best, best first; of equal scores the lower row.

    A key holds 0x7FFF_FFFF minus the bits of a score above zero, and in its low half the row. The keys are used up.
    """
    return _unpacked(lowest(keys, k))


@compiled(pair(written(int32), written(float32)), column(int64))
def _unpacked(keys: NDArray[np.int64]) -> tuple[Rows, Floats]:
    rows, bits = np.empty(len(keys), np.int32), np.empty(len(keys), np.int32)
    for at in range(len(keys)):
        rows[at] = keys[at] & 0x7FFF_FFFF
        bits[at] = 0x7FFF_FFFF - (keys[at] >> 32)
    return rows, bits.view(np.float32)
