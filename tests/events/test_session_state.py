"""The users' last events: a pure function of the set of events, written beside their Feast view."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from itertools import pairwise
from typing import Any
from uuid import uuid4

import pytest
import redis.asyncio as aioredis
from hypothesis import given
from hypothesis import strategies as st

from domain.errors import DependencyError
from events.event import Event
from events.state import PREFIX, Recent, Recents, SessionStore, State, merge, state_key
from features import layout
from features.online import ClientLimits, connect

KEEP = 5
# Few ids and moments, so that repeats, ties and one id with two contents all happen.
RECENTS = st.builds(
    Recent,
    st.integers(0, 9).map(float),
    st.sampled_from("abcdefgh"),
    st.sampled_from("xyz"),
    st.sampled_from([-1.0, 4.0]),
)


def split(recents: list[Recent], sizes: list[int]) -> list[list[Recent]]:
    cuts = [0, *sorted(size % (len(recents) + 1) for size in sizes), len(recents)]
    return [recents[start:end] for start, end in pairwise(cuts)]


def told(batches: list[list[Recent]]) -> Recents:
    state: Recents = ()
    for batch in batches:
        state = merge(state, batch, KEEP)
    return state


@given(st.lists(RECENTS, max_size=40), st.data())
def test_late_repeated_and_out_of_order_events_end_in_the_same_state(
    recents: list[Recent], data: st.DataObject
) -> None:
    whole = merge((), recents, KEEP)
    repeats = data.draw(st.lists(st.sampled_from(recents))) if recents else []
    again = data.draw(st.permutations(recents + repeats))
    sizes = data.draw(st.lists(st.integers(0, 60), max_size=6))
    assert told(split(list(again), sizes)) == whole


@given(st.lists(RECENTS, max_size=40))
def test_the_state_is_the_last_events_each_once_in_order(recents: list[Recent]) -> None:
    state = merge((), recents, KEEP)
    ids = {recent.event_id for recent in recents}
    greatest = {name: max(recent for recent in recents if recent.event_id == name) for name in ids}
    assert list(state) == sorted(greatest.values())[-KEEP:]
    assert len({recent.event_id for recent in state}) == len(state) == min(KEEP, len(ids))


@given(st.lists(RECENTS, max_size=KEEP), st.floats(0, 4e9))
def test_a_state_comes_back_from_its_bytes(recents: list[Recent], moment: float) -> None:
    state = State(tuple(recents), moment)
    assert State.decode(state.encode()) == state


@pytest.mark.parametrize("raw", [b"", b"{", b"{}", b"[]", b'["x"]', b"[1, [2]]", b"[1, 2]"])
def test_an_unreadable_state_counts_as_none(raw: bytes) -> None:
    assert State.decode(raw) == State()


def test_the_moment_of_a_view_never_stands_still_or_goes_back() -> None:
    state = State((), 1_700_000_000.5)
    for wall in (1_700_000_000.5, 1_600_000_000.0, 1_700_000_000.500001):
        later = state.at(wall)
        assert layout.decode_time(layout.encode_time(later.moment)) > layout.decode_time(
            layout.encode_time(state.moment)
        )
        state = later


PATIENT = ClientLimits(connections=8, wait_seconds=5.0, connect_seconds=5.0, answer_seconds=5.0)


@pytest.fixture
async def client(redis_url: str) -> AsyncIterator[aioredis.Redis]:
    client = connect(redis_url, PATIENT)
    yield client
    await client.aclose()


@pytest.fixture
def user() -> str:
    return f"user-{uuid4().hex}"


def play(user: str, name: str, at: float, item: str = "296") -> Event:
    return Event(name, user, item, "play", at)


async def view(client: aioredis.Redis, project: str, user: str) -> tuple[tuple[str, ...], list[float], list[float]]:
    values: Any = await client.hmget(layout.row_key(project, user), list(layout.session_fields()))
    _, ids, ratings, times = values
    return layout.decode_strings(ids), layout.decode_floats(ratings).tolist(), layout.decode_doubles(times).tolist()


async def test_events_are_in_the_view_oldest_first(client: aioredis.Redis, user: str) -> None:
    sessions = SessionStore(client, "project-a")
    rated = Event("r", user, "50", "rating", 20.5, 4.5)
    await sessions.add({user: [rated, play(user, "p", 10.25)]})
    ids, ratings, times = await view(client, "project-a", user)
    assert ids == ("296", "50")
    assert math.isnan(ratings[0])
    assert ratings[1] == 4.5
    assert times == [10.25, 20.5]


async def test_the_batch_fields_of_the_user_are_left_alone(client: aioredis.Redis, user: str) -> None:
    key = layout.row_key("project-a", user)
    await client.hset(key, mapping={"_ts:user_batch": b"kept"})
    await SessionStore(client, "project-a").add({user: [play(user, "p", 1.0)]})
    assert await client.hget(key, "_ts:user_batch") == b"kept"


async def test_an_impression_is_not_what_the_user_did(client: aioredis.Redis, user: str) -> None:
    await SessionStore(client, "project-a").add({user: [Event("s", user, "296", "impression", 1.0)]})
    assert await client.exists(state_key(user), layout.row_key("project-a", user)) == 0


async def test_a_repeated_event_writes_nothing(client: aioredis.Redis, user: str) -> None:
    sessions = SessionStore(client, "project-a")
    await sessions.add({user: [play(user, "p", 1.0)]})
    before = await client.get(state_key(user))
    await sessions.add({user: [play(user, "p", 1.0)]})
    assert await client.get(state_key(user)) == before


async def test_two_consumers_at_one_user_lose_nothing(client: aioredis.Redis, user: str) -> None:
    async def consumer(number: int) -> None:
        sessions = SessionStore(client, "project-a")
        for n in range(number, 40, 4):
            await sessions.add({user: [play(user, f"e{n:02}", float(n))]})

    await asyncio.gather(*map(consumer, range(4)))
    _, _, times = await view(client, "project-a", user)
    assert times == [float(n) for n in range(40)]


async def test_a_move_takes_every_user_to_the_other_project(client: aioredis.Redis, user: str) -> None:
    sessions = SessionStore(client, "project-a")
    await sessions.add({user: [play(user, "p", 1.0)]})
    await sessions.move("project-b")
    assert (await view(client, "project-b", user))[0] == ("296",)
    assert await sessions.settled()
    assert not await SessionStore(client, "project-c").settled()


async def test_a_state_is_not_kept_for_ever(client: aioredis.Redis, user: str) -> None:
    await SessionStore(client, "project-a").add({user: [play(user, "p", 1.0)]})
    assert await client.ttl(PREFIX + user.encode()) > 86_400


async def test_a_dead_redis_is_a_dependency_error(free_port) -> None:
    nobody = connect(f"redis://127.0.0.1:{free_port()}")
    with pytest.raises(DependencyError):
        await SessionStore(nobody, "project-a").add({"u": [play("u", "p", 1.0)]})
    await nobody.aclose()
