"""Some requests kept whole, so that `streamrec replay` can make their slates again.

A request costs a draw and, now and then, an append to a bounded queue; a thread writes one file a request under
HOME/replay. The files hold user ids, features and histories: they are for their owner alone (0600, the folder 0700),
and no more than ``KEPT_FILES`` of at most ``KEPT_SECONDS`` are kept on a machine.
"""

from __future__ import annotations

import asyncio
import dataclasses
import gzip
import logging
import os
import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from app import metrics
from app.pipeline import Pipeline
from app.why import Trace
from domain.answer import Answer
from domain.arrays import Rows
from domain.candidates import Candidates
from domain.catalogue import History, IdTable
from domain.request import Query
from domain.slate import Campaign, SlateContext
from retrieval.gather import Found

FORMAT = 2  # 1 had other draws for minimum exposure
QUEUED = 16
KEPT_FILES = 1000
KEPT_SECONDS = 3 * 86_400.0
FILES_A_LOOK = 20  # written between two looks at what is too much

log = logging.getLogger("streamrec.recorder")


@dataclass(slots=True, eq=False)
class FileRecorder:
    """One worker's; several share the folder. ``draw`` is injected by tests: a number from 0 to 1."""

    folder: Path
    ratio: float
    draw: Callable[[], float] = field(default=random.random, repr=False)
    _written: int = 0
    _queue: asyncio.Queue[tuple[Pipeline, Query, Answer, Trace]] = field(
        default_factory=lambda: asyncio.Queue(QUEUED), repr=False
    )

    def offer(self, pipeline: Pipeline, query: Query, answer: Answer, trace: Trace) -> None:
        """Keep a share of what is offered. What finds the queue full is not kept, and counted."""
        if self.draw() >= self.ratio:
            return
        try:
            self._queue.put_nowait((pipeline, query, answer, trace))
        except asyncio.QueueFull:
            metrics.request_not_recorded()

    async def keep(self) -> None:
        """Write for as long as the worker lives, whatever fails."""
        while True:
            await self.write(*await self._queue.get())

    async def write(self, pipeline: Pipeline, query: Query, answer: Answer, trace: Trace) -> None:
        """One request, in a thread."""
        try:
            await asyncio.to_thread(self._write, pipeline, query, answer, trace)
        except OSError as error:
            metrics.request_not_recorded()
            log.warning("request not kept for replay", extra={"why": error.strerror})
        except Exception:
            metrics.bug_found("recorder")
            log.exception("bug in the recorder")

    def _write(self, pipeline: Pipeline, query: Query, answer: Answer, trace: Trace) -> None:
        record = gzip.compress(orjson.dumps(recorded(pipeline, query, answer, trace), option=_NUMPY), 1)
        self.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = path_of(self.folder, answer.request_id)
        unfinished = path.with_suffix(f".{os.getpid()}")
        with os.fdopen(os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "wb") as file:
            file.write(record)
        unfinished.rename(path)
        self._written += 1
        if self._written % FILES_A_LOOK == 1:
            prune(self.folder, time.time())


def path_of(folder: Path, request_id: str) -> Path:
    """Where a request is kept. Ids are what ``app.edge.request_id`` lets through: no slashes."""
    return folder / f"r-{request_id}.gz"


def prune(folder: Path, now: float) -> None:
    """Remove what is too old or too much; several workers may do so at once."""
    found = []
    for entry in os.scandir(folder):
        try:
            found.append((entry.stat().st_mtime, entry.path))
        except FileNotFoundError:
            continue
    found.sort(reverse=True)
    for place, (written_at, path) in enumerate(found):
        if place >= KEPT_FILES or now - written_at > KEPT_SECONDS:
            Path(path).unlink(missing_ok=True)


def recorded(pipeline: Pipeline, query: Query, answer: Answer, trace: Trace) -> dict[str, Any]:
    """Everything that the slate was made of, in external ids, but what stands in the bundle."""
    ids, user = pipeline.items.ids, trace.user
    return {
        "format": FORMAT,
        "request_id": answer.request_id,
        "recorded_at": time.time(),
        "bundle": answer.bundle,
        "arms": dict(answer.arms),
        "level": answer.level.name,
        "reasons": answer.reasons,
        "user_id": query.user_id,
        "limit": query.limit,
        "exclude": ids.texts(trace.request.exclude),
        "user": {
            "numeric": user.numeric,
            "codes": user.codes,
            "history": _history(ids, user.history),
            "as_of": user.as_of,
            "freshness": user.freshness.value,
        },
        "sources": [_source(ids, found) for found in trace.found],
        "not_offered": ids.texts(np.union1d(_not_offered(pipeline, trace.found), trace.merging.barred)),
        "quotas": trace.merging.quotas,
        "wanted": trace.merging.wanted,
        "forced": ids.texts(trace.merging.forced),
        "candidates": ids.texts(trace.candidates.item_row),
        "ranked": ids.texts(trace.ranked.item_row),
        "ranker_scores": trace.ranked.score,
        "context": _context(ids, trace.context, trace.ranked),
        "rules": [dataclasses.asdict(rule) for rule in pipeline.rules],  # type: ignore[call-overload]  # dataclasses all
        "skipped": trace.skipped,
        "slate": [[item.item_id, item.rule] for item in answer.items],
    }


def _history(ids: IdTable, history: History) -> dict[str, Any]:
    return {
        "item_ids": ids.texts(history.item_row),
        "rating": np.asarray(history.rating),
        "timestamp": np.asarray(history.timestamp),
    }


def _source(ids: IdTable, found: Found) -> dict[str, Any]:
    rows = found.candidates.item_row
    sound = (rows >= 0) & (rows < len(ids))  # the merge drops the others
    scores = found.candidates.score[sound]
    return {"source": found.source, "item_ids": ids.texts(rows[sound]), "scores": scores, "cause": found.cause}


def _not_offered(pipeline: Pipeline, found: Sequence[Found]) -> Rows:
    """Of what the sources proposed, the removed items: what is removed changes while a bundle serves."""
    removed = np.flatnonzero(pipeline.items.removed).astype(np.int32)
    proposed = [answer.candidates.item_row for answer in found]
    return np.intersect1d(removed, np.concatenate(proposed)) if proposed else removed[:0]


def _context(ids: IdTable, context: SlateContext, ranked: Candidates) -> dict[str, Any]:
    quota = context.quota
    return {
        "now": context.now,
        "moment": context.moment,
        "seed": context.seed,
        "campaigns": [_campaign(ids, campaign) for campaign in context.campaigns],
        "spent": {name: [spent.in_all, spent.on_user_today] for name, spent in context.spent.items()},
        "audience": [context.audience.max_age_rating, context.audience.region],
        "shown": [ids.texts(context.shown.item_row), context.shown.age_seconds],
        "quota": quota and {"share": quota.share, "group": quota.group[ranked.item_row], "owed": quota.owed},
    }


def _campaign(ids: IdTable, campaign: Campaign) -> dict[str, Any]:
    told = {part.name: getattr(campaign, part.name) for part in dataclasses.fields(campaign)}
    return told | {"item_row": ids.texts(campaign.item_row)}


_NUMPY = orjson.OPT_SERIALIZE_NUMPY
