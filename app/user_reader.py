"""The user's read: one shared task a request, which always resolves and never raises."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from domain.arrays import Floats, Seconds
from domain.catalogue import History, Items, Users
from domain.deadline import Deadline
from domain.errors import DependencyError
from domain.request import Request
from domain.user import Freshness, UserFeatures
from fallbacks.stale_features import StaleFeatures
from features.contract import CONTRACT
from features.definitions import ItemFacts, before, context_codes, moment_features, user_features
from features.online import StoredUser
from retrieval.gather import Attempt

PART = "features"


class Store(Protocol):
    """The online store: the user's row as of its watermark, or None; raises ``DependencyError``."""

    async def read(self, user_id: str) -> StoredUser | None: ...


@dataclass(frozen=True, slots=True, eq=False)
class UserReader:
    """What is known about a user: the online store's row, else the last one seen here, else the bundle's."""

    store: Store
    attempt: Attempt
    last_seen: StaleFeatures
    problem: Callable[[str, str], None]  # told of every stored value that could not be used: feature, reason
    users: Users
    items: Items
    facts: ItemFacts

    async def read(self, request: Request, deadline: Deadline) -> UserFeatures:
        """The user's features and whole history at the request's moment, by ``deadline``."""
        if request.user_id is None:
            return self._assemble(request, None, Freshness.NEW, None)
        user_id = request.user_id
        try:
            stored = await self.attempt(PART, lambda: self.store.read(user_id), deadline)
        except DependencyError as error:
            return self._assemble(request, self.last_seen.last(user_id), Freshness.STALE, f"{PART}.{error.cause}")
        if stored is not None:
            self.last_seen.keep(user_id, stored)
            for feature, problem in stored.problems:
                self.problem(feature, problem)
            freshness = Freshness.STALE if stored.stale else Freshness.FRESH
            return self._assemble(request, stored, freshness, f"{PART}.stale" if stored.stale else None)
        if request.user_row >= 0:
            return self._assemble(request, None, Freshness.STALE, f"{PART}.missing")
        return self._assemble(request, None, Freshness.NEW, None)

    def history(self, request: Request) -> History:
        """What the bundle and the request itself know, with no read at all: for the rungs below retrieval."""
        return self.users.history(request.user_row).then(_just_now(request))

    def _assemble(
        self, request: Request, stored: StoredUser | None, freshness: Freshness, reason: str | None
    ) -> UserFeatures:
        history = self.users.history(request.user_row)
        if stored is not None:
            history = history.then(self._recent(stored))
        history = history.then(_just_now(request))
        past = before(history, request.now)
        return UserFeatures(
            row=request.user_row,
            numeric=np.concatenate(
                [self._stored_columns(request, stored, history), moment_features(past.last_event, request.now)]
            ),
            codes=context_codes(request.context, request.now),
            history=history,
            as_of=self.users.as_of if stored is None else stored.as_of,
            freshness=freshness,
            reason=reason,
        )

    def _stored_columns(self, request: Request, stored: StoredUser | None, history: History) -> Floats:
        """``(U,)``: the store's, else the bundle's, else computed from what the request brought along."""
        if stored is not None:
            return stored.features
        if request.user_row >= 0:
            return self.users.features[request.user_row]
        return user_features(history, request.now, self.facts) if len(history) else CONTRACT.user.defaults

    def _recent(self, stored: StoredUser) -> History:
        """The store's recent events that this bundle has items for, oldest first."""
        rows = self.items.ids.rows(stored.recent.item_ids)
        return History(rows, stored.recent.rating, stored.recent.timestamp).only(rows >= 0)


def _just_now(request: Request) -> History:
    """The request's own recent items, as events of the second before it."""
    h = len(request.recent)
    times: Seconds = np.full(h, request.now - 1.0)
    return History(request.recent, np.full(h, np.nan, np.float32), times)
