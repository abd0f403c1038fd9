"""What a user does changes what they are shown next, through the public doors and with every part real."""

from __future__ import annotations

import os
import re
import signal
import statistics
import time
from collections.abc import Iterator
from functools import partial
from typing import Any
from uuid import uuid4

import httpx
import numpy as np
import orjson
import pytest
import redis

from domain.catalogue import Items
from events.lag import KEY as LAG_KEY
from events.redis_log import DEAD_LETTERS, streams
from events.state import State, state_key
from features.contract import CONTRACT
from release.bundle import Bundle
from tests.e2e.conftest import Service, eventually

ENOUGH = 100  # films of a genre
POPULARITY = CONTRACT.item.slices["item_events_total_count"].start
FILMS = 5
SHARDS = 4


@pytest.fixture
def client(service: Service) -> Iterator[redis.Redis]:
    with redis.Redis(port=int(service.environ["STREAMREC_REDIS_PORT"])) as client:
        yield client


def send(service: Service, *events: dict[str, Any]) -> None:
    body = {"events": [{"event_id": uuid4().hex, "kind": "play", **event} for event in events]}
    response = httpx.post(f"{service.address}/v1/events", json=body, timeout=10)
    assert (response.status_code, response.json()) == (202, {"accepted": len(events)})


def ids_of(service: Service, user: str) -> list[str]:
    return [item["item_id"] for item in service.ask(user_id=user)["items"]]


def share(service: Service, items: Items, user: str, genre: str) -> float:
    """How much of the user's slate is of the genre."""
    rows = items.ids.rows(ids_of(service, user))
    return float(items.genres[rows, items.genre_names.index(genre)].mean())


def quiet_users(bundle: Bundle, n: int) -> list[str]:
    """Those with the shortest histories, whose slates depend most on what they do now."""
    users = bundle.tables.users
    return [users.ids.text(int(row)) for row in np.argsort(np.diff(users.indptr), kind="stable")[:n]]


def films_of(bundle: Bundle, genre: str, user: str) -> list[str]:
    """The most popular films of the genre that the user has not seen."""
    items, users = bundle.tables.items, bundle.tables.users
    of_genre = items.genres[:, items.genre_names.index(genre)].copy()
    of_genre[users.history(users.ids.row(user)).item_row] = False
    popular = np.argsort(np.where(of_genre, -items.features[:, POPULARITY], 0), kind="stable")
    return [items.ids.text(int(row)) for row in popular[:FILMS]]


def differs(service: Service, user: str, slate: list[str]) -> bool:
    return ids_of(service, user) != slate


def consumer(service: Service) -> int:
    """The process id of the consumer that runs now, as the supervisor told it."""
    return int(re.findall(r"consumer 0 .*pid (\d+)", (service.home / "serve.out").read_text())[-1])


def waiting(client: redis.Redis) -> int:
    """Events that no consumer is done with."""
    return sum(client.xlen(stream) for stream in streams(SHARDS))


def test_five_films_of_one_genre_move_the_slate_at_once(service: Service, trained_bundle: Bundle) -> None:
    """Every genre with films enough, one user each: the slate moves at once, and over all genres towards the genre."""
    items = trained_bundle.tables.items
    genres = [name for name, films in zip(items.genre_names, items.genres.sum(axis=0), strict=False) if films >= ENOUGH]
    watched, seconds = [], []
    for user, genre in zip(quiet_users(trained_bundle, len(genres)), genres, strict=True):
        films, slate, before = (
            films_of(trained_bundle, genre, user),
            ids_of(service, user),
            share(service, items, user, genre),
        )
        assert not any(differs(service, user, slate) for _ in range(3))  # it stands still until something happens
        send(service, *({"user_id": user, "item_id": item} for item in films))
        seconds.append(eventually(partial(differs, service, user, slate), 60))
        watched.append((user, genre, films, before))
    past = time.time() + 1.1  # an event in the second of the request is the future to the session's features
    eventually(lambda: time.time() > past, 5)
    moved = {genre: share(service, items, user, genre) - before for user, genre, _, before in watched}
    assert not any(set(ids_of(service, user)) & set(films) for user, _, films, _ in watched)
    print(f"event to changed slate: median {statistics.median(seconds):.3f} s, longest {max(seconds):.3f} s")  # noqa: T201
    print(f"share of the genre, after less before: { {name: round(by, 2) for name, by in moved.items()} }")  # noqa: T201
    assert statistics.median(seconds) < 5
    assert statistics.mean(moved.values()) > 0


def test_a_user_the_bundle_does_not_know_is_known_by_what_they_watch(service: Service, trained_bundle: Bundle) -> None:
    items, user = trained_bundle.tables.items, f"new-{uuid4().hex}"
    start = share(service, items, user, "Animation")
    send(service, *({"user_id": user, "item_id": item} for item in ("1", "2355", "3114")))  # Toy Story and its kin
    eventually(lambda: share(service, items, user, "Animation") > start, 20)


def test_everything_arrives_though_the_consumer_is_killed_in_mid_stream(service: Service, client: redis.Redis) -> None:
    mark, killed = uuid4().hex, consumer(service)
    users, each = [f"{mark}-{n}" for n in range(60)], 50
    for k in range(each):
        send(service, *({"event_id": f"{k:02}", "user_id": user, "item_id": "296", "timestamp": k} for user in users))
        if k == each // 3:
            os.kill(killed, signal.SIGKILL)
    eventually(lambda: waiting(client) == 0, 30)
    assert consumer(service) != killed
    for user in users:
        raw = client.get(state_key(user))
        assert isinstance(raw, bytes)
        assert [recent.event_id for recent in State.decode(raw).recents] == [f"{k:02}" for k in range(each)]


def test_poison_is_a_dead_letter_with_its_reason_and_holds_up_nobody(service: Service, client: redis.Redis) -> None:
    client.xadd(streams(SHARDS)[0], {"event": b"not an event"})
    send(service, {"user_id": f"after-{uuid4().hex}", "item_id": "296"})
    eventually(lambda: waiting(client) == 0, 20)
    letters: Any = client.xrevrange(DEAD_LETTERS, count=1)
    assert {b"event": b"not an event", b"reason": b"not_json"}.items() <= letters[0][1].items()
    text = httpx.get(f"{service.address}/metrics", timeout=10).text
    assert 'streamrec_events_buried_total{reason="not_json"} 1.0' in text


def test_a_consumer_does_not_count_among_those_who_serve_a_bundle(service: Service) -> None:
    text = httpx.get(f"{service.address}/metrics", timeout=10).text
    assert float(re.findall(r"^streamrec_bundle_published_timestamp_seconds (\S+)", text, re.MULTILINE)[0]) > 1e9


def test_consumers_too_far_behind_are_told_in_the_answer_until_they_have_caught_up(
    service: Service, client: redis.Redis
) -> None:
    pid = consumer(service)
    os.kill(pid, signal.SIGSTOP)
    try:
        client.set(LAG_KEY, orjson.dumps([700.0, time.time()]))
        eventually(lambda: late(service), 10)
        assert "streamrec_event_lag_seconds 7" in httpx.get(f"{service.address}/metrics", timeout=10).text
    finally:
        os.kill(pid, signal.SIGCONT)
    eventually(lambda: not late(service), 10)


def late(service: Service) -> bool:
    told = service.ask(user_id="1")["degradation"]
    return bool(told == {"level": "STALE_FEATURES", "reasons": ["events.lag"]})
