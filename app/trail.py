"""What happened to one request: its steps down the ladder, its times, and the answer that tells of them."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import compress, repeat, starmap

from app.pipeline import Pipeline
from app.why import Merging, Trace, inside
from domain.answer import Answer, Item
from domain.candidates import Candidates
from domain.degradation import Degradation
from domain.request import Query
from domain.slate import Slate


class Timed:
    """Around a stage."""

    __slots__ = ("_stage", "_started", "_timing")

    def __init__(self, timing: dict[str, float], stage: str) -> None:
        self._timing, self._stage = timing, stage

    def __enter__(self) -> None:
        self._started = time.perf_counter()

    def __exit__(self, *_: object) -> None:
        self._timing[self._stage] = time.perf_counter() - self._started


@dataclass(slots=True)
class Trail:
    """What happened to one request, for the answer and the metrics. Times are in seconds."""

    degradation: Degradation = field(default_factory=Degradation)
    timing: dict[str, float] = field(default_factory=dict)
    proposed: dict[str, int] = field(default_factory=dict)
    ranked: int = 0
    started: float = field(default_factory=time.perf_counter)
    merging: Merging = field(default_factory=Merging)
    asked: bool = True  # whether any ranker was, once there is something to rank
    trace: Trace | None = None  # of a full path that came to its end

    def timed(self, stage: str) -> Timed:
        """``with trail.timed(stage):`` notes how long what is within takes, however it ends."""
        return Timed(self.timing, stage)

    def abandoned(self) -> Trail:
        """What had happened by now, safe from whatever the abandoned path still does to this one."""
        degradation = Degradation(self.degradation.level, list(self.degradation.reasons))
        return Trail(degradation, dict(self.timing), dict(self.proposed), self.ranked, self.started)

    def answer(self, pipeline: Pipeline, query: Query, slate: Slate) -> Answer:
        """The slate in external ids, and how good it is."""
        self.timing["total"] = time.perf_counter() - self.started
        answer = Answer(
            request_id=query.request_id,
            bundle=pipeline.bundle,
            items=_items(pipeline, slate),
            level=self.degradation.level,
            reasons=tuple(self.degradation.reasons),
            timing=self.timing,
            proposed=self.proposed,
            ranked=self.ranked,
            promoted=_promoted(slate) if slate.promoted else {},
            asked_ranker=self.asked,
            arms=pipeline.arms,
            inside=inside(pipeline, self.trace, slate, query.why) if query.debug else None,
        )
        if self.trace is not None and query.why is None:
            pipeline.recorder.offer(pipeline, query, answer, self.trace)
        return answer


def _promoted(slate: Slate) -> dict[str, int]:
    return Counter(slate.promoted[row] for row in slate.shown.item_row.tolist() if row in slate.promoted)


def _items(pipeline: Pipeline, slate: Slate) -> tuple[Item, ...]:
    shown, items = slate.shown, pipeline.items
    rows = shown.item_row
    named = items.ids.texts(rows), items.titles.texts(rows)
    columns = *named, shown.score.tolist(), _proposers(pipeline, shown), map(slate.moved.get, rows.tolist())
    return tuple(starmap(Item, zip(*columns, strict=True)))


def _proposers(pipeline: Pipeline, shown: Candidates) -> Iterable[tuple[str, ...]]:
    """The sources that proposed each item; none on the rungs below retrieval."""
    if not shown.source_ranks.shape[1]:
        return repeat((), len(shown))
    names = [source.name for source in pipeline.sources]
    return [tuple(compress(names, by)) for by in shown.proposed_by.tolist()]
