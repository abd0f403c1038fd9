"""What the rules of re-ranking may know about a request, frozen before the first of them runs."""

from __future__ import annotations

import time
import zlib
from collections.abc import Mapping

from app.pipeline import Pipeline
from domain.arrays import NO_ROWS, Rows, drawn
from domain.request import Request
from domain.slate import Audience, SlateContext, Spent
from domain.user import Shown, UserFeatures

EXPLORED = 10  # candidates a request that are there to be tried out


def slate_context(pipeline: Pipeline, request: Request, user: UserFeatures | None = None) -> SlateContext:
    now, items = time.time(), pipeline.items
    return SlateContext(
        now,
        items.genres,
        pipeline.campaigns,
        moment=request.now,
        seed=seed_of(request, now),
        vectors=pipeline.vectors,
        removed=items.removed,
        facets=items.facets,
        audience=Audience(request.context.max_age_rating, request.context.region),
        quota=None if pipeline.shelf is None else pipeline.shelf.quota,
        spent=spent_on(pipeline, request, user),
        shown=user.shown if user else Shown.nothing(),
    )


def spent_on(pipeline: Pipeline, request: Request, user: UserFeatures | None) -> Mapping[str, Spent]:
    """Of each campaign: what this worker counted today, or what Redis heard from all of them, whichever is more."""
    spent, promoted = pipeline.spent(request.user_id), user.promoted if user else {}
    if not promoted:
        return spent
    return {name: Spent(told.in_all, max(told.on_user_today, promoted.get(name, 0))) for name, told in spent.items()}


def explored(pipeline: Pipeline, seed: int) -> Rows:
    """Some items that nobody was shown lately, for minimum exposure to choose from."""
    return drawn(pipeline.shelf.quota.explore, EXPLORED, seed) if pipeline.shelf else NO_ROWS


def seed_of(request: Request, now: float) -> int:
    """Another for every user and hour, of nobody in particular for every request.

    So a share that is no whole number of places holds on average.
    """
    whose = request.request_id if request.user_id is None else f"{request.user_id}:{now // 3600:.0f}"
    return zlib.crc32(whose.encode(errors="replace"))
