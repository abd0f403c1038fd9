"""What runs in shadow: each rung of the ladder, on what a live request found."""

from __future__ import annotations

from functools import partial

import numpy as np

from app.falling_back import blocked
from app.pipeline import Pipeline
from app.ranking import trusted
from app.slate_context import slate_context
from domain.candidates import Candidates
from domain.deadline import Deadline
from domain.degradation import DegradationLevel
from domain.request import Request
from domain.stages import Fallback
from domain.user import UserFeatures
from reranking.filters import permitted

SECONDS = 0.5


def offer_rungs(pipeline: Pipeline, request: Request, user: UserFeatures, candidates: Candidates) -> None:
    """Run every rung beside a share of the requests. A user without a list of their own has no ``BATCH_LIST``."""
    if not pipeline.shadow.chosen():
        return
    offer = pipeline.shadow.offer
    offer(DegradationLevel.STALE_FEATURES.name, partial(_stale, pipeline, request))
    offer(DegradationLevel.SIMPLE_RANKING.name, partial(_simple, pipeline, user, candidates))
    for fallback in pipeline.fallbacks:
        if request.user_row >= 0 or fallback is pipeline.fallbacks[-1]:
            offer(fallback.level.name, partial(_listed, pipeline, request, fallback))


async def _stale(pipeline: Pipeline, request: Request) -> int:
    """How many features the reader finds without the store, all of them finite."""
    return int(np.isfinite(pipeline.reader.without_store(request).numeric).sum())


async def _simple(pipeline: Pipeline, user: UserFeatures, candidates: Candidates) -> int:
    """How many candidates the simple ranker scores; raises ``BadScores`` if the scores decide no order."""
    return len(await trusted(pipeline.simple_ranker, user, candidates, Deadline.after(SECONDS)))


async def _listed(pipeline: Pipeline, request: Request, fallback: Fallback) -> int:
    """How many items the list has for this user."""
    may = permitted(slate_context(pipeline, request), pipeline.rules)
    return len(fallback.slate(request, blocked(pipeline, request), may))
