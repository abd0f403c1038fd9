"""Our reader and Feast's SDK tell the same of one store: every type in use, nulls, wrong types and missing users."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any, cast

import numpy as np
import pytest
import redis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.clock import LiveClock
from features import layout
from features.contract import CONTRACT, Feature
from features.materialise import open_repository
from features.offline import OfflineTable
from features.online import ClientLimits, OnlineStore, StoredUser, connect

if TYPE_CHECKING:
    from feast import FeatureStore

PATIENT = ClientLimits(wait_seconds=5, connect_seconds=5, answer_seconds=5)  # a busy machine fails no test
PROJECT = layout.project_name(CONTRACT, ("parity",))
FEATURES = [feature.name for feature in CONTRACT.user.features]
VIEWS = {layout.VIEW: FEATURES, layout.SESSION_VIEW: list(layout.RECENTS)}
NAMES = [*FEATURES, *layout.RECENTS]
Row = dict[str, Any]

number = st.floats(width=32, allow_nan=True, allow_infinity=True)
text = st.text(max_size=8)
stamp = st.floats(allow_nan=True, allow_infinity=True)


def feature_values(feature: Feature) -> st.SearchStrategy[Any]:
    """Mostly what belongs there; else a null, a number out of range or none at all, another width, another type."""
    fitting = st.floats(np.float32(feature.low).item(), np.float32(feature.high).item(), width=32)
    if feature.width == 1:
        return fitting | st.none() | number | text | st.lists(number, max_size=3)
    whole = st.lists(fitting, min_size=feature.width, max_size=feature.width)
    return whole | st.none() | st.lists(number, max_size=feature.width + 2) | number | text


@st.composite
def recents(draw: st.DrawFn) -> Row:
    events = draw(st.lists(st.tuples(st.text(max_size=70), number, stamp), max_size=layout.RECENT_EVENTS))
    columns = [list(column) for column in zip(*events, strict=True)] or [[], [], []]
    lists = dict(zip(layout.RECENTS, columns, strict=True))
    return lists | draw(st.dictionaries(st.sampled_from(layout.RECENTS), st.none() | text, max_size=1))


rows = st.builds(
    lambda features, lists: features | lists,
    st.fixed_dictionaries({feature.name: feature_values(feature) for feature in CONTRACT.user.features}),
    recents(),
)
moments = st.integers(-(10**15), 4 * 10**15).map(  # from 2106 on seconds in a double do not hold the microsecond
    lambda micros: datetime.fromtimestamp(0, UTC) + timedelta(microseconds=micros)
)


@pytest.fixture(scope="session")
def feast_store(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return open_repository(redis_url, OfflineTable(tmp_path_factory.mktemp("parity"), PROJECT), "parity")


def as_proto(name: str, value: Any) -> Any:
    """The value as Feast's own message."""
    from feast.protos.feast.types.Value_pb2 import DoubleList, FloatList, StringList, Value

    if value is None:
        return Value()
    if isinstance(value, str):
        return Value(string_val=value)
    if isinstance(value, float):
        return Value(float_val=value)
    if name == layout.RECENT_ITEM_IDS:
        return Value(string_list_val=StringList(val=value))
    if name == layout.RECENT_TIMESTAMPS:
        return Value(double_list_val=DoubleList(val=value))
    return Value(float_list_val=FloatList(val=value))


def write(store: FeatureStore, view: str, user_id: str, row: Row, moment: datetime) -> None:
    """Through Feast's own batch write."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    key = EntityKey(join_keys=[layout.JOIN_KEY], entity_values=[Value(string_val=user_id)])
    values = {name: as_proto(name, row[name]) for name in VIEWS[view]}
    table = store.get_feature_view(view)
    store._get_provider().online_write_batch(store.config, table, [(key, values, moment, None)], None)


def forget(redis_url: str, user_id: str) -> None:
    with redis.Redis.from_url(redis_url) as client:
        client.delete(layout.row_key(PROJECT, user_id))


def stored_hash(redis_url: str, user_id: str) -> dict[bytes, bytes]:
    with redis.Redis.from_url(redis_url) as client:
        return dict(cast("dict[bytes, bytes]", client.hgetall(layout.row_key(PROJECT, user_id))))


def read_feast(store: FeatureStore, user_id: str) -> tuple[Row, float]:
    """What the SDK says of one user through the bundle's service, and as of when the batch features are."""
    service = store.get_feature_service(layout.service_name("parity"))
    answer = store.get_online_features(service, [{layout.JOIN_KEY: user_id}])
    told = answer.proto.results[list(answer.proto.metadata.feature_names.val).index(FEATURES[0])].event_timestamps[0]
    return {name: values[0] for name, values in answer.to_dict().items()}, told.seconds + told.nanos / 1e9


def read_ours(redis_url: str, user_id: str, now: float) -> StoredUser | None:
    async def reading() -> StoredUser | None:
        client = connect(redis_url, PATIENT)
        try:
            return await OnlineStore(client, PROJECT, CONTRACT, LiveClock(lambda: now)).read(user_id)
        finally:
            await client.aclose()

    return asyncio.run(reading())


def judged(feature: Feature, value: Any) -> tuple[Sequence[float], str | None]:
    """The contract's rule, said once more and slowly: the columns a value stands for, and what is wrong with it."""
    default = [np.float32(feature.default).item()] * feature.width
    if value is None:
        return default, None if feature.nullable else "missing"
    if isinstance(value, str) or isinstance(value, list) != (feature.width > 1):
        return default, "unexpected"
    columns = value if isinstance(value, list) else [value]
    if len(columns) != feature.width:
        return default, "unexpected"
    if not all(math.isfinite(column) for column in columns):
        return default, "non_finite"
    low, high = np.float32(feature.low), np.float32(feature.high)
    return (columns, None) if all(low <= column <= high for column in columns) else (default, "out_of_range")


def judged_recents(told: Row) -> Row:
    lists = [told[name] for name in layout.RECENTS]
    fitting = all(isinstance(values, list) for values in lists)
    if fitting and np.isfinite(lists[2]).all() and not np.isinf(lists[1]).any():
        return dict(zip(layout.RECENTS, lists, strict=True))
    return {name: [] for name in layout.RECENTS}


def assert_equal(ours: StoredUser, told: Row) -> None:
    problems = dict(ours.problems)
    for feature in CONTRACT.user.features:
        columns, reason = judged(feature, told[feature.name])
        reason = reason if ours.has_batch else None  # of a user without a batch row nothing is missing
        assert ours.features[CONTRACT.user.slices[feature.name]].tolist() == list(columns), feature.name
        assert problems.get(feature.name) == reason, feature.name
    lists = judged_recents(told)
    assert list(ours.recent.item_ids) == lists[layout.RECENT_ITEM_IDS]
    np.testing.assert_array_equal(ours.recent.rating, np.array(lists[layout.RECENT_RATINGS], np.float32))
    np.testing.assert_array_equal(ours.recent.timestamp, np.array(lists[layout.RECENT_TIMESTAMPS]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(
    user_id=st.text(min_size=1, max_size=40),
    row=rows,
    moment=moments,
    views=st.sampled_from([[layout.VIEW], [layout.SESSION_VIEW], list(VIEWS)]),
)
def test_whatever_feast_wrote_is_read_as_feast_reads_it(
    feast_store: FeatureStore, redis_url: str, user_id: str, row: Row, moment: datetime, views: list[str]
):
    forget(redis_url, user_id)
    for view in views:
        write(feast_store, view, user_id, row, moment)
    told, as_of = read_feast(feast_store, user_id)
    ours = read_ours(redis_url, user_id, now=as_of)
    assert ours is not None
    assert ours.has_batch == (layout.VIEW in views)
    assert ours.as_of == as_of
    assert_equal(ours, told)


def whole_row(feature_value: float = 0.5) -> Row:
    values = {f.name: feature_value if f.width == 1 else [feature_value] * f.width for f in CONTRACT.user.features}
    lists = dict(zip(layout.RECENTS, (["296", "ü", ""], [4.5, math.nan, 0.5], [1e9, 1e9 + 0.25, 2e9]), strict=True))
    return values | lists


@pytest.mark.parametrize(
    "row",
    [
        whole_row(),
        whole_row(0.0),
        whole_row() | {name: [] for name in layout.RECENTS},
        dict.fromkeys(NAMES),
        whole_row() | {layout.RECENT_ITEM_IDS: ["x" * 127, "y" * 128, "z" * 20_000]},
    ],
    ids=["whole", "zeros", "no events", "nulls", "long ids"],
)
def test_a_row_is_read_as_feast_reads_it(feast_store: FeatureStore, redis_url: str, row: Row):
    moment = datetime(2016, 10, 16, 17, 57, 24, 250_000, UTC)
    for view in VIEWS:
        write(feast_store, view, "hand-made", row, moment)
    told, as_of = read_feast(feast_store, "hand-made")
    ours = read_ours(redis_url, "hand-made", now=as_of)
    assert ours is not None
    assert ours.as_of == as_of == moment.timestamp()
    assert_equal(ours, told)


def test_a_missing_user_is_missing_for_both(feast_store: FeatureStore, redis_url: str):
    assert set(read_feast(feast_store, "nobody")[0].values()) == {None, "nobody"}
    assert read_ours(redis_url, "nobody", now=0.0) is None


@settings(max_examples=40, deadline=None)
@given(
    events=st.lists(st.tuples(st.text(max_size=70), number, stamp), max_size=layout.RECENT_EVENTS),
    moment=moments,
)
def test_our_session_row_is_byte_for_byte_what_feast_writes(
    feast_store: FeatureStore, redis_url: str, events: list[tuple[str, float, float]], moment: datetime
):
    ids, ratings, times = [e[0] for e in events], [e[1] for e in events], [e[2] for e in events]
    forget(redis_url, "ours")
    write(
        feast_store, layout.SESSION_VIEW, "ours", dict(zip(layout.RECENTS, (ids, ratings, times), strict=True)), moment
    )
    seconds = (moment - datetime.fromtimestamp(0, UTC)) / timedelta(seconds=1)
    assert layout.session_row(ids, ratings, times, seconds) == stored_hash(redis_url, "ours")


def test_what_is_pushed_through_the_push_source_is_the_same_row(feast_store: FeatureStore, redis_url: str):
    import pandas as pd

    ids, ratings, times = ["296", "ü"], [4.5, math.nan], [1e9, 1e9 + 0.25]
    at = 1_476_640_644.25
    forget(redis_url, "pushed")
    pushed = dict(zip(layout.RECENTS, ([ids], [ratings], [times]), strict=True))
    moments = {name: [pd.Timestamp(at, unit="s", tz="UTC")] for name in (layout.EVENT_TIME, layout.CREATED_TIME)}
    feast_store.push(layout.PUSH_SOURCE, pd.DataFrame({layout.JOIN_KEY: ["pushed"], **pushed, **moments}))
    assert layout.session_row(ids, ratings, times, at) == stored_hash(redis_url, "pushed")


def test_a_session_row_of_uneven_or_too_many_events_is_refused():
    with pytest.raises(ValueError, match="recents of 1, 0 and 1 events"):
        layout.session_row(["a"], [], [1.0], 1.0)
    with pytest.raises(ValueError, match="recents of 51"):
        layout.session_row(["a"] * 51, [1.0] * 51, [1.0] * 51, 1.0)


def test_the_repository_declares_exactly_the_contracts_features(feast_store: FeatureStore):
    views = feast_store.get_feature_service(layout.service_name("parity")).feature_view_projections
    assert {view.name: [feature.name for feature in view.features] for view in views} == VIEWS
