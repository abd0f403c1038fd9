"""The user's read: one shared task a request, which always resolves and never raises."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Protocol

import numpy as np

from app.beside.feature_watch import FeatureWatch
from domain.arrays import Floats, Seconds
from domain.catalogue import History, Items, Users
from domain.clock import Clock
from domain.deadline import Deadline
from domain.errors import DependencyError
from domain.request import Request
from domain.user import Freshness, Shown, UserFeatures
from fallbacks.stale_features import StaleFeatures
from features.contract import CONTRACT
from features.definitions import ItemFacts, context_codes, request_features, user_features
from features.online import StoredUser
from features.shown import ShownIds, today
from retrieval.gather import Attempt

PART = "features"
MISSING = f"{PART}.missing"
EVENTS_LATE = "events.lag"
MAX_AGE_SECONDS = min(feature.max_age_seconds for feature in CONTRACT.user.features)


class Store(Protocol):
    """The online store: the user's row as of its watermark, or None; raises ``DependencyError``."""

    async def read(self, user_id: str) -> StoredUser | None: ...


@dataclass(frozen=True, slots=True, eq=False)
class UserReader:
    """What is known about a user: the online store's row, else the last one seen here, else the bundle's."""

    store: Store
    attempt: Attempt
    last_seen: StaleFeatures
    project: str  # whose rows the store holds
    problem: Callable[[str, str], None]  # told of every stored value that could not be used: feature, reason
    users: Users
    items: Items
    facts: ItemFacts
    clock: Clock
    watch: FeatureWatch
    lag: Callable[[], float] = float  # seconds that the consumers of events are behind; none unless wired
    max_lag_seconds: float = 600.0

    async def read(self, request: Request, deadline: Deadline) -> UserFeatures:
        """The user's features and whole history at the request's moment, by ``deadline``."""
        user = await self._read(request, deadline)
        self.watch.saw(user, request.now)
        return user

    async def _read(self, request: Request, deadline: Deadline) -> UserFeatures:
        if request.user_id is None:
            return self._assemble(request, None, Freshness.NEW, None)
        user_id = request.user_id
        try:
            stored = await self.attempt(PART, lambda: self.store.read(user_id), deadline)
        except DependencyError as error:
            self._count_read(request, None)
            return self._assemble(request, self._last_seen(user_id), Freshness.STALE, f"{PART}.{error.cause}")
        self._count_read(request, stored)
        for feature, problem in stored.problems if stored is not None else ():
            self.problem(feature, problem)
        reason = self._stale(request, stored)
        if reason == MISSING:
            stored = self._made_good(user_id, stored)
        if stored is None:
            self.last_seen.forget(self.project, user_id)
        else:
            self.last_seen.keep(self.project, user_id, stored)
        if reason is not None:
            return self._assemble(request, stored, Freshness.STALE, reason)
        known = stored is not None and stored.has_batch
        return self._assemble(request, stored, Freshness.FRESH if known else Freshness.NEW, None)

    def _stale(self, request: Request, stored: StoredUser | None) -> str | None:
        """What is missing or over its limit, if anything is. It is never the user who is late, but a pipeline."""
        if request.user_row >= 0 and (stored is None or not stored.has_batch):
            return MISSING
        if stored is not None and stored.stale:
            return f"{PART}.stale"
        return EVENTS_LATE if self.lag() > self.max_lag_seconds else None

    def _made_good(self, user_id: str, stored: StoredUser | None) -> StoredUser | None:
        """For a known user whose row the store has lost: what was last seen here, then what the stream wrote since.

        Only who is in neither the store nor the bundle has been deleted; nothing of theirs is taken from here.
        """
        last = self._last_seen(user_id)
        if last is None or stored is None:
            return stored if last is None else last
        recent = last.recent.then(stored.recent)
        shown = stored.shown if stored.shown.item_ids else last.shown
        return replace(last if last.has_batch else stored, recent=recent, shown=shown)

    def _count_read(self, request: Request, stored: StoredUser | None) -> None:
        """Only users of the bundle: publishing wrote each of them, so whoever is not there is missing."""
        if request.user_row >= 0:
            self.watch.read(whole=stored is not None and stored.has_batch and not stored.problems)

    def history(self, request: Request) -> History:
        """What the bundle, the last read here and the request itself know, with no I/O: for rungs below retrieval."""
        history = self.users.history(request.user_row)
        stored = None if request.user_id is None else self._last_seen(request.user_id)
        if stored is not None:
            history = history.then(self._recent(stored, history.last_event))
        return history.then(_just_now(request))

    def without_store(self, request: Request) -> UserFeatures:
        """What the user's read falls back on, with no I/O: the last good read here, else the bundle's."""
        stored = None if request.user_id is None else self._last_seen(request.user_id)
        return self._assemble(request, stored, Freshness.STALE, None)

    def _last_seen(self, user_id: str) -> StoredUser | None:
        """The last good read of the user here, unless it is older than any of its features may be."""
        stored = self.last_seen.last(self.project, user_id)
        too_old = stored is not None and self.clock.now(None) - stored.as_of > MAX_AGE_SECONDS
        return None if too_old else stored

    def _assemble(
        self, request: Request, stored: StoredUser | None, freshness: Freshness, reason: str | None
    ) -> UserFeatures:
        history = self.users.history(request.user_row)
        if stored is not None:
            history = history.then(self._recent(stored, history.last_event))
        history = history.then(_just_now(request))
        columns = self._stored_columns(request, stored, history), request_features(history, request.now, self.facts)
        return UserFeatures(
            row=request.user_row,
            numeric=np.concatenate(columns),
            codes=context_codes(request.context, request.now),
            history=history,
            as_of=self.users.as_of if stored is None else stored.as_of,
            freshness=freshness,
            reason=reason,
            shown=Shown.nothing() if stored is None else self._shown(stored.shown),
            promoted=stored.promoted.by_campaign if stored and stored.promoted.day == today(time.time()) else {},
        )

    def _shown(self, shown: ShownIds) -> Shown:
        """What the user was shown lately, of the items that this bundle has."""
        if not shown.item_ids:
            return Shown.nothing()
        rows, ages = self.items.ids.rows(shown.item_ids), time.time() - shown.at
        known = rows >= 0
        return Shown(rows, ages) if known.all() else Shown(rows[known], ages[known])

    def _stored_columns(self, request: Request, stored: StoredUser | None, history: History) -> Floats:
        """``(U,)``: the store's, else the bundle's, else computed from what the stream or the request brought along."""
        if stored is not None and stored.has_batch:
            return stored.features
        if request.user_row >= 0:
            return self.users.features[request.user_row]
        return user_features(history, request.now, self.facts) if len(history) else CONTRACT.user.defaults

    def _recent(self, stored: StoredUser, last_event: float | None) -> History:
        """The store's recent events that this bundle has items for, oldest first, at their time on the data's clock."""
        if not len(stored.recent):
            return History.none()
        rows, at = self.items.ids.rows(stored.recent.item_ids), self.clock.at
        times = np.array([at(wall, last_event) for wall in stored.recent.timestamp.tolist()], np.float64)
        events, known = History(rows, stored.recent.rating, times), rows >= 0
        return events if known.all() else events.only(known)


def _just_now(request: Request) -> History:
    """The request's own recent items, as events of the second before it."""
    h = len(request.recent)
    if not h:
        return History.none()
    times: Seconds = np.full(h, request.now - 1.0)
    return History(request.recent, np.full(h, np.nan, np.float32), times)
