"""Each feature, computed in one place for training, batch and serving.

Everything here is a pure function of events strictly before a moment; the caller cuts the history.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import UTC, datetime

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Codes, Floats, Mask, Rows, Seconds
from domain.catalogue import History
from domain.compiled import bool_, column, compiled, float32, float64, int32, int64, written
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
    end = int(history.timestamp.searchsorted(math.floor(moment)))
    if end == len(history):
        return history
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
    return _session_features(before(history, moment).latest(SESSION_EVENTS), moment, items)


def _session_features(latest: History, moment: float, items: ItemFacts) -> Floats:
    genres = np.ascontiguousarray(items.genres)
    return _session(latest.item_row, latest.timestamp, moment, genres, _SESSION, _SESSION_PLACES)


_SESSION = np.stack([CONTRACT.session.defaults, CONTRACT.session.low, CONTRACT.session.high])
_SESSION_PLACES = np.array(
    [CONTRACT.session.slices[f"session_{name}"].start for name in ("events_count", "length_seconds", "genre_ratio")]
)


@compiled(
    written(float32),
    column(int32), column(float64), float64, column(bool_, 2), column(float32, 2), column(int64),
)  # fmt: skip
def _session(
    rows: Rows, timestamp: Seconds, moment: float, genres: Mask, bounds: Floats, places: NDArray[np.int64]
) -> Floats:
    """``(S,)`` of the latest events ``(h,)``.

    ``bounds`` ``(3, S)`` are the columns' defaults and limits, ``places`` those of the number of events, the length and
    the first genre.
    """
    row = bounds[0].copy()
    h = len(rows)
    if not h or moment - timestamp[h - 1] > SESSION_GAP_SECONDS:
        return row
    start = h - 1
    while start and not timestamp[start] - timestamp[start - 1] > SESSION_GAP_SECONDS:
        start -= 1
    count, length, genre = places
    row[count], row[length] = h - start, timestamp[h - 1] - timestamp[start]
    ratio = row[genre : genre + genres.shape[1]]
    ratio[:] = 0
    for i in range(start, h):
        for slot in range(len(ratio)):
            ratio[slot] += genres[rows[i], slot]
    total = ratio.sum()
    if total:
        ratio /= total
    return np.minimum(np.maximum(row, bounds[1]), bounds[2])


def numeric_features(history: History, moment: float, items: ItemFacts) -> Floats:
    """``(U,)`` everything numeric about a user at ``moment``, in the contract's order."""
    return np.concatenate([user_features(history, moment, items), request_features(history, moment, items)])


def request_features(history: History, moment: float, items: ItemFacts) -> Floats:
    """The part of it that is computed at the request: session and moment."""
    past = before(history, moment)
    session = _session_features(past.latest(SESSION_EVENTS), moment, items)
    return np.concatenate([session, moment_features(past.last_event, moment)])


def moment_features(last_event: float | None, moment: float) -> Floats:
    """``(M,)`` features that only the request can know, in the contract's order."""
    if last_event is None:
        return CONTRACT.moment.defaults.copy()
    hours = (moment - last_event) / HOUR
    return np.array([min(max(hours, _HOURS.low), _HOURS.high)], np.float32)


(_HOURS,) = CONTRACT.moment.features
_CODES: dict[str, dict[str | None, int]] = {
    category.name: {value: category.code(value) for value in category.values} for category in CONTRACT.context
}


def context_codes(context: Context, moment: float) -> Codes:
    """``(K,)`` category codes of the request, in the contract's order."""
    at = datetime.fromtimestamp(moment, UTC)
    values = {
        "context_device": context.device,
        "context_surface": context.surface,
        "context_hour": str(at.hour),
        "context_weekday": str(at.weekday()),
    }
    return np.array([codes.get(values[name], 0) for name, codes in _CODES.items()], np.int32)


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
