"""What may not be shown, whoever proposes it."""

from __future__ import annotations

import numpy as np

from domain.arrays import Mask, Rows
from domain.candidates import Candidates


def allowed(eligible: Mask, *blocked: Rows) -> Mask:
    """``(items,)``: the eligible items, without those seen or excluded."""
    keep = np.array(eligible)
    for rows in blocked:
        keep[rows] = False
    return keep


def sound(candidates: Candidates, keep: Mask) -> Candidates:
    """One source's answer without rows that are out of range (an index may be newer or broken, and says -1 for
    nothing), not allowed, or repeated; the order stays.
    """
    rows = candidates.item_row
    inside = (rows >= 0) & (rows < len(keep))
    inside[inside] = keep[rows[inside]]
    left = candidates.take(inside)
    _, first = np.unique(left.item_row, return_index=True)
    return left if len(first) == len(left) else left.take(np.sort(first))
