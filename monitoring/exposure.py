"""What was shown lately, to how many items and groups: promised beside delivered, and the controller in between.

Everything is computed from counts by item, so that groups may be cut anew at any time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import redis.asyncio as aioredis
import redis.exceptions

from domain.arrays import Floats, Mask
from domain.catalogue import IdTable
from domain.slate import ExposureQuota
from features.online import mapped
from reranking.groups import Groups
from reranking.ledger import DAYS, Totals, items_key, totals_key

COVERAGE_TARGET = 0.95
EQUITY_FLOOR = 0.25  # a group with less than a quarter of its share of the catalogue is owed places
UNSEEN_WEIGHT = 1.2  # of what nobody was shown this week, beside 1 for all owed groups (``benchmarks.exploration``)
FEW_PLACES = 200  # below so many, a share delivered says nothing
FIELDS_AT_ONCE = 2048  # of a day's hash


@dataclass(frozen=True, slots=True, eq=False)
class Counted:
    """Impressions of the last ``DAYS`` days by item row, and what was promised and delivered."""

    shown: Floats  # (items,)
    totals: Totals


@dataclass(frozen=True, slots=True)
class GroupExposure:
    """One group. ``equity``: its share of impressions by its share of the catalogue; NaN without impressions."""

    name: str
    items: int
    shown: int
    equity: float


@dataclass(frozen=True, slots=True)
class ExposureReport:
    """How exposure is spread. Ratios are NaN before anything was shown."""

    slates: int
    places: int
    promised_ratio: float
    delivered_ratio: float
    lost: int  # slates that were not counted
    coverage_ratio: float  # of the items that may be shown, those shown at least once
    gini: float  # 0: every item equally often, 1: one item alone
    groups: tuple[GroupExposure, ...]  # worst first

    @property
    def worst_equity(self) -> float:
        return self.groups[0].equity if self.groups else float("nan")

    @property
    def kept(self) -> bool:
        """Whether the promise is kept, to a tenth of it; true while there is too little to tell."""
        return self.places < FEW_PLACES or self.delivered_ratio >= 0.9 * self.promised_ratio


def report(counted: Counted, groups: Groups, eligible: Mask) -> ExposureReport:
    """The week, over the items that may be shown at all."""
    totals, shown = counted.totals, counted.shown[eligible]
    fair = equity(counted.shown, groups, eligible)
    sizes = np.bincount(groups.code[eligible & (groups.code >= 0)], minlength=len(groups.names))
    of_group = _by_group(counted.shown, groups, eligible)
    lines = [
        GroupExposure(name, int(sizes[at]), int(of_group[at]), float(fair[at]))
        for at, name in enumerate(groups.names)
        if sizes[at]
    ]
    places = max(1, totals.places)
    return ExposureReport(
        totals.slates,
        totals.places,
        totals.promised / places if totals.places else float("nan"),
        totals.delivered / places if totals.places else float("nan"),
        totals.lost,
        float((shown > 0).mean()) if len(shown) else float("nan"),
        gini(shown),
        tuple(sorted(lines, key=lambda line: (line.equity, line.name))),
    )


def equity(shown: Floats, groups: Groups, eligible: Mask) -> Floats:
    """``(groups,)``: the share of impressions by the share of the catalogue; NaN without either."""
    impressions = _by_group(shown, groups, eligible)
    sizes = np.bincount(groups.code[eligible & (groups.code >= 0)], minlength=len(groups.names)).astype(np.float64)
    if not impressions.sum() or not sizes.sum():
        return np.full(len(groups.names), np.nan, np.float32)
    with np.errstate(invalid="ignore"):
        return ((impressions / impressions.sum()) / (sizes / sizes.sum())).astype(np.float32)


def _by_group(shown: Floats, groups: Groups, eligible: Mask) -> Floats:
    inside = eligible & (groups.code >= 0)
    return np.bincount(groups.code[inside], weights=shown[inside], minlength=len(groups.names)).astype(np.float32)


def gini(counts: Floats) -> float:
    """C. Gini's coefficient of the counts ``(n,)``; NaN where nothing was counted."""
    n, total = len(counts), float(counts.sum())
    if not total:
        return float("nan")
    ranked = np.sort(counts).astype(np.float64)
    return float((2.0 * (np.arange(1, n + 1) * ranked).sum() / (n * total)) - (n + 1) / n)


def quota_of(share: float, shown: Floats, groups: Groups, eligible: Mask) -> ExposureQuota:
    """Who is owed places of that ``share``: groups below ``EQUITY_FLOOR``, new items, and what nobody was shown.

    Items without an impression this week are a group of their own while coverage is below its target. A group is owed
    in proportion to the impressions it lacks up to there.
    """
    fair = np.nan_to_num(equity(shown, groups, eligible), nan=0.0)
    short = groups.sizes * np.maximum(0.0, EQUITY_FLOOR - fair)
    owed = (short / max(float(short.sum()), 1e-12)).astype(np.float32)
    group, unseen = groups.code.copy(), eligible & (shown == 0)
    covered = 1.0 - unseen.sum() / max(1, int(eligible.sum()))
    group[unseen] = len(groups.names)
    weight = UNSEEN_WEIGHT if covered < COVERAGE_TARGET and shown.any() else 0.0
    if not weight:
        group[unseen] = groups.code[unseen]
    explore = np.flatnonzero(unseen).astype(np.int32) if weight else np.empty(0, np.int32)
    return ExposureQuota(share, group, np.append(owed, np.float32(weight)), explore)


@dataclass(frozen=True, slots=True)
class Gains:
    """Of the controller, a step each; the share asked for is at least the promise and at most ``most``."""

    proportional: float = 0.4
    integral: float = 0.2
    derivative: float = 0.0
    most: float = 0.25


@dataclass(frozen=True, slots=True)
class ControlState:
    """What the controller remembers: the sum of errors, and the last one."""

    integral: float = 0.0
    error: float = 0.0


def step(
    promised: float, delivered: float, state: ControlState = ControlState(), gains: Gains = Gains()
) -> tuple[float, ControlState]:
    """The share to ask of the rule so that ``delivered`` comes to ``promised``, and the state for the next step.

    PID around the promise itself. Delivery falls short where slates are made without rules, or have no candidate of an
    owed group; where users like those groups anyway it goes beyond, and each slate is still promised its share. While
    the share asked for is at its bound and the error would push it further, errors are not summed up, so that it comes
    back at once when delivery does.
    """
    error = promised - delivered
    total = state.integral + error
    wanted = promised + gains.proportional * error + gains.integral * total
    wanted += gains.derivative * (error - state.error)
    share = min(max(wanted, promised), max(gains.most, promised))
    winding = share != wanted and (wanted - share) * error > 0
    return share, ControlState(state.integral if winding else total, error)


async def read_counts(client: aioredis.Redis, ids: IdTable, today: int, days: int = DAYS) -> Counted:
    """The last ``days`` days (UTC; ``today`` is days since 1970) by row; raises ``DependencyError``.

    Items that this bundle does not know are left out of ``shown``. Workers read this while they serve, so a large hash
    holds up neither Redis nor the event loop: it comes in parts, which are decoded in a thread.
    """
    shown, totals = np.zeros(len(ids), np.float32), Totals()
    try:
        for day in range(today - days + 1, today + 1):
            shown += await _shown_on(client, ids, day)
            summed: Any = await client.hgetall(totals_key(day))  # bytes: the client decodes nothing
            totals = totals.plus(Totals.read(summed))
    except redis.exceptions.RedisError as error:
        raise mapped(error) from error
    return Counted(shown, totals)


async def _shown_on(client: aioredis.Redis, ids: IdTable, day: int) -> Floats:
    shown, cursor = np.zeros(len(ids), np.float32), 0
    by_item: Any
    while True:
        cursor, by_item = await client.hscan(items_key(day), cursor, count=FIELDS_AT_ONCE)
        await asyncio.to_thread(_note, shown, ids, by_item)
        if cursor == 0:
            return shown


def _note(shown: Floats, ids: IdTable, by_item: Mapping[bytes, bytes]) -> None:
    """A scan may give a field twice, so counts are set and not added."""
    rows = ids.rows([item_id.decode() for item_id in by_item])
    counts = np.array([int(count) for count in by_item.values()], np.float32)
    shown[rows[rows >= 0]] = counts[rows >= 0]
