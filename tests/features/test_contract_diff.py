"""Two contracts are told apart by feature and in words, and nothing that a store may hold breaks the telling."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from features.contract import CONTRACT, Category, Columns, Contract
from features.contract_diff import Meaning, differences

FIRST, SECOND, *OTHERS = CONTRACT.user.features


def of_users(*features: Any) -> Contract:
    return replace(CONTRACT, user=Columns((*features, *OTHERS)))


def told(theirs: Contract) -> list[str]:
    return differences(CONTRACT.document(), json.loads(json.dumps(theirs.document())))


def test_the_same_contract_differs_in_nothing_even_after_json() -> None:
    assert told(CONTRACT) == []


def test_another_unit_names_the_feature_and_both_units() -> None:
    assert told(of_users(replace(FIRST, unit="dozens"), SECOND)) == [
        f"user: {FIRST.name}: unit is 'count' here and 'dozens' there"
    ]


def test_everything_that_differs_in_a_feature_is_told() -> None:
    (line,) = told(of_users(replace(FIRST, high=5.0, width=2), SECOND))
    assert "high is 10000000.0 here and 5.0 there" in line
    assert "width is 1 here and 2 there" in line


def test_a_feature_that_only_one_has_is_told_with_whose_it_is() -> None:
    assert told(of_users(SECOND)) == [f"user: {FIRST.name} is only in ours"]
    assert told(of_users(FIRST, SECOND, replace(FIRST, name="user_new_count"))) == [
        "user: user_new_count is only in theirs"
    ]


def test_another_order_is_told_where_it_begins() -> None:
    assert told(of_users(SECOND, FIRST)) == [f"user: another order from {FIRST.name} on"]


def test_a_category_with_other_values_is_told() -> None:
    device = CONTRACT.context[0]
    other = Category(device.name, ("phone", "tv"), device.description)
    (line,) = told(replace(CONTRACT, context=(other, *CONTRACT.context[1:])))
    assert line.startswith("context: context_device: values is ['tv', 'phone', 'tablet', 'desktop'] here and ['phone'")


def test_another_genre_in_a_slot_is_another_meaning() -> None:
    ours, theirs = Meaning.of(CONTRACT, ("Action", "Comedy")), Meaning.of(CONTRACT, ("Action",))
    assert differences(ours.document(), theirs.document()) == ["genre slots: slot 1 is only in ours"]


def test_whenever_the_hash_differs_something_is_told() -> None:
    for changed in (replace(FIRST, default=1.0), replace(FIRST, nullable=True), replace(FIRST, freshness_seconds=1.0)):
        other = of_users(changed, SECOND)
        assert other.hash != CONTRACT.hash
        assert told(other)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["name", "user", "x"]), inner),
    max_leaves=10,
)


@given(st.dictionaries(st.sampled_from(["user", "item", "else"]), json_values))
def test_whatever_a_store_holds_is_compared_without_an_error(theirs: dict[str, Any]) -> None:
    lines = differences(CONTRACT.document(), theirs)
    assert f"context: {CONTRACT.context[0].name} is only in ours" in lines


@pytest.mark.parametrize("theirs", [{}, {"user": None}, {"user": [{"unit": "no name"}, 3]}])
def test_an_empty_or_broken_document_has_none_of_ours(theirs: dict[str, Any]) -> None:
    assert f"user: {FIRST.name} is only in ours" in differences(CONTRACT.document(), theirs)
