"""What is known about the user at the moment of the request."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import StrEnum

import numpy as np

from domain.arrays import NO_ROWS, Codes, Floats, Rows, Seconds
from domain.catalogue import History


class Freshness(StrEnum):
    """Where the features came from."""

    FRESH = "fresh"  # the online store, within its limits
    STALE = "stale"  # this process's last good read, the bundle's batch features, or a store past its limits
    NEW = "new"  # nobody knows this user: the contract's defaults, or what the request itself carried


@dataclass(frozen=True, slots=True, eq=False)
class Shown:
    """What the user was shown lately, aligned ``(n,)``; an item may be there more than once."""

    item_row: Rows
    age_seconds: Seconds

    @classmethod
    def nothing(cls) -> Shown:
        return cls(NO_ROWS, np.empty(0, np.float64))


@dataclass(frozen=True, slots=True, eq=False)
class UserFeatures:
    """One user at one moment. Columns are in the contract's order, filled by name; no absolute time is a feature."""

    row: int  # in the bundle's users; -1 when unknown
    numeric: Floats  # (U,) raw values, every one finite
    codes: Codes  # (K,) index into the contract's categories; 0 is unknown
    history: History  # bundle, online recents and the request's own, oldest first
    as_of: float  # the watermark of the batch features, UTC seconds
    freshness: Freshness
    reason: str | None = None  # why it is not fresh, as ``features.cause``
    shown: Shown = field(default_factory=Shown.nothing)
    promoted: Mapping[str, int] = field(default_factory=dict)  # campaign -> how often it was shown to them today

    @property
    def seen(self) -> Rows:
        """What must not come back: every item of the history (may repeat)."""
        return self.history.item_row
