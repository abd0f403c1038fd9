"""Why a slate is as it is: the funnel, and the way of single items through it. Places and ranks count from 0."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum


class Step(StrEnum):
    """How far an item came."""

    SHOWN = "shown"
    DISPLACED = "displaced"  # ranked among the first, and moved out of the slate by the rule in ``reason``
    BELOW_THE_SLATE = "below_the_slate"  # ranked, not among the first
    DROPPED = "dropped"  # ranked, and taken out by the rule in ``reason``
    BELOW_THE_CUT = "below_the_cut"  # proposed, and not among the candidates that were ranked
    FILTERED = "filtered"  # ``reason``: seen, excluded (by the request or its cursor), audience or removed
    NOT_RETRIEVED = "not_retrieved"  # no source proposed it
    NOT_ON_THE_LIST = "not_on_the_list"  # the slate is precomputed, without it
    UNKNOWN = "unknown"  # this bundle has no such item


@dataclass(frozen=True, slots=True)
class Funnel:
    """How many items were left after each stage."""

    sources: Mapping[str, int]  # proposed by each
    merged: int  # different ones among them
    filtered: int  # of those, what may be shown to this user
    added: int  # ranked though no source proposed them: campaigns, items to be tried out
    ranked: int
    slate: int


@dataclass(frozen=True, slots=True)
class Proposal:
    """One source's opinion of an item: its place in the source's own order, and the source's own score."""

    source: str
    rank: int
    score: float


@dataclass(frozen=True, slots=True)
class Move:
    """A rule changed the item's place; ``after`` is None where it dropped the item."""

    rule: str
    before: int
    after: int | None


@dataclass(frozen=True, slots=True)
class Explained:
    """One item's way. What it never came to is None or empty."""

    item_id: str
    title: str
    step: Step
    reason: str | None
    sources: tuple[Proposal, ...] = ()
    ranker_score: float | None = None
    ranked_place: int | None = None  # in the ranker's order
    moves: tuple[Move, ...] = ()  # in the order of the rules
    place: int | None = None  # in the slate


@dataclass(frozen=True, slots=True)
class Inside:
    """What ``debug`` tells: the funnel, each shown item in order, and the one item that was asked about."""

    funnel: Funnel
    items: tuple[Explained, ...]
    asked: Explained | None = None
