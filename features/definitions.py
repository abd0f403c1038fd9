"""Each feature, computed in one place for training, batch and serving.

Everything here is a pure function of events strictly before a moment; the caller cuts the history.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np

from domain.arrays import Codes, Floats, Mask, Seconds
from domain.catalogue import History
from domain.request import Context
from features.contract import CONTRACT, DAY, HOUR

RECENT_EVENTS = 20
SESSION_EVENTS = 50  # what the stream keeps of a user, and so the longest session that can be told
SESSION_GAP_SECONDS = 1800.0  # this long without an event ends a session
SHRINKAGE_EVENTS = 20.0
POPULARITY_HALF_LIFE = 365 * DAY
YEAR_SECONDS = 365.25 * DAY


@dataclass(frozen=True, slots=True, eq=False)
class ItemFacts:
    """What the user features need to know of the items, aligned with the item table: ``(n,)`` and ``(n, G)``."""

    year: Floats  # NaN where unknown
    genres: Mask
    events_total: Floats  # events of each item
    positive_stars: float  # a rating of this and more is positive


def before(history: History, moment: float) -> History:
    """The events in strictly earlier seconds than ``moment``: an event of the same second is the future."""
    end = int(np.searchsorted(history.timestamp, math.floor(moment), side="left"))
    return History(history.item_row[:end], history.rating[:end], history.timestamp[:end])


def calendar_year(moment: float) -> float:
    """A moment as a year with its fraction."""
    return 1970.0 + moment / YEAR_SECONDS


def positive(history: History, positive_stars: float) -> Mask:
    """``(h,)``: which events are positive; an event without a rating counts as one."""
    return np.isnan(history.rating) | (history.rating >= positive_stars)


def _genre_ratio(genres: Mask, rows: np.ndarray[tuple[int], np.dtype[np.int32]]) -> Floats:
    counts = genres[rows].sum(axis=0, dtype=np.float32)
    total = counts.sum()
    return counts / total if total else counts


def user_features(history: History, moment: float, items: ItemFacts) -> Floats:
    """``(U,)`` stored user features at ``moment``, in the contract's order; defaults for want of events."""
    columns = CONTRACT.user
    row = columns.defaults.copy()
    past = before(history, moment)
    if not len(past):
        return row
    liked = positive(past, items.positive_stars)
    month = past.timestamp >= moment - 30 * DAY
    rated, lately = (part[~np.isnan(part)] for part in (past.rating, past.rating[month]))
    age = calendar_year(moment) - items.year[past.item_row]
    age = age[~np.isnan(age)]
    values: dict[str, float | Floats] = {
        "user_events_total_count": len(past),
        "user_events_7d_count": int((past.timestamp >= moment - 7 * DAY).sum()),
        "user_events_30d_count": int(month.sum()),
        "user_positive_ratio": float(liked.mean()),
        "user_item_popularity_mean_log_count": float(np.log1p(items.events_total[past.item_row]).mean()),
        "user_genre_taste_ratio": _genre_ratio(items.genres, past.item_row[liked]),
        "user_genre_recent_ratio": _genre_ratio(items.genres, past.item_row[-RECENT_EVENTS:]),
    }
    if len(rated):
        values |= {"user_rating_mean_stars": float(rated.mean()), "user_rating_std_stars": float(rated.std())}
    if len(lately):
        values["user_rating_mean_30d_stars"] = float(lately.mean())
    if len(age):
        values |= {"user_item_age_mean_years": float(age.mean()), "user_item_age_std_years": float(age.std())}
    for name, value in values.items():
        row[columns.slices[name]] = value
    return np.clip(row, columns.low, columns.high)


def session_features(history: History, moment: float, items: ItemFacts) -> Floats:
    """``(S,)`` features of the session that is going on at ``moment``; defaults when the last one has ended.

    A function of the last ``SESSION_EVENTS`` events alone, so that the stream need keep no more than those.
    """
    columns = CONTRACT.session
    row = columns.defaults.copy()
    latest = before(history, moment).latest(SESSION_EVENTS)
    if not len(latest) or moment - latest.timestamp[-1] > SESSION_GAP_SECONDS:
        return row
    breaks = np.flatnonzero(np.diff(latest.timestamp) > SESSION_GAP_SECONDS)
    session = latest.latest(len(latest) - (int(breaks[-1]) + 1 if len(breaks) else 0))
    values = {
        "session_events_count": len(session),
        "session_length_seconds": session.timestamp[-1] - session.timestamp[0],
        "session_genre_ratio": _genre_ratio(items.genres, session.item_row),
    }
    for name, value in values.items():
        row[columns.slices[name]] = value
    return np.clip(row, columns.low, columns.high)


def numeric_features(history: History, moment: float, items: ItemFacts) -> Floats:
    """``(U,)`` everything numeric about a user at ``moment``, in the contract's order."""
    return np.concatenate([user_features(history, moment, items), request_features(history, moment, items)])


def request_features(history: History, moment: float, items: ItemFacts) -> Floats:
    """The part of it that is computed at the request: session and moment."""
    last = before(history, moment).last_event
    return np.concatenate([session_features(history, moment, items), moment_features(last, moment)])


def moment_features(last_event: float | None, moment: float) -> Floats:
    """``(M,)`` features that only the request can know, in the contract's order."""
    columns = CONTRACT.moment
    if last_event is None:
        return columns.defaults.copy()
    hours = np.float32((moment - last_event) / HOUR)
    return np.clip(np.full(1, hours, np.float32), columns.low, columns.high)


def context_codes(context: Context, moment: float) -> Codes:
    """``(K,)`` category codes of the request, in the contract's order."""
    at = datetime.fromtimestamp(moment, UTC)
    values = {
        "context_device": context.device,
        "context_surface": context.surface,
        "context_hour": str(at.hour),
        "context_weekday": str(at.weekday()),
    }
    return np.array([category.code(values[category.name]) for category in CONTRACT.context], np.int32)


def item_features(events: History, positive_stars: float, year: Floats, genres: Mask, moment: float) -> Floats:
    """``(n, I)`` item features from all ``events`` before ``moment``, in the contract's order.

    ``year`` is ``(n,)`` with NaN where unknown, ``genres`` ``(n, G)``. Means are shrunk toward the mean over all events
    by ``SHRINKAGE_EVENTS`` pseudo-events, so that one five-star rating does not make a masterpiece.
    """
    n = len(year)
    columns = CONTRACT.item
    past = before(events, moment)
    recent = past.timestamp >= moment - 365 * DAY
    rated = ~np.isnan(past.rating)
    liked = positive(past, positive_stars)
    table = np.tile(columns.defaults, (n, 1))

    def count(rows: np.ndarray[tuple[int], np.dtype[np.int32]], weight: Floats | Seconds | None = None) -> Floats:
        return np.bincount(rows, weight, minlength=n).astype(np.float32)

    def shrunk(total: Floats, weight: Floats) -> Floats:
        mean = float(total.sum() / weight.sum()) if weight.sum() else 0.0
        return ((total + SHRINKAGE_EVENTS * mean) / (weight + SHRINKAGE_EVENTS)).astype(np.float32)

    values: dict[str, Floats] = {
        "item_age_years": np.where(np.isnan(year), table[:, 0], calendar_year(moment) - year).astype(np.float32),
        "item_events_total_count": count(past.item_row),
        "item_popularity_decayed_count": count(
            past.item_row, 0.5 ** ((moment - past.timestamp) / POPULARITY_HALF_LIFE)
        ),
        "item_events_365d_count": count(past.item_row[recent]),
        "item_genres_count": genres.sum(axis=1, dtype=np.float32),
        "item_genre_flag": genres.astype(np.float32),
    }
    if rated.any():
        stars = count(past.item_row[rated], past.rating[rated])
        values["item_rating_mean_stars"] = shrunk(stars, count(past.item_row[rated]))
    if len(past):
        values["item_positive_ratio"] = shrunk(count(past.item_row[liked]), count(past.item_row))
    for name, value in values.items():
        table[:, columns.slices[name]] = value.reshape(n, -1)
    return np.clip(table, columns.low, columns.high)
