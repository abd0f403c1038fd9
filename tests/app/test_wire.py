"""The decoder and the encoder, between bytes and the domain."""

from __future__ import annotations

import json
import os
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from app import openapi, wire
from domain.answer import Answer, Item
from domain.degradation import DegradationLevel
from domain.errors import InvalidRequest
from domain.request import MAX_IDS, MAX_LIMIT, Context, Query

ids = st.text(st.characters(exclude_categories=["Cs", "Cc"]), min_size=1, max_size=60)
documents = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=12,
)
near_misses = st.dictionaries(
    st.sampled_from(["user_id", "limit", "context", "exclude_item_ids", "recent_item_ids", "debug", "other"]), documents
)


def asked(**fields: object) -> Query:
    return wire.query_from_json(json.dumps(fields).encode())


def refusal(body: bytes) -> str:
    with pytest.raises(InvalidRequest) as caught:
        wire.query_from_json(body)
    return str(caught.value)


def test_a_whole_request_is_read_into_the_domain() -> None:
    query = asked(
        user_id="42",
        limit=5,
        context={"device": "tv", "surface": None},
        exclude_item_ids=["318"],
        recent_item_ids=["296", "593"],
        debug=True,
    )
    assert query == Query("42", 5, Context("tv", None), ("318",), ("296", "593"), debug=True)


def test_a_user_or_something_recent_is_enough() -> None:
    assert asked(user_id="42") == Query("42")
    assert asked(recent_item_ids=["296"]) == Query(recent_item_ids=("296",))
    assert asked(user_id=None, recent_item_ids=["296"]).user_id is None


@pytest.mark.parametrize("fields", [{}, {"recent_item_ids": []}, {"user_id": None}, {"limit": 20}])
def test_a_request_for_nobody_is_refused(fields: dict[str, object]) -> None:
    with pytest.raises(InvalidRequest, match="required"):
        asked(**fields)


@pytest.mark.parametrize("limit", [True, "10", 10.0, 0, -1, MAX_LIMIT + 1, 10**30, None, [10]])
def test_only_a_whole_number_in_range_is_a_limit(limit: object) -> None:
    with pytest.raises(InvalidRequest, match="limit"):
        asked(user_id="42", limit=limit)


@pytest.mark.parametrize("user_id", ["", 42, True, ["42"], "a" * 257, "é" * 129, "42\0", "4\n2", "4\x7f2"])
def test_only_short_clean_text_is_an_id(user_id: object) -> None:
    with pytest.raises(InvalidRequest, match="user_id"):
        asked(user_id=user_id)


def test_an_id_may_be_as_long_as_the_limit_in_bytes() -> None:
    assert asked(user_id="é" * 128).user_id == "é" * 128


@pytest.mark.parametrize("recent", ["296", {"296": 1}, [296], [None], ["296"] * (MAX_IDS + 1)])
def test_only_a_list_of_ids_is_a_list_of_ids(recent: object) -> None:
    with pytest.raises(InvalidRequest, match="recent_item_ids"):
        asked(user_id="42", recent_item_ids=recent)


@pytest.mark.parametrize(
    "context",
    [
        None,
        [],
        "tv",
        {"device": 1},
        {"device": "x" * 65},
        {"browser": "x"},
        {"region": 1},
        {"max_age_rating": "12"},
        {"max_age_rating": -1},
        {"max_age_rating": True},
    ],
)
def test_a_context_holds_two_short_words(context: object) -> None:
    with pytest.raises(InvalidRequest, match="context"):
        asked(user_id="42", context=context)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"{",
        b'{"user_id": NaN}',
        b'{"user_id": "\\ud800"}',
        b'{"user_id": "\xff"}',
        b'{"user_id": "\xed\xa0\x80"}',
        b"[" * 60_000,
        b'{"context":' * 5_000,
        b'{"limit": 1e999}',
    ],
)
def test_what_is_not_json_is_malformed(body: bytes) -> None:
    with pytest.raises(wire.MalformedRequest):
        wire.query_from_json(body)


@pytest.mark.parametrize("body", [b"null", b"[]", b'"42"', b"42", b'{"user_id":"42","smuggled":1}'])
def test_what_is_json_but_no_request_is_refused(body: bytes) -> None:
    assert "smuggled" not in refusal(body)


def understood(read: Callable[[], Query]) -> Query | None:
    """The query, or None if it was refused in a few words. Any other exception is a bug."""
    try:
        return read()
    except InvalidRequest as error:
        words = str(error)
    assert 0 < len(words) < 500
    return None


@given(st.binary(max_size=300))
def test_any_bytes_are_refused_or_understood(body: bytes) -> None:
    query = understood(lambda: wire.query_from_json(body))
    assert query is None or query.user_id or query.recent_item_ids


@given(near_misses)
def test_any_document_is_refused_or_understood(fields: dict[str, object]) -> None:
    query = understood(lambda: wire.query_from_fields(fields, "id"))
    assert query is None or (1 <= query.limit <= MAX_LIMIT and (query.user_id or query.recent_item_ids))


@given(ids, st.lists(ids, max_size=5), st.integers(1, MAX_LIMIT), st.booleans())
def test_every_good_request_is_understood(user_id: str, recent: list[str], limit: int, debug: bool) -> None:
    query = asked(user_id=user_id, recent_item_ids=recent, limit=limit, debug=debug)
    assert query == Query(user_id, limit, recent_item_ids=tuple(recent), debug=debug)


@given(st.text(st.characters(), max_size=40))
def test_any_path_is_refused_or_understood(user_id: str) -> None:
    query = understood(lambda: wire.query_from_path(user_id, []))
    assert query is None or query.user_id == user_id


@pytest.mark.parametrize(
    "parameters", [[("limit", "x")], [("limit", "")], [("limit", "²")], [("limit", "9" * 5000)], [("limit", "-1")],
                   [("limit", "1"), ("limit", "2")], [("page", "2")], [("limit", "0")]]
)  # fmt: skip
def test_odd_parameters_are_refused(parameters: list[tuple[str, str]]) -> None:
    with pytest.raises(InvalidRequest):
        wire.query_from_path("42", parameters)


def answer(level: DegradationLevel = DegradationLevel.FULL) -> Answer:
    item = Item("296", "Pulp Fiction (1994)", 0.93, ("two_tower", "content"), "diversity")
    return Answer("r1", "b1", (item,), level, ("ranking.timeout",), {"features": 0.0006, "total": 0.0082}, {}, 487)


def test_an_answer_is_written_as_promised() -> None:
    assert json.loads(wire.answer_to_json(answer(DegradationLevel.SIMPLE_RANKING), debug=False)) == {
        "request_id": "r1",
        "bundle": "b1",
        "items": [
            {
                "item_id": "296",
                "title": "Pulp Fiction (1994)",
                "score": 0.93,
                "sources": ["two_tower", "content"],
                "rule": "diversity",
            }
        ],
        "degradation": {"level": "SIMPLE_RANKING", "reasons": ["ranking.timeout"]},
        "timing_ms": {"features": 0.6, "total": 8.2},
        "cursor": None,
        "arms": {},
    }


def test_debug_tells_how_many_were_ranked_and_by_whom() -> None:
    debug = json.loads(wire.answer_to_json(answer(), debug=True))["debug"]
    assert debug == {"ranked": 487, "worker": os.getpid()}


def test_the_documented_request_has_the_fields_that_are_read() -> None:
    assert set(openapi.REQUEST["properties"]) == set(wire._FIELDS)
    assert set(openapi.REQUEST["properties"]["context"]["properties"]) == wire._CONTEXT_FIELDS


def test_the_documented_example_is_understood() -> None:
    assert asked(**openapi.REQUEST["example"]) == Query("42", 20, Context("tv", "home"))


def test_the_documented_answer_has_the_fields_that_are_written() -> None:
    written = json.loads(wire.answer_to_json(answer(), debug=True))
    assert set(openapi.ANSWER["properties"]) == set(written)
    assert set(openapi.ANSWER["properties"]["items"]["items"]["properties"]) == set(written["items"][0])


def test_a_problem_names_its_status_in_words() -> None:
    assert json.loads(wire.problem(422, "limit is odd")) == {
        "type": "about:blank",
        "title": "Unprocessable Entity",
        "status": 422,
        "detail": "limit is odd",
    }
