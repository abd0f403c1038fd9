"""The request path on one screen: read || retrieve -> merge -> rank -> re-rank -> answer, or step down."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

import numpy as np

from app.user_reader import UserReader
from domain.answer import Answer, Item
from domain.arrays import NO_ROWS, Floats, Rows
from domain.candidates import Candidates
from domain.catalogue import Items
from domain.clock import Clock
from domain.deadline import Deadline
from domain.degradation import Degradation, DegradationLevel
from domain.errors import BadAnswer, DependencyError
from domain.request import Query, Request
from domain.slate import Campaign, Slate, SlateContext
from domain.stages import Fallback, Ranker, Rule, Source
from domain.user import Freshness, UserFeatures
from reranking.apply import apply
from retrieval.filters import allowed
from retrieval.gather import Attempt, Found, gather
from retrieval.merge import merge, with_forced

RANKING = "ranking"
READ_SHARE = 0.65  # of retrieval's time, at most, for the user's read: 25 of 40 ms


@dataclass(frozen=True, slots=True)
class Budget:
    """Ceilings of the stages in seconds, each also cut by what is left, and how many candidates are ranked."""

    features: float = 0.025
    retrieval: float = 0.040
    ranking: float = 0.080
    reranking: float = 0.010
    fallback: float = 0.020  # kept free at the end for the rungs that need no I/O
    candidates: int = 500


@dataclass(frozen=True, slots=True, eq=False)
class Pipeline:
    """One bundle, wired: everything a request needs. Swapped as a whole, so a request never mixes two bundles."""

    bundle: str
    items: Items
    clock: Clock
    reader: UserReader
    sources: tuple[Source, ...]
    quotas: tuple[int, ...]
    ranker: Ranker
    simple_ranker: Ranker
    rules: tuple[Rule, ...]
    campaigns: tuple[Campaign, ...]
    fallbacks: tuple[Fallback, ...]  # best first; the last one cannot fail
    attempt: Attempt
    budget: Budget

    def resolve(self, query: Query) -> Request:
        """The query in this bundle's rows; ids it does not know are dropped."""
        users = self.reader.users
        row = -1 if query.user_id is None else users.ids.row(query.user_id)
        exclude, recent = self.items.ids.rows(query.exclude_item_ids), self.items.ids.rows(query.recent_item_ids)
        return Request(
            user_id=query.user_id,
            user_row=row,
            limit=query.limit,
            context=query.context,
            now=self.clock.now(users.history(row).last_event),
            exclude=exclude[exclude >= 0],
            recent=recent[recent >= 0],
        )


@dataclass(slots=True)
class Trail:
    """What happened to one request, for the answer and the metrics."""

    degradation: Degradation = field(default_factory=Degradation)
    timing: dict[str, float] = field(default_factory=dict)
    proposed: dict[str, int] = field(default_factory=dict)
    ranked: int = 0
    started: float = field(default_factory=time.perf_counter)

    @contextmanager
    def timed(self, stage: str) -> Iterator[None]:
        started = time.perf_counter()
        try:
            yield
        finally:
            self.timing[stage] = time.perf_counter() - started


async def recommend(pipeline: Pipeline, query: Query, deadline: Deadline) -> Answer:
    """The best slate that can be had by ``deadline``; never fails because something behind the service did."""
    trail = Trail()
    request = pipeline.resolve(query)
    slate = await _full_path(pipeline, request, deadline.earlier(pipeline.budget.fallback), trail)
    if slate is None:
        slate = Slate(fall_back(pipeline, request, trail.degradation), request.limit, _context(pipeline))
    trail.timing["total"] = time.perf_counter() - trail.started
    return _answer(pipeline, query, slate, trail)


def precomputed(pipeline: Pipeline, query: Query, reason: str) -> Answer:
    """An answer from the lists alone, for when the full path cannot be taken at all. No I/O."""
    trail = Trail()
    trail.degradation.note(reason)
    request = pipeline.resolve(query)
    slate = Slate(fall_back(pipeline, request, trail.degradation), request.limit, _context(pipeline))
    trail.timing["total"] = time.perf_counter() - trail.started
    return _answer(pipeline, query, slate, trail)


async def _full_path(pipeline: Pipeline, request: Request, deadline: Deadline, trail: Trail) -> Slate | None:
    """The slate from retrieval and ranking, or None when only a precomputed one can be had by ``deadline``."""
    if deadline.expired:
        trail.degradation.note("deadline.expired")
        return None
    user_task = asyncio.create_task(_read(pipeline, request, deadline, trail))
    try:
        with trail.timed("retrieval"):
            ceiling = deadline.within(pipeline.budget.retrieval)
            found = await gather(pipeline.sources, pipeline.attempt, request, user_task, ceiling)
        user = await user_task
    finally:
        user_task.cancel()
    candidates = _merge(pipeline, request, user, found, trail)
    if not len(candidates) or deadline.expired:
        trail.degradation.note("deadline.near" if deadline.expired else "retrieval.empty")
        return None
    with trail.timed("ranking"):
        ranked = await _rank(pipeline, user, candidates, deadline, trail)
    with trail.timed("reranking"):
        slate = Slate(ranked, request.limit, _context(pipeline))
        slate, skipped = apply(pipeline.rules, slate, deadline.within(pipeline.budget.reranking))
    for rule in skipped:
        trail.degradation.note(f"{rule}.timeout")
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
    for answer in found:
        trail.proposed[answer.source] = len(answer.candidates)
        if answer.cause is not None:
            trail.degradation.step(DegradationLevel.PARTIAL_RETRIEVAL, f"{answer.source}.{answer.cause}")
        elif not len(answer.candidates) and user.freshness is not Freshness.NEW:
            trail.degradation.note(f"{answer.source}.no_history")
    keep = allowed(pipeline.items.eligible, user.seen, request.exclude)
    wanted = pipeline.budget.candidates
    candidates = merge([answer.candidates for answer in found], pipeline.quotas, keep, wanted)
    promoted = _promoted(pipeline.campaigns)
    return with_forced(candidates, promoted[keep[promoted]], wanted) if len(candidates) else candidates


async def _rank(
    pipeline: Pipeline, user: UserFeatures, candidates: Candidates, deadline: Deadline, trail: Trail
) -> Candidates:
    trail.ranked = len(candidates)
    ceiling = deadline.within(pipeline.budget.ranking)
    try:
        score = await pipeline.attempt(RANKING, lambda: _trusted(pipeline.ranker, user, candidates, ceiling), ceiling)
    except DependencyError as error:
        trail.degradation.step(DegradationLevel.SIMPLE_RANKING, f"{RANKING}.{error.cause}")
        score = await pipeline.simple_ranker.score(user, candidates, deadline)
    return candidates.scored(score).top(len(candidates))


async def _trusted(ranker: Ranker, user: UserFeatures, candidates: Candidates, deadline: Deadline) -> Floats:
    """The ranker's scores, if they can decide an order: one each, finite, and not all the same."""
    score = await ranker.score(user, candidates, deadline)
    if score.shape != (len(candidates),):
        raise BadAnswer(f"{ranker.name}: {score.shape} scores for {len(candidates)} candidates")
    if not np.isfinite(score).all():
        raise BadAnswer(f"{ranker.name}: scores that are not finite")
    if len(score) >= 20 and bool((score == score[0]).all()):
        raise BadAnswer(f"{ranker.name}: every candidate has the same score")
    return score


def fall_back(pipeline: Pipeline, request: Request, degradation: Degradation) -> Candidates:
    """A precomputed slate, from the best rung that has one, filled up from those below. No I/O."""
    slate = Candidates.none()
    blocked = np.concatenate([pipeline.reader.history(request).item_row, request.exclude])
    for fallback in pipeline.fallbacks:
        more = fallback.slate(request, np.concatenate([blocked, slate.item_row]))
        if len(more):
            degradation.level = max(degradation.level, fallback.level)
        slate = Candidates.proposed(
            np.concatenate([slate.item_row, more.item_row]), np.concatenate([slate.score, more.score])
        ).take(slice(request.limit))
        if len(slate) == request.limit:
            break
    if not len(slate):
        degradation.level = pipeline.fallbacks[-1].level
    return slate


def _promoted(campaigns: tuple[Campaign, ...]) -> Rows:
    now = time.time()
    rows = [campaign.item_row for campaign in campaigns if campaign.active(now)]
    return np.unique(np.concatenate(rows)) if rows else NO_ROWS


def _context(pipeline: Pipeline) -> SlateContext:
    return SlateContext(time.time(), pipeline.items.genres, pipeline.campaigns)


def _answer(pipeline: Pipeline, query: Query, slate: Slate, trail: Trail) -> Answer:
    shown, items = slate.shown, pipeline.items
    names = [source.name for source in pipeline.sources]
    who = shown.proposed_by if shown.source_ranks.shape[1] else np.zeros((len(shown), len(names)), np.bool_)
    places = zip(shown.item_row.tolist(), shown.score.tolist(), who.tolist(), strict=True)
    return Answer(
        request_id=query.request_id,
        bundle=pipeline.bundle,
        items=tuple(
            Item(
                items.ids.text(row),
                items.titles.text(row),
                score,
                tuple(name for name, proposed in zip(names, by, strict=True) if proposed),
                slate.moved.get(row),
            )
            for row, score, by in places
        ),
        level=trail.degradation.level,
        reasons=tuple(trail.degradation.reasons),
        timing=trail.timing,
        proposed=trail.proposed,
        ranked=trail.ranked,
    )
