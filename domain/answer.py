"""What leaves the request: external ids and plain values only."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from domain.degradation import DegradationLevel
from domain.explanation import Inside


@dataclass
class Item:
    """One place of the slate, never changed. ``rule`` names the re-ranking rule that put it there, if one did.

    Neither frozen nor with slots, for there are twenty in an answer: frozen costs four times as much to make, and
    with slots orjson takes five times as long to write.
    """

    item_id: str
    title: str
    score: float
    sources: tuple[str, ...]
    rule: str | None


@dataclass(frozen=True, slots=True)
class Answer:
    """The slate and how good it is.

    ``timing`` is in seconds, by stage; ``proposed`` counts each source's candidates, ``ranked`` those that were put
    in order.
    """

    request_id: str
    bundle: str
    items: tuple[Item, ...]
    level: DegradationLevel
    reasons: tuple[str, ...]
    timing: Mapping[str, float]
    proposed: Mapping[str, int]
    ranked: int
    cursor: str | None = None  # asks for the next page
    arms: Mapping[str, str] = field(default_factory=dict)  # experiment layer -> arm
    inside: Inside | None = None  # under debug
    promoted: Mapping[str, int] = field(
        default_factory=dict
    )  # campaign -> places it has, whatever rule moved them since
    asked_ranker: bool = True  # False: the order is that of the merge, for a user without any event
