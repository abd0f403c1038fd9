"""The scenarios that are more than one fault under one load."""

from __future__ import annotations

import asyncio
import contextlib
import itertools
import json
import math
import random
import shutil
from collections import Counter
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

import grpc
import grpc.aio

from app.ranking import NARROWED
from domain.degradation import DegradationLevel as Level
from loadtests.grpc_door import GrpcDoor
from loadtests.http_connection import Response
from loadtests.load_result import LoadResult, Sample
from loadtests.open_loop import HttpDoor, offer
from loadtests.rig import HOST, Rig, sigterm
from loadtests.scenarios import Outcome, Scenario, judged, nothing, recovery_seconds
from loadtests.traffic import Traffic, http_request

PREFETCH = (("x-request-priority", "prefetch"),)
USER = (("x-request-priority", "user"),)
STORM_USERS = 400  # so many that nobody's slates get beyond their best items soon
STORM_CALLS_PER_SECOND = 100
MOST_ITEMS = 100  # of an answer
SAME_SCORE = 0.02  # relative
SLOT_SECONDS = 0.02  # of the delaying ranker
CONNECTIONS = 64  # to each worker under overload
OVERLOAD_WORKERS = 2  # share its slots: one worker has not the CPU for the capacity and for what is beyond
OVERLOAD_SECONDS = 10.0
SETTLING_SECONDS = 2.0  # for the adaptive limit to find the new capacity; what happens meanwhile must still be a 200
IN_TIME_SECONDS = 0.2


def door(rig: Rig, users: Sequence[str], headers: Sequence[tuple[str, str]] = (), **more: Any) -> HttpDoor:
    return HttpDoor(HOST, rig.port, Traffic(users, cold=0.0, headers=headers), **more)


async def sigterm_under_load(rig: Rig, users: Sequence[str], promises: dict[str, Any]) -> Outcome:
    """Beside a second worker the first is told to stop: no request fails or is worse, whichever worker had it."""
    scenario = Scenario("sigterm_under_load", Level.FULL, nothing, recovers=False)
    old = next(part for part in rig.workers if part.running)
    await rig.workers_are(2)
    asking = door(rig, users)
    await offer(asking, promises["rate"], SETTLING_SECONDS)
    loading = asyncio.ensure_future(offer(asking, promises["rate"], promises["fault_seconds"]))
    try:
        await asyncio.sleep(promises["fault_seconds"] / 3)
        sigterm(old)
        during = await loading
        broken = judged(scenario, during, float("nan"), promises)
        broken += [] if await asyncio.to_thread(old.process.wait, 20) == 0 else ["the worker did not end with status 0"]
    finally:
        loading.cancel()
        await asking.close()
    return Outcome(scenario.name, scenario.level.name, during, float("nan"), tuple(broken), whole=during)


async def corrupt_bundle(rig: Rig, users: Sequence[str], promises: dict[str, Any]) -> Outcome:
    """A publication whose index is damaged: refused by every worker, counted, and the one before serves on."""
    scenario = Scenario("corrupt_bundle", Level.FULL, nothing, recovers=False)
    good = (rig.settings.home / "current").resolve()
    bad = good.with_name("999")
    await asyncio.to_thread(shutil.copytree, good, bad)
    index = bad / "two_tower" / "index.faiss"
    whole = index.read_bytes()
    index.write_bytes(whole[: len(whole) // 2] + bytes(len(whole) - len(whole) // 2))
    asking = door(rig, users)
    loading = asyncio.ensure_future(offer(asking, promises["rate"], 5.0))
    try:
        rig.point_at(bad)
        during = await loading
        refused = await rig.metric("streamrec_bundles_refused_total")
    finally:
        loading.cancel()
        rig.point_at(good)
        await asking.close()
    broken = judged(scenario, during, float("nan"), promises)
    broken += [] if refused else ["no worker refused the damaged bundle"]
    return Outcome(scenario.name, "FULL", during, float("nan"), tuple(broken), whole=during)


async def cancel_storm(rig: Rig, users: Sequence[str], promises: dict[str, Any]) -> Outcome:
    """Callers that leave in the middle, over gRPC, which cancels the handler: nobody gets what another asked for."""
    scenario = Scenario("cancel_storm", Level.SIMPLE_RANKING, nothing, felt=False, recovers=True)
    chosen = list(users[:: max(1, len(users) // STORM_USERS)][:STORM_USERS])
    own = {user: await _own_scores(rig, user) for user in chosen}
    told = Counter[bool | None]()

    def inspect(user: str, response: Response) -> None:
        if response.status == 200:
            answer = json.loads(response.body)
            whose = _whose(_scores(answer), own) if answer["degradation"]["level"] == "FULL" else None
            told[whose == user if whose else None] += 1

    everybody = Traffic(chosen, skew=0.0, cold=0.0)  # a popular user would soon be beyond the best items that we know
    asking = HttpDoor(HOST, rig.port, everybody, inspect=inspect)
    start = asyncio.get_running_loop().time()
    over = asyncio.Event()
    storming = asyncio.ensure_future(_storm(rig, chosen, over))
    try:
        during = await offer(asking, promises["rate"], promises["fault_seconds"], start)
        over.set()
        cancelled = await storming
        mended = asyncio.get_running_loop().time() - start
        after = await offer(asking, promises["rate"], promises["recovery_seconds"], start)
    finally:
        over.set()
        await asking.close()
    late = LoadResult(after.offered, after.seconds, [part._replace(due=part.due - mended) for part in after.samples])
    recovery = recovery_seconds(late)
    broken = judged(scenario, during, recovery, promises)
    broken += [f"{told[False]} answers with another user's slate"] if told[False] else []
    broken += [] if told[True] > told[None] else [f"only of {told[True]} answers it could be told whose they were"]
    broken += [] if cancelled else ["nothing was cancelled"]
    whole = LoadResult(during.offered, during.seconds + after.seconds, [*during.samples, *after.samples])
    says = f"{cancelled} calls cancelled, {told[True]} slates known as their user's"
    return Outcome(scenario.name, scenario.level.name, during, recovery, tuple(broken), whole=whole, told=says)


async def _own_scores(rig: Rig, user: str) -> dict[str, float]:
    """What the ranker gives the user's best items when nobody else asks; a prefetch, so that they do not stand back."""
    asking = HttpDoor(HOST, rig.port, Traffic([user], cold=0.0))
    request = http_request(HOST, user, MOST_ITEMS, "x-request-priority: prefetch\r\n")
    response = await asking._exchange(request)  # noqa: SLF001 - beside the traffic
    await asking.close()
    return _scores(json.loads(response.body))


def _scores(answer: dict[str, Any]) -> dict[str, float]:
    return {item["item_id"]: item["score"] for item in answer["items"]}


def _whose(scores: dict[str, float], own: dict[str, dict[str, float]]) -> str | None:
    """The user to whom the ranker gives these scores; None if it is nobody's that we know.

    Which items are shown says little: what a user was just shown stands back, so the second slate is not the first, and
    a late one may be beyond the best that we know. Scores move a little, because features age between two answers.
    """

    def alike(user: str) -> int:
        known = own[user]
        return sum(abs(score - known.get(item, math.inf)) <= SAME_SCORE * score for item, score in scores.items())

    found = max(own, key=alike)
    return found if alike(found) * 2 >= len(scores) else None


async def _storm(rig: Rig, users: Sequence[str], over: asyncio.Event) -> int:
    """Calls that are cancelled after 0 to 10 ms, until it is over; returns how many were cut off."""
    calling = GrpcDoor(f"{HOST}:{rig.settings.grpc_port}", Traffic(users, cold=0.0))
    chance, cut_off = random.Random(0), 0
    try:
        for user in itertools.cycle(users):
            if over.is_set():
                break
            call = calling.call(user)
            await asyncio.sleep(chance.random() / STORM_CALLS_PER_SECOND)
            cut_off += call.cancel()
            with contextlib.suppress(grpc.aio.AioRpcError, asyncio.CancelledError):
                await call
    finally:
        await calling.close()
    return cut_off


async def _even_door(rig: Rig, users: Sequence[str], headers: Sequence[tuple[str, str]] = ()) -> HttpDoor:
    """Each worker gets its share: with half of the capacity each, anything else would leave some of it unused."""
    asking = door(rig, users, headers, in_turn=True)
    asking.hold(await rig.even_connections(CONNECTIONS))
    return asking


async def _fix_capacity(rig: Rig, users: Sequence[str], per_second: float) -> None:
    """From now on the workers together rank so many requests a second, all of them warm."""
    await rig.workers_are(OVERLOAD_WORKERS)
    slots = round(per_second * SLOT_SECONDS / OVERLOAD_WORKERS)
    await rig.faults(ranker_slots=slots, ranker_seconds=SLOT_SECONDS)
    warming = await _even_door(rig, users)
    await offer(warming, per_second / 4, SETTLING_SECONDS)
    await warming.close()


async def prefetch_flood(rig: Rig, users: Sequence[str], promises: dict[str, Any]) -> Outcome:
    """Prefetch at twice the capacity beside people: people keep the full path, prefetch takes what is left."""
    capacity = promises["overload"]["capacity"]
    await _fix_capacity(rig, users, capacity)
    people, flood = await _even_door(rig, users, USER), await _even_door(rig, users, PREFETCH)
    try:
        start = asyncio.get_running_loop().time()
        theirs, prefetched = await asyncio.gather(
            offer(people, promises["rate"], OVERLOAD_SECONDS, start),
            offer(flood, 2.0 * capacity, OVERLOAD_SECONDS, start),
        )
    finally:
        await people.close()
        await flood.close()
    settled = theirs.between(SETTLING_SECONDS, OVERLOAD_SECONDS)
    broken = [] if theirs.availability == 1.0 else [f"people were refused or failed: {dict(theirs.statuses)}"]
    share = len(_on_full_path(settled).samples) / len(settled.samples)
    broken += [] if share >= promises["overload"]["min_full_of_capacity_ratio"] else [f"{share:.0%} of people in full"]
    broken += _other_than_refused(prefetched)
    theirs_too = _on_full_path(prefetched.between(SETTLING_SECONDS, OVERLOAD_SECONDS))
    told = f"people on the full path {share:.0%}; prefetch {len(theirs_too.samples) / theirs_too.seconds:.0f}/s"
    return Outcome("prefetch_flood", "FULL for people", theirs, float("nan"), tuple(broken), whole=theirs, told=told)


def overload(
    name: str, times: float, which: str = "capacity"
) -> Callable[[Rig, Sequence[str], dict[str, Any]], Awaitable[Outcome]]:
    """``times`` the capacity of a delaying ranker, so that neither the generator nor the machine is measured."""

    async def play(rig: Rig, users: Sequence[str], promises: dict[str, Any]) -> Outcome:
        wanted = promises["overload"]
        capacity = wanted[which]
        await _fix_capacity(rig, users, capacity)
        asking = await _even_door(rig, users)
        try:
            start = asyncio.get_running_loop().time()
            during = await offer(asking, times * capacity, OVERLOAD_SECONDS, start)
            ended = asyncio.get_running_loop().time() - start
            after = await offer(asking, promises["rate"], wanted["recovery_seconds"] + 1.0, start)
        finally:
            await asking.close()
        late = [part._replace(due=part.due - ended) for part in after.samples]
        recovery = recovery_seconds(LoadResult(after.offered, after.seconds, late))
        settled = during.between(SETTLING_SECONDS, OVERLOAD_SECONDS)
        broken = _overload_broken(settled, wanted | {"capacity": capacity})
        broken += _other_than_refused(during)
        broken += [] if recovery <= wanted["recovery_seconds"] else [f"FULL again after {recovery:.1f} s"]
        samples = [*during.samples, *after.samples]
        whole = LoadResult(during.offered, during.seconds + after.seconds, samples)
        rest = _short_or_refused(settled)
        told = f"{_of_capacity(settled, capacity):.0%} of capacity on the full path in time, the rest in "
        told += f"{rest.quantile(50) * 1000:.1f} ms (p95 {rest.quantile(95) * 1000:.1f})"
        return Outcome(name, "FULL up to capacity", during, recovery, tuple(broken), whole=whole, told=told)

    return play


def _overload_broken(settled: LoadResult, wanted: dict[str, Any]) -> list[str]:
    share, rest = _of_capacity(settled, wanted["capacity"]), _short_or_refused(settled)
    broken = []
    if share < wanted["min_full_of_capacity_ratio"]:
        broken.append(f"{share:.0%} of capacity on the full path in time")
    if rest.samples and rest.quantile(50) * 1000 > wanted["max_refusal_ms"]:
        median, p95 = rest.quantile(50) * 1000, rest.quantile(95) * 1000
        broken.append(f"the short path took {median:.1f} ms at the median (p95 {p95:.1f})")
    return broken


def _of_capacity(settled: LoadResult, capacity: float) -> float:
    return len(_on_full_path(settled).samples) / settled.seconds / capacity


def _short_or_refused(settled: LoadResult) -> LoadResult:
    return settled.only(lambda part: part.status == 429 or part.level in {"BATCH_LIST", "POPULAR"})


def _on_full_path(result: LoadResult) -> LoadResult:
    """Ranked by the ranker, in time; under load perhaps fewer candidates, which is what comes before the short path."""
    return result.only(lambda part: bool(part.level) and not set(part.reasons) - {NARROWED} and _in_time(part))


def _in_time(part: Sample) -> bool:
    return part.seconds <= IN_TIME_SECONDS


def _other_than_refused(result: LoadResult) -> list[str]:
    bad = {status: n for status, n in result.statuses.items() if status not in {200, 429}}
    return [f"neither answered nor refused: {bad}"] if bad else []


SPECIAL = {
    "corrupt_bundle": corrupt_bundle,
    "cancel_storm": cancel_storm,
    "sigterm_under_load": sigterm_under_load,
    "prefetch_flood": prefetch_flood,
} | {
    name: overload(name, times, which)
    for name, times, which in (
        ("overload_2x", 2.0, "capacity"),
        ("overload_5x", 5.0, "capacity"),
        ("overload_5x_of_100", 5.0, "small_capacity"),
    )
}
