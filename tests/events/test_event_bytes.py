"""An event's bytes in the log, and what makes bytes no event."""

from __future__ import annotations

import orjson
import pytest
from hypothesis import given
from hypothesis import strategies as st

from events.event import KINDS, MAX_EVENT_BYTES, Event, PoisonError, decode, encode

FIELDS = {"event_id": "e", "user_id": "u", "item_id": "i", "kind": "play", "timestamp": 5.0}

IDS = st.text(st.characters(blacklist_categories=("Cs", "Cc")), min_size=1, max_size=40)
EVENTS = st.builds(
    lambda event_id, user_id, item_id, kind, at, stars: Event(
        event_id, user_id, item_id, kind, at, stars if kind == "rating" else None
    ),
    IDS, IDS, IDS, st.sampled_from(KINDS), st.floats(0, 4e9), st.floats(0, 5),
)  # fmt: skip


@given(EVENTS)
def test_an_event_comes_back_from_its_bytes(event: Event) -> None:
    assert decode(encode(event)) == event


@given(st.binary(max_size=200))
def test_whatever_the_bytes_are_they_are_an_event_or_poison(raw: bytes) -> None:
    with pytest.raises(PoisonError):
        decode(raw)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"kind": "purchase"}, "unknown_kind"),
        ({"kind": ["play"]}, "unknown_kind"),
        ({"event_id": ""}, "bad_event_id"),
        ({"user_id": 7}, "bad_user_id"),
        ({"user_id": None}, "bad_user_id"),
        ({"item_id": "x" * 257}, "bad_item_id"),
        ({"item_id": "a\nb"}, "bad_item_id"),
        ({"timestamp": True}, "bad_timestamp"),
        ({"timestamp": -1}, "bad_timestamp"),
        ({"timestamp": None}, "bad_timestamp"),
        ({"rating": 4}, "unexpected_rating"),
        ({"kind": "rating"}, "bad_rating"),
        ({"kind": "rating", "rating": 6}, "bad_rating"),
    ],
)
def test_a_field_that_is_wrong_is_poison_and_is_named(change: dict[str, object], reason: str) -> None:
    with pytest.raises(PoisonError) as caught:
        decode(orjson.dumps(FIELDS | change))
    assert caught.value.reason == reason


@pytest.mark.parametrize(
    ("raw", "reason"), [(b"{", "not_json"), (b"[1]", "not_an_object"), (b" " * (MAX_EVENT_BYTES + 1), "too_large")]
)
def test_bytes_that_are_no_object_are_poison(raw: bytes, reason: str) -> None:
    with pytest.raises(PoisonError) as caught:
        decode(raw)
    assert caught.value.reason == reason


def test_fields_of_a_newer_door_are_left_alone() -> None:
    assert decode(orjson.dumps(FIELDS | {"page": "home"})) == Event("e", "u", "i", "play", 5.0)
