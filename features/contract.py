"""The feature contract: what every number means, once.

Training, the Feast repository, the online reader, the bundle and the rankers take names, order, widths and defaults
from here; the contract's hash is stored with everything produced under it, and a mismatch refuses to start. Each name
carries its unit, because a value in another unit often still lies in range. An absolute time is never a feature.
"""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import asdict, dataclass
from functools import cached_property
from typing import Any, Literal

import numpy as np

from domain.arrays import Floats

GENRE_SLOTS = 24
"""Genre columns have a fixed width, so the contract does not depend on a dataset; the bundle names the slots."""

HOUR = 3600.0
DAY = 24 * HOUR

Scale = Literal["identity", "log1p"]


@dataclass(frozen=True, slots=True)
class Feature:
    """One float32 feature, ``width`` columns wide. Stored and transported raw; ``scale`` is applied by ``encode``."""

    name: str
    unit: str
    low: float
    high: float
    default: float
    description: str
    nullable: bool = False
    width: int = 1
    scale: Scale = "identity"
    freshness_seconds: float = DAY  # older than this is told as stale, the value is kept
    max_age_seconds: float = 90 * DAY  # older than this becomes the default

    def __post_init__(self) -> None:
        if not (self.low <= self.default <= self.high and math.isfinite(self.high - self.low)):
            raise ValueError(f"{self.name}: default {self.default} outside [{self.low}, {self.high}]")


@dataclass(frozen=True, slots=True)
class Category:
    """One int32 code. Code 0 is unknown: missing, or a value the contract does not list."""

    name: str
    values: tuple[str, ...]
    description: str

    def code(self, value: str | None) -> int:
        return self.values.index(value) + 1 if value in self.values else 0


USER = (
    Feature("user_events_total_count", "count", 0, 1e7, 0, "Events of the user, ever", scale="log1p"),
    Feature("user_events_7d_count", "count", 0, 1e6, 0, "Events in the last 7 days", scale="log1p"),
    Feature("user_events_30d_count", "count", 0, 1e6, 0, "Events in the last 30 days", scale="log1p"),
    Feature("user_rating_mean_stars", "stars", 0, 5, 3.5, "Mean rating given", nullable=True),
    Feature("user_rating_mean_30d_stars", "stars", 0, 5, 3.5, "Mean rating given in the last 30 days", nullable=True),
    Feature("user_rating_std_stars", "stars", 0, 5, 1.0, "Standard deviation of the ratings given", nullable=True),
    Feature("user_positive_ratio", "ratio", 0, 1, 0.5, "Share of events that are positive", nullable=True),
    Feature(
        "user_item_age_mean_years", "years", -5, 200, 15,
        "Mean age of the items of the user's events", nullable=True,
    ),
    Feature("user_item_age_std_years", "years", 0, 200, 12, "Standard deviation of that age", nullable=True),
    Feature(
        "user_item_popularity_mean_log_count", "log count", 0, 25, 4,
        "Mean over the user's events of log(1 + events of the item)", nullable=True,
    ),
    Feature(
        "user_genre_taste_ratio", "ratio", 0, 1, 0,
        "Share of the positive events in each genre slot", width=GENRE_SLOTS,
    ),
    Feature(
        "user_genre_recent_ratio", "ratio", 0, 1, 0,
        "Share of the last 20 events in each genre slot", width=GENRE_SLOTS,
    ),
)  # fmt: skip

SESSION = (
    Feature("session_events_count", "count", 0, 50, 0, "Events of the session so far", scale="log1p"),
    Feature(
        "session_length_seconds", "seconds", 0, 1e6, 0,
        "From the first event of the session to the last", scale="log1p",
    ),
    Feature(
        "session_genre_ratio", "ratio", 0, 1, 0,
        "Share of the session's events in each genre slot", width=GENRE_SLOTS,
    ),
)  # fmt: skip

MOMENT = (
    Feature(
        "user_since_last_event_hours", "hours", 0, 1e6, 1e4,
        "Hours from the last event to the request", scale="log1p",
    ),
)  # fmt: skip

CONTEXT = (
    Category("context_device", ("tv", "phone", "tablet", "desktop"), "Where the slate is shown"),
    Category("context_surface", ("home", "detail", "search"), "The page that shows it"),
    Category("context_hour", tuple(str(hour) for hour in range(24)), "Hour of the day of the request, UTC"),
    Category("context_weekday", tuple(str(day) for day in range(7)), "Weekday of the request, UTC, Monday is 0"),
)

ITEM = (
    Feature("item_age_years", "years", -5, 200, 15, "Years from release to the bundle", nullable=True),
    Feature("item_events_total_count", "count", 0, 1e9, 0, "Events of the item, ever", scale="log1p"),
    Feature(
        "item_popularity_decayed_count", "count", 0, 1e9, 0,
        "Events of the item, one a year ago counting half", scale="log1p",
    ),
    Feature("item_events_365d_count", "count", 0, 1e9, 0, "Events in the last 365 days of the data", scale="log1p"),
    Feature(
        "item_rating_mean_stars", "stars", 0, 5, 3.5,
        "Mean rating received, shrunk to the mean of all", nullable=True,
    ),
    Feature(
        "item_positive_ratio", "ratio", 0, 1, 0.5,
        "Share of positive events, shrunk to the share of all", nullable=True,
    ),
    Feature("item_genres_count", "count", 0, GENRE_SLOTS, 0, "Number of genres"),
    Feature("item_genre_flag", "flag", 0, 1, 0, "One for each genre slot the item has", width=GENRE_SLOTS),
)  # fmt: skip


@dataclass(frozen=True)
class Columns:
    """An ordered group of features and where each one's columns lie."""

    features: tuple[Feature, ...]

    @cached_property
    def width(self) -> int:
        return sum(feature.width for feature in self.features)

    @cached_property
    def slices(self) -> dict[str, slice]:
        spans, start = {}, 0
        for feature in self.features:
            spans[feature.name] = slice(start, start + feature.width)
            start += feature.width
        return spans

    def _spread(self, value: str) -> Floats:
        widths = [feature.width for feature in self.features]
        return np.repeat(np.array([getattr(feature, value) for feature in self.features], np.float32), widths)

    @cached_property
    def defaults(self) -> Floats:
        return self._spread("default")

    @cached_property
    def low(self) -> Floats:
        return self._spread("low")

    @cached_property
    def high(self) -> Floats:
        return self._spread("high")

    @cached_property
    def is_log(self) -> np.ndarray[tuple[int], np.dtype[np.bool_]]:
        return np.repeat([f.scale == "log1p" for f in self.features], [f.width for f in self.features])

    def scaled(self, raw: Floats) -> Floats:
        """``(..., width)`` raw values as the models see them: counts and spans on a log scale."""
        return np.where(self.is_log, np.log1p(np.maximum(raw, 0)), raw).astype(np.float32)


@dataclass(frozen=True)
class Contract:
    """All features, in order. ``numeric`` of a user is ``user``, then ``session``, then ``moment``.

    ``user`` is computed by the batch step and stored; ``session`` and ``moment`` are computed at the request, from the
    latest events and from the time of the last.
    """

    user: Columns
    session: Columns
    moment: Columns
    item: Columns
    context: tuple[Category, ...]

    @cached_property
    def numeric(self) -> Columns:
        return Columns(self.user.features + self.session.features + self.moment.features)

    @cached_property
    def hash(self) -> str:
        """Sixteen hex digits over everything that gives a number its meaning."""
        return hashlib.sha256(json.dumps(self.document(), sort_keys=True).encode()).hexdigest()[:16]

    def document(self) -> dict[str, list[dict[str, Any]]]:
        """The whole contract in JSON's types, to be kept with whatever was made under it."""
        groups = {"user": self.user, "session": self.session, "moment": self.moment, "item": self.item}
        numeric = {name: [asdict(feature) for feature in group.features] for name, group in groups.items()}
        context = [{**asdict(category), "values": list(category.values)} for category in self.context]
        return {**numeric, "context": context}


CONTRACT = Contract(Columns(USER), Columns(SESSION), Columns(MOMENT), Columns(ITEM), CONTEXT)
