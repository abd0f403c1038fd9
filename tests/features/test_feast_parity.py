"""Our reader and Feast's SDK tell the same of one store: every type in use, nulls, wrong types and missing users."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from domain.clock import LiveClock
from features import layout
from features.contract import CONTRACT, Feature
from features.materialise import open_repository
from features.online import ClientLimits, OnlineStore, StoredUser, connect

if TYPE_CHECKING:
    from feast import FeatureStore

PATIENT = ClientLimits(wait_seconds=5, connect_seconds=5, answer_seconds=5)  # a busy machine fails no test
PROJECT = layout.project_name(CONTRACT, ("parity",))
NAMES = [*(feature.name for feature in CONTRACT.user.features), *layout.RECENTS]
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
moments = st.integers(-(10**15), 10**16).map(
    lambda micros: datetime.fromtimestamp(0, UTC) + timedelta(microseconds=micros)
)


@pytest.fixture(scope="session")
def feast_store(redis_url: str, tmp_path_factory: pytest.TempPathFactory) -> FeatureStore:
    return open_repository(tmp_path_factory.mktemp("parity"), redis_url, PROJECT)[0]


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


def write(store: FeatureStore, user_id: str, row: Row, moment: datetime) -> None:
    """Through Feast's own batch write."""
    from feast.protos.feast.types.EntityKey_pb2 import EntityKey
    from feast.protos.feast.types.Value_pb2 import Value

    key = EntityKey(join_keys=[layout.JOIN_KEY], entity_values=[Value(string_val=user_id)])
    values = {name: as_proto(name, row[name]) for name in NAMES}
    view = store.get_feature_view(layout.VIEW)
    store._get_provider().online_write_batch(store.config, view, [(key, values, moment, None)], None)


def read_feast(store: FeatureStore, user_id: str) -> tuple[Row, float]:
    """What the SDK says of one user, and as of when."""
    references = [f"{layout.VIEW}:{name}" for name in NAMES]
    answer = store.get_online_features(references, [{layout.JOIN_KEY: user_id}])
    moment = answer.proto.results[1].event_timestamps[0]
    return {name: values[0] for name, values in answer.to_dict().items()}, moment.seconds + moment.nanos / 1e9


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
        assert ours.features[CONTRACT.user.slices[feature.name]].tolist() == list(columns), feature.name
        assert problems.get(feature.name) == reason, feature.name
    lists = judged_recents(told)
    assert list(ours.recent.item_ids) == lists[layout.RECENT_ITEM_IDS]
    np.testing.assert_array_equal(ours.recent.rating, np.array(lists[layout.RECENT_RATINGS], np.float32))
    np.testing.assert_array_equal(ours.recent.timestamp, np.array(lists[layout.RECENT_TIMESTAMPS]))


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(user_id=st.text(min_size=1, max_size=40), row=rows, moment=moments)
def test_whatever_feast_wrote_is_read_as_feast_reads_it(
    feast_store: FeatureStore, redis_url: str, user_id: str, row: Row, moment: datetime
):
    write(feast_store, user_id, row, moment)
    told, as_of = read_feast(feast_store, user_id)
    ours = read_ours(redis_url, user_id, now=as_of)
    assert ours is not None
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
    write(feast_store, "hand-made", row, moment)
    told, as_of = read_feast(feast_store, "hand-made")
    ours = read_ours(redis_url, "hand-made", now=as_of)
    assert ours is not None
    assert ours.as_of == as_of == moment.timestamp()
    assert_equal(ours, told)


def test_a_missing_user_is_missing_for_both(feast_store: FeatureStore, redis_url: str):
    assert set(read_feast(feast_store, "nobody")[0].values()) == {None, "nobody"}
    assert read_ours(redis_url, "nobody", now=0.0) is None


def test_the_repository_declares_exactly_the_contracts_features(feast_store: FeatureStore):
    service = feast_store.get_feature_service(layout.SERVICE)
    assert [feature.name for feature in service.feature_view_projections[0].features] == NAMES
