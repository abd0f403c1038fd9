"""What the re-ranking rules work on: candidates in the order they would be shown."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from domain.arrays import NO_ROWS, Codes, Floats, Mask, Rows
from domain.candidates import Candidates
from domain.catalogue import Facets
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

    def drawn(self, n: int, seed: int) -> Rows:
        """At most ``n`` of the items to be tried out, others for every seed."""
        if len(self.explore) <= n:
            return self.explore
        return self.explore[np.unique(np.random.default_rng(seed).integers(0, len(self.explore), n))]


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
    moved: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))  # item row -> rule that placed it
    pinned: tuple[int, ...] = ()  # places, ascending
    promoted: Mapping[int, str] = field(default_factory=lambda: MappingProxyType({}))  # item row -> its campaign

    @property
    def free(self) -> Positions:
        """Positions of the candidates that are not pinned, in order."""
        every = np.arange(len(self.candidates))
        return np.delete(every, self.pinned) if self.pinned else every

    @property
    def open_places(self) -> int:
        """How many of the free candidates are shown."""
        shown = min(self.limit, len(self.candidates))
        return shown - sum(place < shown for place in self.pinned)

    def arranged(self, order: Positions, rule: str, placed: Rows) -> Slate:
        """The free candidates in a new ``order`` of their positions, ``placed`` rows attributed to ``rule``."""
        positions = _woven(order, self.pinned, np.array(self.pinned, np.intp)) if self.pinned else order
        moved = {**self.moved, **dict.fromkeys(placed.tolist(), rule)}
        return replace(self, candidates=self.candidates.take(positions), moved=MappingProxyType(moved))

    def with_pins(self, wanted: Mapping[int, int], rule: str) -> Slate:
        """The candidates at the positions ``wanted[place]`` pinned to those places; neither may be pinned yet."""
        pins = {place: place for place in self.pinned} | dict(wanted)
        places = tuple(sorted(pins))
        positions = np.array([pins[place] for place in places], np.intp)
        rest = np.delete(np.arange(len(self.candidates)), positions)
        rows = self.candidates.item_row[list(wanted.values())]
        moved = {**self.moved, **dict.fromkeys(rows.tolist(), rule)}
        taken = self.candidates.take(_woven(rest, places, positions))
        return replace(self, candidates=taken, moved=MappingProxyType(moved), pinned=places)

    def promoted_for(self, campaign: str, rows: Rows) -> Slate:
        """The same slate, with ``rows`` on the account of the campaign, or of the one that promoted them before."""
        promoted = {**dict.fromkeys(rows.tolist(), campaign), **self.promoted}
        return replace(self, promoted=MappingProxyType(promoted))

    def kept(self, mask: Mask) -> Slate:
        """Without the candidates where ``mask`` ``(n,)`` is false; the reserve moves up, pins stay where they are."""
        pins = [place for place in self.pinned if mask[place]]
        rest = np.setdiff1d(np.flatnonzero(mask), pins)
        last = len(rest) + len(pins)
        places = tuple(min(place, last - len(pins) + at) for at, place in enumerate(pins))
        positions = _woven(rest, places, np.array(pins, np.intp))
        return replace(self, candidates=self.candidates.take(positions), pinned=places)

    @property
    def shown(self) -> Candidates:
        """The slate itself: the first ``limit`` candidates."""
        return self.candidates.take(slice(self.limit))


def _woven(rest: Positions, places: tuple[int, ...], positions: Positions) -> Positions:
    """``rest`` in its order, with ``positions[i]`` standing at ``places[i]``, ascending."""
    return np.insert(rest, np.array(places, np.intp) - np.arange(len(places)), positions)
