"""How good an answer is, and why it is not better."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum


class DegradationLevel(IntEnum):
    """From best to worst; an answer carries the worst level it touched."""

    FULL = 0
    PARTIAL_RETRIEVAL = 1
    STALE_FEATURES = 2
    SIMPLE_RANKING = 3
    BATCH_LIST = 4
    POPULAR = 5


@dataclass(slots=True)
class Degradation:
    """The steps one request took down the ladder. Reasons are ``part.cause``, such as ``ranking.timeout``."""

    level: DegradationLevel = DegradationLevel.FULL
    reasons: list[str] = field(default_factory=list)

    def step(self, level: DegradationLevel, reason: str) -> None:
        """Go down to ``level``, unless already lower, and say why."""
        self.level = max(self.level, level)
        self.note(reason)

    def note(self, reason: str) -> None:
        """Tell something about the answer that does not lower its level."""
        if reason not in self.reasons:
            self.reasons.append(reason)
