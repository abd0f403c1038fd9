"""What the stream keeps of a user: the last events, as a pure function of the set of events seen.

Features of the session are computed from them at the request, by the definitions that training uses. So a repeated
event changes nothing, a late one takes its place, and every order ends in the same state.
"""

from __future__ import annotations

import asyncio
import logging
import math
import random
import time
from collections.abc import AsyncIterator, Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple, TypeAlias, cast

import orjson
import redis.asyncio as aioredis
import redis.exceptions
from redis.asyncio.client import Pipeline

from domain.errors import BadAnswer
from events.event import Event
from events.redis_errors import mapping_errors
from features import layout

PREFIX = b"streamrec:session:"
MOVED_TO = "streamrec:session-project"  # the project that all views were last written to
KEPT_SECONDS = 30 * 86_400  # after so long without an event the bundle's history knows it all
ATTEMPTS = 20
STEP_ASIDE_SECONDS = 0.002
SCAN_KEYS = 500

log = logging.getLogger("streamrec.consumer")


class Recent(NamedTuple):
    """An event as the state keeps it; compared as a tuple, so that any two differ in the same way everywhere."""

    timestamp: float  # UTC seconds on the wall clock
    event_id: str
    item_id: str
    rating: float  # stars; -1 for none

    @classmethod
    def of(cls, event: Event) -> Recent:
        return cls(event.timestamp, event.event_id, event.item_id, -1.0 if event.rating is None else event.rating)


Recents: TypeAlias = tuple[Recent, ...]  # by time, then id, oldest first; each id once


def merge(known: Iterable[Recent], new: Iterable[Recent], keep: int = layout.RECENT_EVENTS) -> Recents:
    """The last ``keep`` events of both together, oldest first.

    Of two events under one id the greater stays. It must be the greater: what falls off the end of the list is then
    smaller than all that stays and can never come back, so every order and every split ends in the same list.
    """
    by_id: dict[str, Recent] = {}
    for recent in (*known, *new):
        held = by_id.get(recent.event_id)
        by_id[recent.event_id] = recent if held is None else max(held, recent)
    return tuple(sorted(by_id.values())[-keep:])


@dataclass(frozen=True, slots=True)
class State:
    """A user's last events, and the event time of the view they were last written under, strictly increasing."""

    recents: Recents = ()
    moment: float = 0.0  # UTC seconds

    @classmethod
    def decode(cls, raw: bytes | None) -> State:
        """What ``encode`` did not make counts as nothing: one unreadable user must not hold up all the others."""
        if raw is None:
            return cls()
        try:
            moment, *recents = orjson.loads(raw)
            return cls(tuple(Recent(float(at), str(e), str(i), float(r)) for at, e, i, r in recents), float(moment))
        except (TypeError, ValueError):
            log.warning("a user's kept events cannot be read: starting anew")
            return cls()

    def encode(self) -> bytes:
        return orjson.dumps([self.moment, *map(tuple, self.recents)])  # orjson takes no named tuples

    def at(self, wall: float) -> State:
        """The same events under a later moment, of a whole microsecond."""
        return State(self.recents, max(round(wall, 6), round(self.moment + 1e-6, 6)))

    def view(self) -> dict[bytes, bytes]:
        """The fields of the Feast view in the user's hash."""
        ratings = [math.nan if recent.rating < 0 else recent.rating for recent in self.recents]
        ids, times = [r.item_id for r in self.recents], [r.timestamp for r in self.recents]
        return layout.session_row(ids, ratings, times, self.moment)


def state_key(user_id: str) -> bytes:
    """Of no project: events are told in external ids and wall-clock times, which every bundle understands."""
    return PREFIX + user_id.encode("utf-8", "surrogatepass")


@dataclass(slots=True, eq=False)
class SessionStore:
    """The states in Redis, each beside its view in the current Feast project, changed together or not at all."""

    client: aioredis.Redis = field(repr=False)
    project: str
    clock: Callable[[], float] = time.time

    async def add(self, events: Mapping[str, Sequence[Event]]) -> None:
        """Merge these events, by user, in three round trips; raises ``DependencyError``.

        Another consumer may be writing the same user: then Redis refuses the transaction and it is done again.
        """
        new = {user: [Recent.of(event) for event in some if event.is_recent] for user, some in events.items()}
        await self._write({user: recents for user, recents in new.items() if recents}, always=False)

    async def move(self, project: str) -> int:
        """Go on in another project, and write every kept user's view there; how many. Raises ``DependencyError``.

        ``add`` may run meanwhile: it writes to the new project from the first moment.
        """
        self.project, moved = project, 0
        async for users in self._users():
            await self._write({user: [] for user in users}, always=True)
            moved += len(users)
        with mapping_errors():
            await self.client.set(MOVED_TO, project)
        return moved

    async def settled(self) -> bool:
        """Whether the project is the one that was last moved to. Raises ``DependencyError``."""
        with mapping_errors():
            held = cast("bytes | None", await self.client.get(MOVED_TO))
        return held == self.project.encode()

    async def _write(self, new: Mapping[str, Sequence[Recent]], *, always: bool) -> None:
        if not new:
            return
        with mapping_errors():
            for attempt in range(ATTEMPTS):
                if await self._attempt(new, always=always):
                    return
                await asyncio.sleep(random.uniform(0, attempt * STEP_ASIDE_SECONDS))  # or two go on in lockstep
        raise BadAnswer("the states of some users kept changing")

    async def _attempt(self, new: Mapping[str, Sequence[Recent]], *, always: bool) -> bool:
        """Whether it was written; not, if one of the states changed meanwhile."""
        users, keys = list(new), [state_key(user) for user in new]
        async with self.client.pipeline(transaction=True) as pipe:
            await pipe.watch(*keys)
            held = cast("list[bytes | None]", await pipe.mget(keys))
            pipe.multi()  # type: ignore[no-untyped-call]
            for user, raw in zip(users, held, strict=True):
                before = State.decode(raw)
                after = merge(before.recents, new[user])
                if always or after != before.recents:
                    self._set(pipe, user, State(after, before.moment).at(self.clock()))
            try:
                await pipe.execute()
            except redis.exceptions.WatchError:
                return False
        return True

    def _set(self, pipe: Pipeline, user: str, state: State) -> None:
        pipe.set(state_key(user), state.encode(), ex=KEPT_SECONDS)
        pipe.hset(layout.row_key(self.project, user), mapping=state.view())  # type: ignore[arg-type]  # bytes, not str

    async def _users(self) -> AsyncIterator[list[str]]:
        cursor = 0
        while True:
            with mapping_errors():
                cursor, found = await self.client.scan(cursor, match=PREFIX + b"*", count=SCAN_KEYS)
            yield [key[len(PREFIX) :].decode("utf-8", "surrogatepass") for key in cast("list[bytes]", found)]
            if not cursor:
                return
