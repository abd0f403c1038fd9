"""A training set knows strictly earlier seconds only, on both offline stores, and equals the one definition."""

from __future__ import annotations

import math
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest

from domain.arrays import Floats, Seconds
from domain.catalogue import History
from features import layout
from features.contract import CONTRACT, DAY, GENRE_SLOTS
from features.definitions import ItemFacts, user_features
from features.history import record, training_rows
from features.materialise import open_repository
from features.offline import OfflineForm, OfflineTable, batch_rows

LABEL = datetime(2016, 10, 16, 12, 0, 0, tzinfo=UTC).timestamp()
PROJECT = layout.project_name(CONTRACT, ("history",))
ITEMS = ItemFacts(
    np.array([1990, 2000, np.nan], np.float32),
    np.eye(3, GENRE_SLOTS, dtype=np.bool_),
    np.array([5, 50, 500], np.float32),
    4.0,
)
EVENTS = {
    "early": History(
        np.array([0, 1, 2], np.int32),
        np.array([5, 2, np.nan], np.float32),
        np.array([LABEL - 40 * DAY, LABEL - 2 * DAY, LABEL - 1]),
    ),
    # the label's own second, and the future
    "late": History(
        np.array([1, 0, 2], np.int32), np.full(3, 5, np.float32), np.array([LABEL, LABEL + 0.5, LABEL + 9])
    ),
}


@pytest.fixture(params=["parquet", "delta"])
def offline(request: pytest.FixtureRequest, tmp_path: Path) -> OfflineTable:
    form: OfflineForm = request.param
    return OfflineTable(tmp_path, PROJECT, form)


def asked(offline: OfflineTable, redis_url: str, user_ids: list[str], moments: list[float]) -> Floats:
    return training_rows(open_repository(redis_url, offline), user_ids, np.array(moments))


def stamped(offline: OfflineTable, count: float, at: float, written_at: float = LABEL) -> None:
    """A row as anybody might write it: so many events, stamped at this moment."""
    row = CONTRACT.user.defaults.copy()
    row[CONTRACT.user.slices["user_events_total_count"]] = count
    times = np.array([round(at * 1e6)])
    offline.write(layout.VIEW, [batch_rows(CONTRACT, pa.array(["u"]), row[None], times, written_at)], written_at)


def counts(rows: Floats) -> list[float]:
    return rows[:, CONTRACT.user.slices["user_events_total_count"]].ravel().tolist()


def test_a_row_stamped_in_the_labels_second_does_not_enter(offline: OfflineTable, redis_url: str):
    stamped(offline, 1, LABEL - 0.000001, written_at=LABEL + 1)
    for i, leak in enumerate((LABEL, LABEL + 0.25, LABEL + 1)):
        stamped(offline, 99, leak, written_at=LABEL + 2 + i)
    for moment in (LABEL, LABEL + 0.5, LABEL + 0.999999):
        assert counts(asked(offline, redis_url, ["u"], [moment])) == [1]


def test_a_row_of_an_earlier_second_enters_until_a_newer_one_does(offline: OfflineTable, redis_url: str):
    stamped(offline, 1, LABEL - 5, written_at=LABEL)
    stamped(offline, 2, LABEL - 3, written_at=LABEL + 1)
    moments = [LABEL - 5, LABEL - 4, LABEL - 3, LABEL - 2, LABEL + 90 * DAY]
    assert counts(asked(offline, redis_url, ["u"] * 5, moments)) == [0, 1, 1, 2, 2]


def test_what_was_written_last_counts_among_rows_of_one_moment(offline: OfflineTable, redis_url: str):
    stamped(offline, 2, LABEL - 3, written_at=LABEL + 5)
    stamped(offline, 1, LABEL - 3, written_at=LABEL)
    assert counts(asked(offline, redis_url, ["u"], [LABEL])) == [2]


def test_a_recorded_row_is_what_the_one_definition_says(offline: OfflineTable, redis_url: str):
    users = ["early", "late", "early", "late", "early"]
    moments = np.array([LABEL, LABEL, LABEL + 0.75, LABEL + 1, LABEL + 30 * DAY])
    histories = [EVENTS[user] for user in users]
    record(offline, users, histories, moments, ITEMS, written_at=LABEL)
    rows = asked(offline, redis_url, users, moments.tolist())
    np.testing.assert_array_equal(rows, definition(histories, moments))
    assert counts(rows) == [3, 0, 3, 2, 3]


def definition(histories: list[History], moments: Seconds) -> Floats:
    """What serving would compute at these moments, the future cut away by hand as well."""
    return np.stack(
        [
            user_features(history.only(history.timestamp < math.floor(moment)), moment, ITEMS)
            for history, moment in zip(histories, moments.tolist(), strict=True)
        ]
    )


def test_changing_the_future_changes_no_row(offline: OfflineTable, redis_url: str, tmp_path: Path):
    other = OfflineTable(tmp_path / "other", PROJECT, offline.form)
    loud = EVENTS["early"].then(EVENTS["late"])
    for table, history in ((offline, EVENTS["early"]), (other, loud)):
        record(table, ["u"], [history], np.array([LABEL + 0.5]), ITEMS, written_at=LABEL)
    quiet, told = (asked(table, redis_url, ["u"], [LABEL + 0.5]) for table in (offline, other))
    np.testing.assert_array_equal(quiet, told)


def test_rows_come_back_in_the_order_they_were_asked_for_and_strangers_have_defaults(
    offline: OfflineTable, redis_url: str
):
    stamped(offline, 7, LABEL)
    rows = asked(offline, redis_url, ["nobody", "u", "u", "u"], [LABEL, LABEL + 5, LABEL, LABEL + 1])
    assert counts(rows) == [0, 7, 0, 7]
    np.testing.assert_array_equal(rows[0], CONTRACT.user.defaults)
