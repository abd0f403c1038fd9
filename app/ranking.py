"""The ranking stage: the bundle's model where it can be had and trusted, the simple ranker where not."""

from __future__ import annotations

import numpy as np

from app.pipeline import Pipeline
from app.trail import Trail
from domain.arrays import Floats
from domain.candidates import Candidates
from domain.deadline import Deadline
from domain.degradation import DegradationLevel
from domain.errors import BadScores, DependencyError, OutOfMemory, Untrusted
from domain.stages import Ranker
from domain.user import UserFeatures
from ranking.strangers import merged_order_stays

RANKING = "ranking"
NARROWED = "narrowed"
ENOUGH_TO_DIFFER = 20  # so many candidates with one and the same score are no coincidence


async def rank(
    pipeline: Pipeline, user: UserFeatures, candidates: Candidates, deadline: Deadline, trail: Trail
) -> Candidates:
    """The candidates best first, by the best ranker that can be had by ``deadline``."""
    if merged_order_stays(user):
        trail.ranked, trail.asked = len(candidates), False
        return candidates
    ceiling = deadline.within(pipeline.budget.ranking)
    try:
        ranked = await _by_model(pipeline, user, candidates, ceiling)
    except DependencyError as error:
        trail.degradation.step(DegradationLevel.SIMPLE_RANKING, f"{RANKING}.{error.cause}")
        ranked = candidates.scored(await pipeline.simple_ranker.score(user, candidates, deadline))
    if len(ranked) < len(candidates):
        trail.degradation.step(DegradationLevel.PARTIAL_RETRIEVAL, NARROWED)
        trail.degradation.note(f"{RANKING}.{OutOfMemory.cause}")
    trail.ranked = len(ranked)
    return ranked.top(len(ranked))


async def _by_model(pipeline: Pipeline, user: UserFeatures, candidates: Candidates, deadline: Deadline) -> Candidates:
    """The candidates under the model's scores, half of them where it has not memory for more."""
    if pipeline.mark.bad:
        if pipeline.mark.probe_due():
            pipeline.shadow.offer(DegradationLevel.FULL.name, lambda: probe(pipeline, user, candidates))
        raise Untrusted(pipeline.mark.why or "")
    try:
        return await pipeline.attempt(RANKING, lambda: _scored(pipeline.ranker, user, candidates, deadline), deadline)
    except BadScores as error:
        pipeline.mark.spoil(str(error))
        raise


async def _scored(ranker: Ranker, user: UserFeatures, candidates: Candidates, deadline: Deadline) -> Candidates:
    """One retry with half of the candidates when the ranker is out of memory; both are one call to the breaker."""
    try:
        return candidates.scored(await trusted(ranker, user, candidates, deadline))
    except OutOfMemory:
        half = candidates.take(slice((len(candidates) + 1) // 2))  # the merge left the best first
        return half.scored(await trusted(ranker, user, half, deadline))


async def probe(pipeline: Pipeline, user: UserFeatures, candidates: Candidates) -> int:
    """Ask a model that is marked bad again, beside the request; how many candidates it scored well."""
    deadline = Deadline.after(pipeline.budget.ranking)
    try:
        scored = await pipeline.attempt(RANKING, lambda: _scored(pipeline.ranker, user, candidates, deadline), deadline)
    except BadScores as error:
        pipeline.mark.spoil(str(error))
        raise
    pipeline.mark.good()
    return len(scored)


async def trusted(ranker: Ranker, user: UserFeatures, candidates: Candidates, deadline: Deadline) -> Floats:
    """The ranker's scores, if they can decide an order: one each, finite, and not all the same."""
    score = await ranker.score(user, candidates, deadline)
    if score.shape != (len(candidates),):
        raise BadScores(f"{ranker.name}: {score.shape} scores for {len(candidates)} candidates")
    if not np.isfinite(score).all():
        raise BadScores(f"{ranker.name}: scores that are not finite")
    if len(score) >= ENOUGH_TO_DIFFER and bool((score == score[0]).all()):
        raise BadScores(f"{ranker.name}: every candidate has the same score")
    return score
