"""Minimum exposure: a share of the places for groups that are owed some, and for new items."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Codes, Floats, Rows
from domain.compiled import column, compiled, float32, float64, int32, int64, pair, written
from domain.slate import Positions, Slate


@dataclass(frozen=True, slots=True)
class MinimumExposure:
    """``quota.share`` of the places show items of groups that are owed something.

    What the slate shows of them anyway counts. For each place missing a group is drawn by what it is owed, and its best
    candidate rises to a place of the slate from ``first_share`` of it on, evenly spread; the last items that nobody is
    owed leave for it. A share that is no whole number of places is rounded up or down by the seed, so that it holds on
    average. At most ``most_share`` of the places are given, and nothing goes down by more places than that. Where no
    candidate of an owed group is left, the places stay as they were.
    """

    first_share: float = 0.5
    most_share: float = 0.5
    name: str = "exposure"

    def __post_init__(self) -> None:
        if not (0.0 <= self.first_share < 1.0 and 0.0 <= self.most_share <= 1.0):
            raise ValueError("first_share must be from 0 to below 1, most_share from 0 to 1")

    def apply(self, slate: Slate) -> Slate:
        quota = slate.context.quota
        if quota is None or not len(slate.candidates):
            return slate
        free, places, rows = slate.free, slate.open_places, slate.candidates.item_row
        shown = min(slate.limit, len(rows))
        promised = min(quota.share, self.most_share) * shown
        there, replaceable, owed = _standing(quota.group, quota.owed, rows, free, places, shown)
        most = min(math.ceil(promised) - there, len(replaceable))
        if most <= 0 or not len(owed):
            return slate
        draws = random.Random(slate.context.seed)
        missing = min(int(promised + draws.random()) - there, most)
        if missing <= 0:
            return slate
        owed.sort()
        found = _drawn(owed, quota.owed, np.array([draws.random() for _ in range(missing)]))
        found.sort()
        first = min(int(self.first_share * places), places - len(found))
        order = _raised(free, places, found, replaceable[len(replaceable) - len(found) :], first)
        return slate.arranged(order, self.name, rows[free[found + places]])


@compiled(
    pair(int64, written(int64), written(int64)),
    *(column(int32), column(float32), column(int32), column(int64), int64, int64),
)
def _standing(
    group: Codes, owed: Floats, rows: Rows, free: Positions, places: int, shown: int
) -> tuple[int, Positions, NDArray[np.int64]]:
    """How many of the ``shown`` are owed; those of the free ``places`` that are not; and who of the reserve is.

    The last are told as ``group << 32 | position`` in the reserve: sorted, the first of each group comes first.
    """
    there, free_places, reserve = 0, 0, 0
    replaceable, key = np.empty(places, np.int64), np.empty(len(free), np.int64)
    for at in range(shown):
        code = group[rows[at]]
        there += code >= 0 and owed[code] > 0
    for at in range(len(free)):
        code = group[rows[free[at]]]
        is_owed = code >= 0 and owed[code] > 0
        if at < places and not is_owed:
            replaceable[free_places] = at
            free_places += 1
        if at >= places and is_owed:
            key[reserve] = np.int64(code) << 32 | (at - places)
            reserve += 1
    return there, replaceable[:free_places], key[:reserve]


@compiled(written(int64), column(int64), column(float32), column(float64))
def _drawn(key: NDArray[np.int64], owed: Floats, draw: NDArray[np.float64]) -> Positions:
    """At most one position a ``draw``, from 0 to 1: the first left of a group that is drawn by what each is owed."""
    found, left = np.empty(min(len(draw), len(key)), np.int64), np.ones(len(key), np.bool_)
    first, weight = np.empty(len(key), np.int64), np.empty(len(key), np.float64)  # by group; the weights added up
    for taken in range(len(found)):
        groups, total, last = 0, 0.0, -1
        for at in range(len(key)):
            if left[at] and key[at] >> 32 != last:
                last = key[at] >> 32
                total += owed[last]
                first[groups], weight[groups] = at, total
                groups += 1
        drawn = 0
        while drawn < groups - 1 and weight[drawn] <= draw[taken] * total:
            drawn += 1
        left[first[drawn]] = False
        found[taken] = key[first[drawn]] & 0xFFFF_FFFF
    return found


@compiled(written(int64), column(int64), int64, column(int64), column(int64), int64)
def _raised(free: Positions, places: int, found: Positions, out: Positions, first: int) -> Positions:
    """``free``, the ``found`` of the reserve evenly over the places from ``first`` on, and ``out`` behind the places.

    The places are distinct, since there are at least as many from ``first`` on as were found.
    """
    order, n = np.empty(len(free), np.int64), len(found)
    stays = rose = gone = 0
    for place in range(places):
        if rose < n and place == first + (rose + 1) * (places - first) // (n + 1):
            order[place] = free[places + found[rose]]
            rose += 1
            continue
        while gone < n and out[gone] == stays:
            stays += 1
            gone += 1
        order[place] = free[stays]
        stays += 1
    for nth in range(n):
        order[places + nth] = free[out[nth]]
    behind, back = places + n, 0
    for at in range(len(free) - places):
        if back < n and found[back] == at:
            back += 1
        else:
            order[behind] = free[places + at]
            behind += 1
    return order
