"""The request path on one screen: read || retrieve -> merge -> rank -> re-rank -> answer, or step down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence

import numpy as np

from app.beside.rungs import offer_rungs
from app.falling_back import fallen_back
from app.pipeline import Pipeline
from app.ranking import NARROWED, rank
from app.slate_context import explored, seed_of, slate_context, spent_on
from app.trail import Trail
from app.why import Merging, Trace
from domain.answer import Answer
from domain.arrays import NO_ROWS, Rows
from domain.candidates import Candidates
from domain.deadline import Deadline
from domain.degradation import DegradationLevel
from domain.request import Query, Request
from domain.slate import Slate, impressions_left
from domain.user import Freshness, UserFeatures
from reranking.apply import apply
from reranking.filters import filters_among
from retrieval.gather import Found, gather
from retrieval.merge import forced_rows, merge, with_forced

READ_SHARE = 0.65  # of retrieval's time, at most, for the user's read: 25 of 40 ms
GRACE_SHARE = 0.25  # of the reserve: when even the rungs that need no I/O are late, the lists have this much time


async def recommend(pipeline: Pipeline, query: Query, deadline: Deadline) -> Answer:
    """The best slate that can be had by ``deadline``; never fails because something behind the service did."""
    trail = Trail()
    request = pipeline.resolve(query)
    if time.time() > pipeline.stale_at:
        trail.degradation.note("model_stale")
    if query.page and query.page.bundle != pipeline.bundle:
        trail.degradation.note("cursor.other_bundle")
    reserve = pipeline.budget.fallback
    path = asyncio.create_task(_full_path(pipeline, request, deadline.earlier(reserve), trail))
    try:
        # Every stage keeps its time. This is for what does not heed its cancellation: nobody waits for that.
        await asyncio.wait({path}, timeout=deadline.earlier(reserve * GRACE_SHARE).remaining)
        if path.done():
            slate = path.result()
        else:
            trail, slate = trail.abandoned(), None
            trail.degradation.note("deadline.near")
    finally:
        path.cancel()
        path.add_done_callback(_forget)
    return trail.answer(pipeline, query, fallen_back(pipeline, request, trail) if slate is None else slate)


async def _full_path(pipeline: Pipeline, request: Request, deadline: Deadline, trail: Trail) -> Slate | None:
    """The slate from retrieval and ranking, or None when only a precomputed one can be had by ``deadline``."""
    if deadline.expired:
        trail.degradation.note("deadline.expired")
        return None
    user_task = asyncio.create_task(_read(pipeline, request, deadline, trail))
    try:
        with trail.timed("retrieval"):
            ceiling = deadline.within(pipeline.budget.retrieval)
            found = await gather(pipeline.sources, pipeline.attempt, pipeline.compute, request, user_task, ceiling)
        user = await user_task
    finally:
        user_task.cancel()
    candidates = _merge(pipeline, request, user, found, trail)
    if not len(candidates) or deadline.expired:
        trail.degradation.note("deadline.near" if deadline.expired else "retrieval.empty")
        return None
    with trail.timed("ranking"):
        ranked = await rank(pipeline, user, candidates, deadline, trail)
    offer_rungs(pipeline, request, user, candidates)
    with trail.timed("reranking"):
        slate = Slate(ranked, request.limit, slate_context(pipeline, request, user))
        slate, skipped = apply(pipeline.rules, slate, deadline.within(pipeline.budget.reranking))
    for rule in skipped:
        trail.degradation.note(f"{rule}.timeout")
    trail.trace = Trace(request, user, found, trail.merging, candidates, ranked, slate.context, skipped)
    return slate


async def _read(pipeline: Pipeline, request: Request, deadline: Deadline, trail: Trail) -> UserFeatures:
    # However little time there is, the sources that wait for the user keep some of it for themselves.
    shared = deadline.within(pipeline.budget.retrieval).remaining * READ_SHARE
    with trail.timed("features"):
        user = await pipeline.reader.read(request, deadline.within(min(pipeline.budget.features, shared)))
    if user.freshness is Freshness.STALE:
        trail.degradation.step(DegradationLevel.STALE_FEATURES, user.reason or "features.stale")
    elif user.freshness is Freshness.NEW:
        trail.degradation.note("cold_start")
    return user


def _merge(
    pipeline: Pipeline, request: Request, user: UserFeatures, found: Sequence[Found], trail: Trail
) -> Candidates:
    """The candidates to rank, with the items of running campaigns among them."""
    nobody_yet = user.freshness is Freshness.NEW
    for answer in found:
        trail.proposed[answer.source] = len(answer.candidates)
        if answer.cause is not None:
            trail.degradation.step(DegradationLevel.PARTIAL_RETRIEVAL, f"{answer.source}.{answer.cause}")
        elif not len(answer.candidates) and not (nobody_yet or answer.source in pipeline.silent):
            trail.degradation.note(f"{answer.source}.no_history")
    seed = seed_of(request, time.time())
    promoted, tried = _promoted(pipeline, request, user), explored(pipeline, seed)
    proposed = [answer.candidates.item_row for answer in found]
    barred = _barred(pipeline, request, [*proposed, promoted, tried])
    wanted = pipeline.narrowed(pipeline.budget.candidates)
    with pipeline.offer.without(user.seen, request.exclude, barred) as keep:
        candidates = merge([answer.candidates for answer in found], pipeline.quotas, keep, wanted)
        promoted, tried = promoted[keep[promoted]], tried[keep[tried]]
    forced = forced_rows(tried, promoted, wanted, seed)
    if len(candidates) == wanted < pipeline.budget.candidates:
        trail.degradation.step(DegradationLevel.PARTIAL_RETRIEVAL, NARROWED)
    trail.merging = Merging(pipeline.quotas, wanted, forced, barred)
    return with_forced(candidates, forced, wanted) if len(candidates) else candidates


def _barred(pipeline: Pipeline, request: Request, offered: Sequence[Rows]) -> Rows:
    """Of what is ``offered``, what the filters keep from this audience: no place in the ranking for it."""
    filters = filters_among(pipeline.rules)
    unlimited = request.context.max_age_rating is None and request.context.region is None
    if filters is None or unlimited or pipeline.items.facets is None:
        return NO_ROWS
    rows = np.concatenate(offered)
    rows = rows[(rows >= 0) & (rows < len(pipeline.items))]
    return rows[~filters.allowed(slate_context(pipeline, request), rows)]


def _promoted(pipeline: Pipeline, request: Request, user: UserFeatures) -> Rows:
    """The items of campaigns that have something left to show to this user."""
    if not pipeline.campaigns:
        return NO_ROWS
    left = impressions_left(pipeline.campaigns, time.time(), spent_on(pipeline, request, user))
    rows = [campaign.item_row for campaign in pipeline.campaigns if left[campaign.name]]
    return np.unique(np.concatenate(rows)) if rows else NO_ROWS


def _forget(path: asyncio.Task[Slate | None]) -> None:
    """What an abandoned path raises at its end is nobody's business any more."""
    if not path.cancelled():
        path.exception()
