"""The same batch step on two engines: embedded, and Spark in local mode (`make engines`)."""

from __future__ import annotations

import os
import sys

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest

from domain.catalogue import History
from features.batch import EVENTS, ROWS, Embedded, Engine, Spark, feature_rows, matrix
from features.contract import CONTRACT, GENRE_SLOTS
from features.definitions import ItemFacts, user_features

USERS, ITEMS, EVENT_COUNT = 40, 60, 2_000
HOUR = 3600.0


def facts() -> ItemFacts:
    random = np.random.default_rng(1)
    year = random.integers(1950, 2015, ITEMS).astype(np.float32)
    year[::7] = np.nan
    return ItemFacts(
        year, random.random((ITEMS, GENRE_SLOTS)) < 0.1, random.integers(1, 99, ITEMS).astype(np.float32), 4
    )


def events() -> pa.Table:
    random = np.random.default_rng(2)
    rating = random.choice([1.0, 3.0, 4.5, np.nan], EVENT_COUNT).astype(np.float32)
    timestamp = np.sort(np.floor(1.4e9 + random.random(EVENT_COUNT) * 90 * 24 * HOUR))
    return pa.table(
        {
            "user_id": [f"u{user}é" for user in random.integers(0, USERS, EVENT_COUNT)],
            "position": np.arange(EVENT_COUNT),
            "item_row": random.integers(0, ITEMS, EVENT_COUNT).astype(np.int32),
            "rating": pa.array(rating, pa.float32(), from_pandas=True),
            "timestamp": timestamp,
        },
        schema=EVENTS,
    )


def rows_of(engine: Engine) -> pa.Table:
    return feature_rows(events(), facts(), lambda last: last + 1.0, engine)


@pytest.fixture(scope="module")
def spark():
    from pyspark.sql import SparkSession

    os.environ["PYSPARK_PYTHON"] = sys.executable
    session = (
        SparkSession.builder.master("local[1]")
        .config("spark.ui.enabled", "false")
        .config("spark.driver.host", "127.0.0.1")
        .config("spark.driver.bindAddress", "127.0.0.1")
        .config("spark.sql.shuffle.partitions", "2")
        .getOrCreate()
    )
    yield session
    session.stop()


def test_every_user_has_one_row_with_every_feature_in_range() -> None:
    rows = rows_of(Embedded())
    assert rows.schema == ROWS
    assert rows["user_id"].to_pylist() == sorted(set(events()["user_id"].to_pylist()))
    values = matrix(rows)
    assert values.shape == (len(rows), CONTRACT.user.width)
    assert (values >= CONTRACT.user.low).all()
    assert (values <= CONTRACT.user.high).all()


def test_the_order_of_the_events_does_not_matter() -> None:
    shuffled = events().take(np.random.default_rng(3).permutation(EVENT_COUNT))
    assert feature_rows(shuffled, facts(), lambda last: last + 1.0, Embedded()).equals(rows_of(Embedded()))


def test_no_events_are_no_rows() -> None:
    assert len(feature_rows(EVENTS.empty_table(), facts(), lambda last: last, Embedded())) == 0


@pytest.mark.spark
@pytest.mark.filterwarnings("ignore")
def test_spark_gives_the_same_rows_to_the_last_bit(spark) -> None:
    assert rows_of(Spark(spark)).equals(rows_of(Embedded()))


def test_a_row_is_what_the_definition_says_of_the_users_history() -> None:
    theirs = events().filter(pc.equal(events()["user_id"], "u7é"))
    history = History(*(theirs[name].to_numpy() for name in ("item_row", "rating", "timestamp")))
    expected = user_features(history, float(history.timestamp[-1]) + 1.0, facts())
    row = rows_of(Embedded()).filter(pc.equal(rows_of(Embedded())["user_id"], "u7é"))
    assert np.array_equal(matrix(row)[0], expected)
