"""Where the counts of what was shown lie in Redis: one hash a UTC day by item, one for the totals.

Written by the workers, read by whoever reports. Items are named by their external ids.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields

DAY = 86_400.0
DAYS = 7
KEPT_SECONDS = round((DAYS + 1) * DAY)


@dataclass(frozen=True, slots=True)
class Totals:
    """Sums over slates. Promised places are a share, so they are told in thousandths."""

    slates: int = 0
    places: int = 0
    promised_thousandths: int = 0
    delivered: int = 0  # places that groups had which were owed some
    lost: int = 0  # slates that could not be counted

    @property
    def promised(self) -> float:
        return self.promised_thousandths / 1000

    def plus(self, other: Totals) -> Totals:
        return Totals(*(getattr(self, part.name) + getattr(other, part.name) for part in fields(self)))

    def minus(self, other: Totals) -> Totals:
        return Totals(*(getattr(self, part.name) - getattr(other, part.name) for part in fields(self)))

    @classmethod
    def read(cls, raw: Mapping[bytes, bytes]) -> Totals:
        return cls(**{part.name: int(raw.get(part.name.encode(), 0)) for part in fields(cls)})

    def fields(self) -> dict[str, int]:
        """What is not zero, as Redis is told it."""
        return {name: value for name, value in asdict(self).items() if value}


def items_key(day: int) -> str:
    """Item id -> impressions; ``day`` is days since 1970, UTC."""
    return f"streamrec:exposure:items:{day}"


def totals_key(day: int) -> str:
    return f"streamrec:exposure:totals:{day}"


CAMPAIGNS_KEY = "streamrec:exposure:campaigns"
"""Campaign -> impressions in all, which budgets are held against. Never expires."""
