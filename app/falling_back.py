"""The rungs that need no I/O: an answer from the precomputed lists."""

from __future__ import annotations

import time
from dataclasses import replace

import numpy as np

from app.pipeline import Pipeline
from app.slate_context import slate_context
from app.trail import Trail
from domain.answer import Answer
from domain.arrays import Rows
from domain.candidates import Candidates
from domain.degradation import Degradation
from domain.request import Query, Request
from domain.slate import Audience, Slate, SlateContext
from domain.stages import May
from reranking.filters import permitted


def precomputed(pipeline: Pipeline, query: Query, reason: str) -> Answer:
    """An answer from the lists alone, for when the full path cannot be taken at all. No I/O."""
    trail = Trail()
    trail.degradation.note(reason)
    request = pipeline.resolve(query)
    return trail.answer(pipeline, query, fallen_back(pipeline, request, trail))


def popular(pipeline: Pipeline, query: Query, reason: str) -> Answer:
    """The last rung and nothing else, for when a bug is in the way of the lists too.

    Nothing is asked of the user, nor explained; what the caller excludes or may not see still stays out.
    """
    trail, last, items = Trail(), pipeline.fallbacks[-1], pipeline.items
    trail.degradation.step(last.level, reason)
    audience = Audience(query.context.max_age_rating, query.context.region)
    context = SlateContext(time.time(), items.genres, removed=items.removed, facets=items.facets, audience=audience)
    earlier = query.page.shown if query.page else ()
    named = items.ids.rows((*query.exclude_item_ids, *query.recent_item_ids, *earlier))
    request = Request(query.user_id, -1, query.limit, query.context, context.now)
    candidates = last.slate(request, named, permitted(context, pipeline.rules))
    return trail.answer(pipeline, replace(query, debug=False), Slate(candidates, query.limit, context))


def fallen_back(pipeline: Pipeline, request: Request, trail: Trail) -> Slate:
    """The slate from the lists; the trail says from which."""
    context = slate_context(pipeline, request)
    candidates = _fall_back(pipeline, request, permitted(context, pipeline.rules), trail.degradation)
    return Slate(candidates, request.limit, context)


def _fall_back(pipeline: Pipeline, request: Request, may: May, degradation: Degradation) -> Candidates:
    """A precomputed slate, from the best rung that has one, filled up from those below. No I/O."""
    slate, out = Candidates.none(), blocked(pipeline, request)
    for fallback in pipeline.fallbacks:
        more = fallback.slate(request, out, may).take(slice(request.limit - len(slate)))
        if not len(more):
            continue
        degradation.level = max(degradation.level, fallback.level)
        slate = _joined(slate, more) if len(slate) else more
        if len(slate) == request.limit:
            break
        out = np.concatenate([out, more.item_row])
    if not len(slate):
        degradation.level = pipeline.fallbacks[-1].level
    return slate


def _joined(first: Candidates, more: Candidates) -> Candidates:
    rows, scores = np.concatenate([first.item_row, more.item_row]), np.concatenate([first.score, more.score])
    return Candidates.proposed(rows, scores)


def blocked(pipeline: Pipeline, request: Request) -> Rows:
    """What the user has seen or does not want, on any rung, as far as it is known without I/O."""
    return np.concatenate([pipeline.reader.history(request).item_row, request.exclude])
