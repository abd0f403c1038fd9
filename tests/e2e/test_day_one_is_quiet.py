"""The quick start's own bundle, asked by all of its users: nothing to report, and `streamrec skew` says so."""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import httpx
import pytest

from app.beside.feature_watch import watch_of
from app.user_reader import UserReader
from app.wiring import item_facts
from domain.clock import ReplayClock
from domain.deadline import Deadline
from domain.request import Context, Request
from fallbacks.stale_features import StaleFeatures
from features.online import Recents, StoredUser
from monitoring.psi import WARN
from monitoring.skew import Skew, Verdict, judge, untrained
from release.bundle import Bundle
from tests.e2e.conftest import Service, eventually

HOUR = 3600.0
LATE = {"features.timeout", "features.open"}


class Stored:
    """Every user's row as publishing writes it."""

    def __init__(self, bundle: Bundle) -> None:
        self.users = bundle.tables.users

    async def read(self, user_id: str) -> StoredUser:
        features = self.users.features[self.users.ids.row(user_id)]
        return StoredUser(features, Recents.none(), self.users.as_of, 0.0, stale=False, problems=())


async def replayed(bundle: Bundle, elapsed: float) -> Skew:
    """One request of every user, so long after publishing."""
    users, items = bundle.tables.users, bundle.tables.items
    dataset = bundle.manifest.dataset
    clock = ReplayClock(1e9, dataset.ended_at, lambda: 1e9 + elapsed)
    watch = watch_of(bundle)
    watch.clock, watch.wall = clock, clock.wall

    async def attempt(name, work, deadline):
        return await work()

    facts = item_facts(items, dataset.positive_stars)
    reader = UserReader(
        Stored(bundle), attempt, StaleFeatures(), "project", lambda *_: None, users, items, facts, clock, watch
    )
    for row in range(len(users)):
        now = clock.now(users.history(row).last_event)
        await reader.read(Request(users.ids.text(row), row, 20, Context(), now), Deadline.after(60))
    return judge(bundle.tables.reference, watch.count(), untrained(bundle))


@pytest.mark.parametrize("elapsed", [1.0, 1000.0, HOUR, 7.7 * HOUR, 23.9 * HOUR])
async def test_day_one_is_quiet(trained_bundle: Bundle, elapsed: float) -> None:
    skew = await replayed(trained_bundle, elapsed)
    assert {part.feature for part in skew.features if math.isnan(part.psi)} == untrained(trained_bundle)
    assert all(part.psi < WARN for part in skew.features if not math.isnan(part.psi))
    assert skew.verdict is Verdict.OK
    assert skew.hit_ratio == 1.0


def test_the_running_service_is_quiet_and_says_so(service: Service, trained_bundle: Bundle) -> None:
    users = trained_bundle.tables.users.ids
    with httpx.Client(base_url=service.address, timeout=10) as client, ThreadPoolExecutor(4) as callers:

        def ask(row: int) -> list[str]:
            answer = client.post("/v1/recommendations", json={"user_id": users.text(row), "limit": 5})
            assert answer.status_code == 200
            reasons: list[str] = answer.json()["degradation"]["reasons"]
            return reasons

        late = [reasons for reasons in callers.map(ask, range(len(users))) if LATE & set(reasons)]

    def judged() -> bool:
        return "too few to judge" not in service.run("skew").stdout

    eventually(judged, seconds=60)  # both workers write what they counted every few seconds
    told = service.run("skew")
    assert told.returncode == 0, told.stdout
    assert "alert" not in told.stdout
    warned = [line for line in told.stdout.splitlines() if "warn" in line]
    # the store misses nobody; a busy machine may be late for some, and then their answers say so as well
    assert all(late and line.startswith("hit rate") for line in warned), told.stdout
