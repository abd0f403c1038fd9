"""What the re-ranking rules work on: candidates in the order they would be shown."""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from domain.arrays import NO_ROWS, Codes, Floats, Mask, Rows
from domain.candidates import Candidates
from domain.catalogue import Facets
from domain.compiled import column, compiled, int32, int64, pair, written
from domain.user import Shown

Positions = NDArray[np.intp]

MANY = 1_000_000_000


@dataclass(frozen=True, slots=True)
class Spent:
    """Impressions of a campaign that are counted already."""

    in_all: int = 0
    on_user_today: int = 0


@dataclass(frozen=True, slots=True, eq=False)
class Campaign:
    """Items that somebody pays to show: at the slots named, one item a slot, or lifted by ``boost``."""

    name: str
    item_row: Rows
    slots: tuple[int, ...]  # positions in the slate, 0 is the first
    starts_at: float  # UTC seconds on the wall clock: campaigns are sold in real time, whatever the data's clock
    ends_at: float
    boost: float = 0.0  # added to the relevance, 0 to 1, of those items that got no slot, for the order only
    daily_cap: int | None = None  # impressions a user and UTC day
    budget: int | None = None  # impressions in all

    def active(self, now: float) -> bool:
        return self.starts_at <= now < self.ends_at

    def left(self, now: float, spent: Spent) -> int:
        """How many impressions it may still make on this user; 0 when it does not run."""
        if not self.active(now):
            return 0
        budget = MANY if self.budget is None else self.budget - spent.in_all
        cap = MANY if self.daily_cap is None else self.daily_cap - spent.on_user_today
        return max(0, min(budget, cap))


def impressions_left(campaigns: Iterable[Campaign], now: float, spent: Mapping[str, Spent]) -> dict[str, int]:
    """What each may still show to the user whose ``spent`` it is."""
    return {campaign.name: campaign.left(now, spent.get(campaign.name, Spent())) for campaign in campaigns}


@dataclass(frozen=True, slots=True)
class Audience:
    """Who looks: what may be shown to them at all. None: no limit."""

    max_age_rating: float | None = None  # years
    region: str | None = None


@dataclass(frozen=True, slots=True, eq=False)
class ExposureQuota:
    """Which share of the places is promised to whom."""

    share: float  # of the places of a slate, 0 to 1
    group: Codes  # (items,): the group each item belongs to, -1 for none
    owed: Floats  # (groups,): how much each is owed beside the others; 0: nothing
    explore: Rows = field(default_factory=lambda: NO_ROWS)  # items to be tried out, which no source may propose


@dataclass(frozen=True, slots=True, eq=False)
class SlateContext:
    """Everything a rule may need to know, frozen before the first rule runs. Columns are indexed by item row."""

    now: float  # UTC seconds on the wall clock
    genres: Mask  # (items, G)
    campaigns: tuple[Campaign, ...] = ()
    spent: Mapping[str, Spent] = field(default_factory=lambda: MappingProxyType({}))  # campaign -> what was shown
    moment: float | None = None  # UTC seconds on the clock of the data
    seed: int = 0
    vectors: Floats | None = None  # (items, d) of any length: alike vectors are alike items
    removed: Mask | None = None  # (items,)
    facets: Facets | None = None
    audience: Audience = Audience()
    quota: ExposureQuota | None = None
    shown: Shown = field(default_factory=Shown.nothing)  # to this user, lately


@dataclass(frozen=True, slots=True, eq=False)
class Slate:
    """Candidates, best first; the first ``limit`` are shown, the rest are the reserve a rule may draw on.

    A pinned place keeps its candidate whatever later rules do: they order the free ones, and these are woven around the
    pins. Only a drop takes a pinned candidate away.
    """

    candidates: Candidates
    limit: int
    context: SlateContext
    moved: Mapping[int, str] = field(default_factory=dict)  # item row -> rule that placed it
    pinned: tuple[int, ...] = ()  # places, ascending
    promoted: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))  # item row -> its campaign

    @property
    def free(self) -> Positions:
        """Positions of the candidates that are not pinned, in order."""
        n = len(self.candidates)
        return _others(n, np.array(self.pinned, np.intp)) if self.pinned else np.arange(n)

    @property
    def open_places(self) -> int:
        """How many of the free candidates are shown."""
        shown = min(self.limit, len(self.candidates))
        return shown - bisect_left(self.pinned, shown)

    def arranged(self, order: Positions, rule: str, placed: Rows) -> Slate:
        """The free candidates in a new ``order`` of their positions, ``placed`` rows attributed to ``rule``."""
        if self.pinned:
            pins = np.array(self.pinned, np.intp)
            order = _woven(order, pins, pins)
        return self._taken(order, self._moved(placed, rule), self.pinned)

    def ordered(self, first: Positions, rule: str) -> Slate:
        """The free candidates at ``first`` before the other free ones in order; it counts among the free alone.

        No position may be in ``first`` twice. What of it came up is attributed to ``rule``; where nothing did, it is
        the same slate.
        """
        order, risen = _ordered(first, self.free, self.candidates.item_row)
        return self.arranged(order, rule, risen) if len(risen) else self

    def with_pins(self, wanted: Mapping[int, int], rule: str) -> Slate:
        """The candidates at the positions ``wanted[place]`` pinned to those places; neither may be pinned yet."""
        pins = {place: place for place in self.pinned} | dict(wanted)
        places = tuple(sorted(pins))
        positions = np.array([pins[place] for place in places], np.intp)
        rest = _others(len(self.candidates), positions)
        moved = self._moved(self.candidates.item_row[list(wanted.values())], rule)
        return self._taken(_woven(rest, np.array(places, np.intp), positions), moved, places)

    def promoted_for(self, campaign: str, rows: Rows) -> Slate:
        """The same slate, with ``rows`` on the account of the campaign, or of the one that promoted them before."""
        promoted = {**dict.fromkeys(rows.tolist(), campaign), **self.promoted}
        return replace(self, promoted=MappingProxyType(promoted))

    def kept(self, mask: Mask) -> Slate:
        """Without the candidates where ``mask`` ``(n,)`` is false; the reserve moves up, pins stay where they are."""
        positions = np.flatnonzero(mask)
        if not self.pinned:
            return self._taken(positions, self.moved, ())
        pins = np.array([place for place in self.pinned if mask[place]], np.intp)
        rest = np.setdiff1d(positions, pins, assume_unique=True)
        places = np.minimum(pins, len(rest) + np.arange(len(pins)))
        return self._taken(_woven(rest, places, pins), self.moved, tuple(places.tolist()))

    def _moved(self, placed: Rows, rule: str) -> Mapping[int, str]:
        return {**self.moved, **dict.fromkeys(placed.tolist(), rule)}

    def _taken(self, positions: Positions, moved: Mapping[int, str], pinned: tuple[int, ...]) -> Slate:
        """The candidates at ``positions``, in that order."""
        return Slate(self.candidates.take(positions), self.limit, self.context, moved, pinned, self.promoted)

    @property
    def shown(self) -> Candidates:
        """The slate itself: the first ``limit`` candidates."""
        return self.candidates.take(slice(self.limit))


@compiled(written(int64), int64, column(int64))
def _others(n: int, positions: Positions) -> Positions:
    """Of the positions below ``n`` all others, ascending."""
    left = np.ones(n, np.bool_)
    for position in positions:
        left[position] = False
    return np.flatnonzero(left)


@compiled(written(int64), column(int64), column(int64), column(int64))
def _woven(rest: Positions, places: Positions, positions: Positions) -> Positions:
    """``rest`` in its order, with ``positions[i]`` standing at ``places[i]``, ascending."""
    woven = np.empty(len(rest) + len(places), np.int64)
    put = 0
    for place in range(len(woven)):
        if put < len(places) and places[put] == place:
            woven[place] = positions[put]
            put += 1
        else:
            woven[place] = rest[place - put]
    return woven


@compiled(pair(written(int64), written(int32)), column(int64), column(int64), column(int32))
def _ordered(first: Positions, free: Positions, item_row: Rows) -> tuple[Positions, Rows]:
    """``free[first]`` and after them the rest of ``free`` in order, and the rows that came up among the free."""
    order, left = np.empty(len(free), np.int64), np.ones(len(free), np.bool_)
    risen, rose = np.empty(len(first), np.int32), 0
    for place in range(len(first)):
        left[first[place]] = False
        order[place] = free[first[place]]
        if first[place] > place:
            risen[rose] = item_row[order[place]]
            rose += 1
    place = len(first)
    for at in range(len(free)):
        if left[at]:
            order[place] = free[at]
            place += 1
    return order, risen[:rose]
