"""What may not be shown, whoever proposes it."""

from __future__ import annotations

import numpy as np

from domain.arrays import Mask, Rows


def allowed(eligible: Mask, *blocked: Rows) -> Mask:
    """``(items,)``: the eligible items, without those seen or excluded."""
    keep = np.array(eligible)
    for rows in blocked:
        keep[rows] = False
    return keep
