"""What a user did: one event, its bytes in the log, and what makes bytes no event.

The log may hold what others wrote, so everything the door checks is checked again when an event is read.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, TypeAlias, cast, get_args

import orjson

from domain.request import MAX_ID_BYTES

Kind: TypeAlias = Literal["impression", "click", "play", "completion", "like", "rating"]
KINDS: tuple[Kind, ...] = get_args(Kind)

MAX_EVENT_BYTES = 4096
MAX_STARS = 5.0

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")


class PoisonError(ValueError):
    """Bytes that are no event. ``reason`` is one word or two joined by ``_``, fit for a metric's label."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that one user did with one item. ``event_id`` names it: the same id again is the same event."""

    event_id: str
    user_id: str
    item_id: str
    kind: Kind
    timestamp: float  # UTC seconds on the wall clock
    rating: float | None = None  # stars, with kind "rating" only
    arms: Mapping[str, str] | None = None  # experiment layer -> arm; no part of the user's state

    @property
    def is_recent(self) -> bool:
        """Whether it enters the user's last events: an impression is what we did, not what the user did."""
        return self.kind != "impression"


def encode(event: Event) -> bytes:
    """The event as it stands in the log: one JSON object."""
    fields: dict[str, Any] = {
        "event_id": event.event_id,
        "user_id": event.user_id,
        "item_id": event.item_id,
        "kind": event.kind,
        "timestamp": event.timestamp,
    }
    fields |= {} if event.rating is None else {"rating": event.rating}
    return orjson.dumps(fields | {"arms": dict(event.arms)} if event.arms else fields)


def decode(raw: bytes) -> Event:
    """The event in the log's bytes; raises ``PoisonError``. Fields nobody knows are left alone: a newer door's."""
    if len(raw) > MAX_EVENT_BYTES:
        raise PoisonError("too_large")
    try:
        fields = orjson.loads(raw)
    except ValueError:
        raise PoisonError("not_json") from None
    if not isinstance(fields, dict):
        raise PoisonError("not_an_object")
    return _event(fields)


def _event(fields: Mapping[str, object]) -> Event:
    kind = fields.get("kind")
    if not isinstance(kind, str) or kind not in KINDS:
        raise PoisonError("unknown_kind")
    return Event(
        event_id=_id(fields, "event_id"),
        user_id=_id(fields, "user_id"),
        item_id=_id(fields, "item_id"),
        kind=kind,
        timestamp=_timestamp(fields.get("timestamp")),
        rating=_rating(fields.get("rating"), kind),
        arms=_arms(fields.get("arms")),
    )


def _id(fields: Mapping[str, object], name: str) -> str:
    value = fields.get(name)
    if not isinstance(value, str) or not is_id(value):
        raise PoisonError(f"bad_{name}")
    return value


def is_id(text: str) -> bool:
    """Whether the text is an id as the door takes it: 1 to 256 bytes of UTF-8 without control characters."""
    return 0 < len(text.encode("utf-8", "surrogatepass")) <= MAX_ID_BYTES and not _CONTROL.search(text)


def _arms(value: object) -> Mapping[str, str] | None:
    """Who writes something else there spoils no event by it."""
    whole = isinstance(value, dict) and all(isinstance(arm, str) for arm in value.values())
    return cast("Mapping[str, str]", value) if whole and value else None


def _timestamp(value: object) -> float:
    seconds = number(value)
    if seconds is None or seconds < 0:
        raise PoisonError("bad_timestamp")
    return seconds


def _rating(value: object, kind: str) -> float | None:
    stars = number(value)
    if kind != "rating":
        if value is not None:
            raise PoisonError("unexpected_rating")
        return None
    if stars is None or not 0 <= stars <= MAX_STARS:
        raise PoisonError("bad_rating")
    return stars


def number(value: object) -> float | None:
    """A finite JSON number as float; None for everything else, true and false included."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)
