"""The quick start's users as training leaves them, without its models: seconds instead of minutes."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest

from app.beside.feature_watch import FeatureWatch
from app.user_reader import UserReader
from domain.arrays import Floats
from domain.catalogue import Items, Users
from domain.clock import ReplayClock
from domain.deadline import Deadline
from domain.request import Context, Request
from domain.user import UserFeatures
from fallbacks.stale_features import StaleFeatures
from features.counts import Bins
from features.definitions import ItemFacts, user_features
from features.online import Recents, StoredUser
from monitoring.skew import Skew, judge
from release.bundle import ReferenceTables
from training import sources
from training.dataset import read
from training.reference import reference_tables
from training.split import everything

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = 1_760_000_000.0
UNTRAINED = ("context_device", "context_surface")
Change = Callable[[UserFeatures], UserFeatures]


@dataclass(frozen=True)
class QuickStart:
    """671 real users, replayed in process: the reader and the watch that serve, over a store that holds every row."""

    users: Users
    items: Items
    facts: ItemFacts
    reference: ReferenceTables
    ended_at: float

    async def read(self, user_id: str) -> StoredUser | None:
        features = self.users.features[self.users.ids.row(user_id)]
        return StoredUser(features, Recents.none(), self.ended_at, 0.0, stale=False, problems=())

    def with_stored(self, features: Floats) -> QuickStart:
        """The same users, other rows in the store: what a faulty batch step would write."""
        return replace(self, users=replace(self.users, features=features))

    def clock(self, elapsed: float) -> ReplayClock:
        return ReplayClock(PUBLISHED, self.ended_at, lambda: PUBLISHED + elapsed)

    async def serve(self, rows: np.ndarray, elapsed: float, change: Change = lambda user: user) -> Skew:
        """Requests of these users so long after publishing; ``change`` spoils what the rankers get."""
        clock = self.clock(elapsed)
        bins = Bins(self.reference.edges, self.reference.ages)
        watch, unused = (FeatureWatch("b", bins, clock, clock.wall) for _ in range(2))
        reader = UserReader(
            self, _attempt, StaleFeatures(), "project", _no_problem, self.users, self.items, self.facts, clock, unused
        )
        for row in rows.tolist():
            now = clock.now(self.users.history(row).last_event)
            request = Request(self.users.ids.text(row), row, 20, Context(), now)
            watch.saw(change(await reader.read(request, Deadline.after(60))), now)
        counted = watch.count()
        counted.reads[...] = unused.count().reads
        return judge(self.reference, counted, UNTRAINED)


async def _attempt(name, work, deadline):
    return await work()


def _no_problem(feature: str, reason: str) -> None:
    raise AssertionError(f"the contract's check spoke: {feature} {reason}")


@pytest.fixture(scope="session")
def quick_start() -> QuickStart:
    dataset = read(ROOT / "data" / "movielens-small")
    cut = everything(dataset)
    facts = sources.item_facts(cut)
    histories = [dataset.history(user) for user in range(len(dataset.user_ids))]
    rows = [user_features(history, (history.last_event or 0.0) + 1.0, facts) for history in histories]
    users = Users(
        dataset.user_ids,
        np.stack(rows),
        dataset.indptr,
        dataset.item_row,
        dataset.rating,
        dataset.timestamp,
        dataset.ended_at,
    )
    reference = reference_tables(dataset, users, facts)
    return QuickStart(users, sources.item_table(cut), facts, reference, dataset.ended_at)


@pytest.fixture
def everybody(quick_start: QuickStart) -> np.ndarray:
    return np.arange(len(quick_start.users))


@pytest.fixture
def thousand(quick_start: QuickStart) -> np.ndarray:
    """A thousand requests of users drawn by chance."""
    return np.random.default_rng(5).integers(0, len(quick_start.users), 1000)
