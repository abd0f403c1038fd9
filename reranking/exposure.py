"""Minimum exposure: a share of the places for groups that are owed some, and for new items."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.arrays import Codes, Floats
from domain.slate import ExposureQuota, Positions, Slate


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
        free, places = slate.free, slate.open_places
        group, draw = _owed_group(quota, slate), np.random.default_rng(slate.context.seed)
        shown = min(slate.limit, len(group))
        promised = int(min(quota.share, self.most_share) * shown + draw.random())
        replaceable = np.flatnonzero(group[free[:places]] < 0)
        missing = min(promised - int((group[:shown] >= 0).sum()), len(replaceable))
        found = _chosen(group[free[places:]], quota.owed, missing, draw)
        if not len(found):
            return slate
        risen, out = found + places, replaceable[len(replaceable) - len(found) :]
        stay = np.delete(np.arange(places), out)
        at = self._places(places, len(risen))
        first = np.insert(stay, at - np.arange(len(at)), risen)
        order = np.concatenate([first, out, np.delete(np.arange(places, len(free)), found)])
        return slate.arranged(free[order], self.name, slate.candidates.item_row[free[risen]])

    def _places(self, places: int, n: int) -> Positions:
        """``n`` distinct places, evenly from ``first_share`` of ``places`` on, or from higher up where they are few."""
        first = min(int(self.first_share * places), places - n)
        return (first + (np.arange(1, n + 1) * (places - first)) // (n + 1)).astype(np.intp)


def _owed_group(quota: ExposureQuota, slate: Slate) -> Codes:
    """``(n,)``: the group of each candidate, -1 where it is in none or its group is owed nothing."""
    group = quota.group[slate.candidates.item_row]
    owed = np.append(quota.owed > 0, False)
    return np.where(owed[group], group, -1).astype(np.int32)


def _chosen(group: Codes, owed: Floats, n: int, draw: np.random.Generator) -> Positions:
    """At most ``n`` positions in ``group``, ascending: the first of each group, groups drawn by what they are owed."""
    left = group.copy()
    chosen: list[int] = []
    for _ in range(n):
        there = np.unique(left[left >= 0])
        if not len(there):
            break
        weight = np.cumsum(owed[there].astype(np.float64))
        drawn = there[min(int(np.searchsorted(weight, draw.random() * weight[-1], "right")), len(there) - 1)]
        at = int((left == drawn).argmax())
        left[at] = -1
        chosen.append(at)
    return np.array(sorted(chosen), np.intp)
