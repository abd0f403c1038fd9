"""How often each value of each feature was met: one way of counting, for the reference and for what is served.

Some features move with time alone. Hours since the last event grow while nothing happens, a session ends half an hour
after its last event, the hour of the day goes round. So a request is counted with its *age* (seconds from the user's
last event) and its *phase* (the quarter of an hour of the week), and what is served is compared with what the same
ages and phases looked like in training, not with a mean over all of them.
"""

from __future__ import annotations

from dataclasses import dataclass, fields

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Codes, Floats, Seconds
from domain.clock import Clock, ReplayClock
from features.contract import CONTRACT, DAY, Contract

Counts = NDArray[np.int64]

PHASE_SECONDS = 900.0
PHASES = round(7 * DAY / PHASE_SECONDS)
FIRST_MONDAY = 4 * DAY  # 1970-01-05 00:00 UTC


@dataclass(frozen=True, slots=True, eq=False)
class FeatureCounts:
    """Requests, counted: ``S`` ages, ``U`` columns in ``B`` bins, ``F`` features, ``C`` codes of all categories."""

    ages: Counts  # (S,)
    phases: Counts  # (PHASES,)
    bins: Counts  # (U, B)
    defaults: Counts  # (F,): every column of the feature was at its default
    codes: Counts  # (C,): see ``code_spans``
    reads: Counts  # (2,): reads of a user that should be in the store, and how many of them found a whole row

    def add(self, other: FeatureCounts) -> None:
        for part in fields(self):
            getattr(self, part.name)[...] += getattr(other, part.name)

    @property
    def requests(self) -> int:
        return int(self.ages.sum())

    def packed(self) -> bytes:
        """All columns end to end, as little-endian uint32: how they lie in Redis."""
        return b"".join(getattr(self, part.name).astype("<u4").tobytes() for part in fields(self))


@dataclass(frozen=True, slots=True, eq=False)
class Bins:
    """Where the values are cut. Column ``u`` falls into bin ``np.searchsorted(edges[u], value)``, an age likewise."""

    edges: Floats  # (U, b), ascending, filled up with infinity
    ages: Seconds  # (S - 1,), ascending
    contract: Contract = CONTRACT

    def none(self) -> FeatureCounts:
        """Nothing counted yet."""
        columns, cuts = self.edges.shape
        return FeatureCounts(
            ages=np.zeros(len(self.ages) + 1, np.int64),
            phases=np.zeros(PHASES, np.int64),
            bins=np.zeros((columns, cuts + 1), np.int64),
            defaults=np.zeros(len(self.contract.numeric.features), np.int64),
            codes=np.zeros(sum(len(category.values) + 1 for category in self.contract.context), np.int64),
            reads=np.zeros(2, np.int64),
        )

    def count(self, numeric: Floats, codes: Codes, age: Seconds, phase: int) -> FeatureCounts:
        """``n`` requests of one phase: raw ``numeric`` ``(n, U)``, ``codes`` ``(n, K)``, ``age`` ``(n,)`` seconds."""
        counted = self.none()
        columns, width = counted.bins.shape
        place = np.tile(np.arange(columns) * width, (len(numeric), 1))
        for edge in self.edges.T:  # a dozen passes over the rows are cheaper than one over rows x edges
            place += numeric > edge
        counted.bins[...] = np.bincount(place.ravel(), minlength=columns * width).reshape(columns, width)
        counted.ages[...] = np.bincount(np.searchsorted(self.ages, age), minlength=len(counted.ages))
        counted.phases[phase] = len(age)
        group = self.contract.numeric
        starts = [span.start for span in group.slices.values()]
        counted.defaults[...] = np.logical_and.reduceat(numeric == group.defaults, starts, axis=1).sum(axis=0)
        for column, span in zip(codes.T, code_spans(self.contract).values(), strict=True):
            size = span.stop - span.start
            counted.codes[span] = np.bincount(np.clip(column, 0, size - 1), minlength=size)
        return counted

    def unpacked(self, raw: bytes) -> FeatureCounts:
        """The counterpart of ``FeatureCounts.packed``; raises ``ValueError`` if they were counted in other bins."""
        counted, flat, start = self.none(), np.frombuffer(raw, "<u4"), 0
        for part in fields(counted):
            column = getattr(counted, part.name)
            column[...] = flat[start : start + column.size].reshape(column.shape)
            start += column.size
        if start != len(flat):
            raise ValueError("these counts are of another shape")
        return counted


def code_spans(contract: Contract) -> dict[str, slice]:
    """Where each category's codes lie among all; the first of them is code 0, unknown."""
    spans, start = {}, 0
    for category in contract.context:
        spans[category.name] = slice(start, start + len(category.values) + 1)
        start = spans[category.name].stop
    return spans


def phase(wall: float, clock: Clock) -> int:
    """Which quarter of an hour of the week it is, on the data's clock, when the wall clock says ``wall``.

    Live, from Monday 00:00 UTC. Under replay every user has a week of their own, so it is counted from the publication,
    to the nearest quarter; the reference knows where in the week each user stopped.
    """
    if isinstance(clock, ReplayClock):
        return round(max(0.0, wall - clock.published_at) / PHASE_SECONDS) % PHASES
    return int((wall - FIRST_MONDAY) // PHASE_SECONDS) % PHASES


def counts_key(bundle: str, hour: int) -> str:
    """The Redis hash of one wall-clock hour (hours since the epoch): a field a worker, its value ``packed`` counts."""
    return f"streamrec:feature_counts:{bundle}:{hour}"
