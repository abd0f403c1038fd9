"""What the re-ranking rules work on: candidates in the order they would be shown."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Mask, Rows
from domain.candidates import Candidates


@dataclass(frozen=True, slots=True, eq=False)
class Campaign:
    """Items that somebody pays to show, at the slots named; one item a slot."""

    name: str
    item_row: Rows
    slots: tuple[int, ...]  # positions in the slate, 0 is the first
    starts_at: float  # UTC seconds on the wall clock: campaigns are sold in real time, whatever the data's clock
    ends_at: float

    def active(self, now: float) -> bool:
        return self.starts_at <= now < self.ends_at


@dataclass(frozen=True, slots=True, eq=False)
class SlateContext:
    """Everything a rule may need to know, frozen before the first rule runs."""

    now: float  # UTC seconds on the wall clock
    genres: Mask  # (items, G), indexed by item row
    campaigns: tuple[Campaign, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Slate:
    """Candidates, best first; the first ``limit`` are shown, the rest are the reserve a rule may draw on."""

    candidates: Candidates
    limit: int
    context: SlateContext
    moved: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))  # item row -> rule that placed it

    def reordered(self, positions: NDArray[np.intp], rule: str, placed: Rows) -> Slate:
        """The candidates at ``positions``, with ``placed`` rows attributed to ``rule``."""
        moved = {**self.moved, **dict.fromkeys(placed.tolist(), rule)}
        return replace(self, candidates=self.candidates.take(positions), moved=MappingProxyType(moved))

    @property
    def shown(self) -> Candidates:
        """The slate itself: the first ``limit`` candidates."""
        return self.candidates.take(slice(self.limit))
