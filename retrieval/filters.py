"""What may not be shown, whoever proposes it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np

from domain.arrays import Mask, Rows


def allowed(eligible: Mask, *blocked: Rows) -> Mask:
    """``(items,)``: the eligible items, without those seen or excluded."""
    keep = np.array(eligible)
    for rows in blocked:
        keep[rows] = False
    return keep


@dataclass(frozen=True, slots=True, eq=False)
class Offer:
    """``allowed`` for one event loop, without a copy of a column as long as the catalogue for each request."""

    keep: Mask  # (items,): the eligible items; a scratch of its own

    @classmethod
    def of(cls, eligible: Mask) -> Offer:
        return cls(np.array(eligible))

    @contextmanager
    def without(self, *blocked: Rows) -> Iterator[Mask]:
        """``(items,)``: the eligible items without those seen or excluded, inside the block; await nothing there."""
        rows = np.concatenate(blocked)
        before = self.keep[rows]
        self.keep[rows] = False
        try:
            yield self.keep
        finally:
            self.keep[rows] = before
