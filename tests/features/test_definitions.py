"""Features know only strictly earlier seconds, and the same function makes them everywhere."""

from __future__ import annotations

import math
from datetime import UTC, datetime

import numpy as np
import pytest

from domain.arrays import Floats
from domain.catalogue import History
from domain.request import Context
from features.contract import CONTRACT, DAY, GENRE_SLOTS
from features.definitions import (
    ItemFacts,
    before,
    calendar_year,
    context_codes,
    item_features,
    moment_features,
    request_features,
    session_features,
    user_features,
)

MOMENT = 1_000_000_000.0


def facts(items: int = 4) -> ItemFacts:
    genres = np.zeros((items, GENRE_SLOTS), np.bool_)
    genres[np.arange(items), np.arange(items)] = True
    year = np.array([1990.0, 2000.0, np.nan, 1980.0], np.float32)[:items]
    return ItemFacts(year, genres, np.array([9, 99, 0, 3], np.float32)[:items], 4.0)


def history(*events: tuple[int, float, float]) -> History:
    rows, stars, times = zip(*events, strict=True)
    return History(np.array(rows, np.int32), np.array(stars, np.float32), np.array(times, np.float64))


def value(row: Floats, name: str) -> Floats:
    return row[CONTRACT.user.slices[name]]


def test_an_event_of_the_same_second_is_not_in_the_features() -> None:
    earlier = (0, 5.0, MOMENT - 10)
    alone = user_features(history(earlier), MOMENT, facts())
    for leak in (MOMENT, MOMENT + 0.25, MOMENT + 5):
        asked_at = MOMENT + 0.5  # the request comes in the middle of the second
        assert (user_features(history(earlier, (1, 1.0, leak)), MOMENT, facts()) == alone).all()
        assert len(before(history(earlier, (1, 1.0, leak)), asked_at)) == 1


def test_an_event_a_second_earlier_is_in_the_features() -> None:
    both = user_features(history((0, 5.0, MOMENT - 10), (1, 1.0, MOMENT - 1)), MOMENT, facts())
    assert value(both, "user_events_total_count") == 2


def test_the_same_second_teaches_the_items_nothing_either() -> None:
    events = history((0, 5.0, MOMENT - 10), (1, 5.0, MOMENT))
    table = item_features(events, 4.0, facts().year, facts().genres, MOMENT)
    assert table[:, CONTRACT.item.slices["item_events_total_count"]].ravel().tolist() == [1, 0, 0, 0]


def test_user_features_are_what_their_names_say() -> None:
    past = history((0, 5.0, MOMENT - 40 * DAY), (1, 2.0, MOMENT - 10 * DAY), (0, 4.0, MOMENT - DAY))
    row = user_features(past, MOMENT, facts())
    assert value(row, "user_events_total_count") == 3
    assert value(row, "user_events_30d_count") == 2
    assert value(row, "user_events_7d_count") == 1
    assert value(row, "user_rating_mean_stars") == pytest.approx(11 / 3)
    assert value(row, "user_rating_mean_30d_stars") == pytest.approx(3.0)
    assert value(row, "user_positive_ratio") == pytest.approx(2 / 3)
    assert value(row, "user_genre_taste_ratio")[:2].tolist() == [1.0, 0.0]
    np.testing.assert_allclose(value(row, "user_genre_recent_ratio")[:2], [2 / 3, 1 / 3], rtol=1e-6)
    age = calendar_year(MOMENT) - (1990 + 2000 + 1990) / 3
    assert value(row, "user_item_age_mean_years") == pytest.approx(age, abs=1e-3)
    popularity = (2 * math.log(10) + math.log(100)) / 3
    assert value(row, "user_item_popularity_mean_log_count") == pytest.approx(popularity)


def test_without_events_every_feature_is_its_default() -> None:
    assert (user_features(History.none(), MOMENT, facts()) == CONTRACT.user.defaults).all()
    assert (moment_features(None, MOMENT) == CONTRACT.moment.defaults).all()


def test_missing_years_and_ratings_leave_defaults_and_nothing_is_nan() -> None:
    row = user_features(history((2, math.nan, MOMENT - 5)), MOMENT, facts())
    assert np.isfinite(row).all()
    assert value(row, "user_item_age_mean_years") == 15
    assert value(row, "user_rating_mean_stars") == 3.5
    assert value(row, "user_positive_ratio") == 1


def test_absolute_time_is_no_feature() -> None:
    """Moving everything by whole years of the calendar changes nothing but the age of the items."""
    shift = 10 * 365.25 * DAY
    now = user_features(history((0, 5.0, MOMENT - 10)), MOMENT, facts())
    then = user_features(history((0, 5.0, MOMENT - 10 - shift)), MOMENT - shift, facts())
    differs = np.flatnonzero(now != then)
    assert differs.tolist() == [CONTRACT.user.slices["user_item_age_mean_years"].start]


def test_the_hours_since_the_last_event_are_of_the_request() -> None:
    assert moment_features(MOMENT - 7200, MOMENT).tolist() == [2.0]


def test_unknown_context_is_the_unknown_category() -> None:
    codes = context_codes(Context(device="toaster", surface="home"), 0.0)  # a Thursday at midnight
    assert codes.tolist() == [0, 1, 1, 4]


def test_item_means_are_shrunk_toward_the_mean_of_all() -> None:
    events = history(*[(0, 3.0, 1.0)] * 20, (1, 5.0, 2.0))
    table = item_features(events, 4.0, facts().year, facts().genres, MOMENT)
    stars = table[:, CONTRACT.item.slices["item_rating_mean_stars"]].ravel()
    mean = 65 / 21
    assert stars[1] == pytest.approx((5 + 20 * mean) / 21)
    assert stars[2] == pytest.approx(mean)
    assert np.isfinite(table).all()


def test_an_items_popularity_halves_every_year() -> None:
    events = history((0, 3.0, MOMENT - 730 * DAY), (0, 3.0, MOMENT - 365 * DAY), (1, 3.0, MOMENT - 1))
    table = item_features(events, 4.0, facts().year, facts().genres, MOMENT)
    decayed = table[:, CONTRACT.item.slices["item_popularity_decayed_count"]].ravel()
    assert decayed.tolist()[:3] == pytest.approx([0.75, 1.0, 0.0], abs=1e-6)


def session_at(moment: float, *times: float) -> dict[str, float]:
    rows = np.arange(len(times), dtype=np.int32) % 3
    history = History(rows, np.full(len(times), 4, np.float32), np.array(times, np.float64))
    genres = np.zeros((3, GENRE_SLOTS), np.bool_)
    genres[[0, 1, 2], [0, 0, 1]] = True
    facts = ItemFacts(np.full(3, 2000, np.float32), genres, np.ones(3, np.float32), 4.0)
    values = session_features(history, moment, facts)
    names = ("session_events_count", "session_length_seconds")
    told = {name: float(values[CONTRACT.session.slices[name]][0]) for name in names}
    return told | {"first_genre": float(values[CONTRACT.session.slices["session_genre_ratio"]][0])}


def test_a_session_counts_from_the_last_gap_of_half_an_hour() -> None:
    told = session_at(10_500.0, 0.0, 100.0, 10_000.0, 10_060.0)
    assert told == {"session_events_count": 2, "session_length_seconds": 60, "first_genre": 0.5}


def test_a_session_that_has_ended_is_none() -> None:
    assert session_at(1_902.0, 0.0, 100.0) == {
        "session_events_count": 0, "session_length_seconds": 0, "first_genre": 0,
    }  # fmt: skip


def test_a_session_knows_nothing_of_its_own_second() -> None:
    assert session_at(200.0, 100.0, 200.0)["session_events_count"] == 1


def test_a_session_is_told_from_the_last_fifty_events_alone() -> None:
    told = session_at(60.0, *(float(at) for at in range(60)))
    assert (told["session_events_count"], told["session_length_seconds"]) == (50, 49)


def test_a_history_without_events_has_no_session_and_no_last_event() -> None:
    expected = np.concatenate([CONTRACT.session.defaults, CONTRACT.moment.defaults])
    assert request_features(History.none(), MOMENT, facts()).tolist() == expected.tolist()


def test_the_genres_of_a_session_are_shares_of_all_its_genres() -> None:
    genres = np.zeros((3, GENRE_SLOTS), np.bool_)
    genres[0, [0, 1]] = genres[1, 0] = True  # the third item has none
    items = ItemFacts(np.full(3, 2000, np.float32), genres, np.ones(3, np.float32), 4.0)
    for rows, expected in (((0, 1, 2), [2 / 3, 1 / 3]), ((2,), [0, 0])):
        seen = history(*((row, 4.0, MOMENT - 1) for row in rows))
        ratio = session_features(seen, MOMENT, items)[CONTRACT.session.slices["session_genre_ratio"]]
        assert ratio[:2].tolist() == np.array(expected, np.float32).tolist()
        assert not ratio[2:].any()


@pytest.mark.parametrize("moment", [0.0, 3599.9999999, 3600.0, 1e9 + 0.5, 86_399.9])
def test_the_hour_and_weekday_are_those_of_the_calendar(moment: float) -> None:
    at = datetime.fromtimestamp(moment, UTC)
    assert context_codes(Context(), moment).tolist() == [0, 0, at.hour + 1, at.weekday() + 1]
