"""Why an item is in the slate, or at which step it fell out.

Worked out afterwards, from what the request's stages passed on, and only for who asks: the rules are pure, so they are
simply gone through once more, one at a time.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np

from app.pipeline import Pipeline
from domain.arrays import NO_ROWS, Mask, Rows
from domain.candidates import Candidates
from domain.explanation import Explained, Funnel, Inside, Move, Proposal, Step
from domain.request import Request
from domain.slate import Slate, SlateContext
from domain.user import UserFeatures
from retrieval.filters import allowed
from retrieval.gather import Found


@dataclass(frozen=True, slots=True, eq=False)
class Merging:
    """What the merge went by beside the sources' answers."""

    quotas: tuple[int, ...] = ()
    wanted: int = 0
    forced: Rows = field(default_factory=lambda: NO_ROWS)  # among the candidates whoever proposed them
    barred: Rows = field(default_factory=lambda: NO_ROWS)  # of what was proposed, not for this audience


@dataclass(frozen=True, slots=True, eq=False)
class Trace:
    """What the stages of one full path passed on, by reference: to keep it costs nothing."""

    request: Request
    user: UserFeatures
    found: Sequence[Found]
    merging: Merging
    candidates: Candidates  # as merged
    ranked: Candidates  # best first
    context: SlateContext
    skipped: tuple[str, ...]  # rules there was no time for


def inside(pipeline: Pipeline, trace: Trace | None, slate: Slate, asked: str | None = None) -> Inside:
    """The funnel, and the way of each shown item and of the one ``asked`` about. No trace: the slate is a list."""
    way = _Listed(pipeline, slate) if trace is None else _Way.of(pipeline, trace, slate)
    items = tuple(way.explained(row) for row in slate.shown.item_row.tolist())
    return Inside(way.funnel, items, None if asked is None else _asked(pipeline, way, asked))


def _asked(pipeline: Pipeline, way: _Way | _Listed, item_id: str) -> Explained:
    row = pipeline.items.ids.row(item_id)
    return way.explained(row) if row >= 0 else Explained(item_id, "", Step.UNKNOWN, None)


@dataclass(frozen=True, slots=True, eq=False)
class _Listed:
    """A slate from the lists: there is nothing to tell but the places."""

    pipeline: Pipeline
    slate: Slate

    @property
    def funnel(self) -> Funnel:
        return Funnel({}, 0, 0, 0, 0, len(self.slate.shown))

    def explained(self, row: int) -> Explained:
        items, place = self.pipeline.items, _place(self.slate.shown.item_row, row)
        step = Step.NOT_ON_THE_LIST if place is None else Step.SHOWN
        return Explained(items.ids.text(row), items.titles.text(row), step, None, place=place)


@dataclass(frozen=True, slots=True, eq=False)
class _Way:
    pipeline: Pipeline
    trace: Trace
    keep: Mask  # (items,): what may be shown to this user
    orders: tuple[tuple[str, Rows], ...]  # after the ranker, then after each rule that ran
    limit: int

    @classmethod
    def of(cls, pipeline: Pipeline, trace: Trace, slate: Slate) -> _Way:
        keep = allowed(pipeline.items.eligible, trace.user.seen, trace.request.exclude, trace.merging.barred)
        stage = Slate(trace.ranked, slate.limit, trace.context)
        orders = [("ranking", stage.candidates.item_row)]
        for rule in pipeline.rules:
            if rule.name not in trace.skipped:
                stage = rule.apply(stage)
                orders.append((rule.name, stage.candidates.item_row))
        return cls(pipeline, trace, keep, tuple(orders), slate.limit)

    @property
    def funnel(self) -> Funnel:
        proposed = self._proposed
        return Funnel(
            {found.source: len(found.candidates) for found in self.trace.found},
            len(proposed),
            int(self.keep[proposed].sum()),
            len(np.setdiff1d(self.trace.candidates.item_row, proposed)),
            len(self.trace.ranked),
            min(self.limit, len(self.orders[-1][1])),
        )

    @property
    def _proposed(self) -> Rows:
        rows = [found.candidates.item_row for found in self.trace.found]
        every = np.unique(np.concatenate(rows)) if rows else np.empty(0, np.int32)
        return every[(every >= 0) & (every < len(self.keep))]

    def explained(self, row: int) -> Explained:
        items, place = self.pipeline.items, _place(self.orders[-1][1], row)
        ranked, moves = _place(self.trace.ranked.item_row, row), self._moves(row)
        step, reason = self._step(row, ranked, place, moves)
        return Explained(
            items.ids.text(row),
            items.titles.text(row),
            step,
            reason,
            self._proposals(row),
            None if ranked is None else float(self.trace.ranked.score[ranked]),
            ranked,
            moves,
            place if step is Step.SHOWN else None,
        )

    def _proposals(self, row: int) -> tuple[Proposal, ...]:
        ranks = [(found, _place(found.candidates.item_row, row)) for found in self.trace.found]
        return tuple(Proposal(f.source, at, float(f.candidates.score[at])) for f, at in ranks if at is not None)

    def _moves(self, row: int) -> tuple[Move, ...]:
        places = [(rule, _place(order, row)) for rule, order in self.orders]
        steps = itertools.pairwise(places)
        return tuple(Move(rule, was, now) for (_, was), (rule, now) in steps if was is not None and was != now)

    def _step(
        self, row: int, ranked: int | None, place: int | None, moves: tuple[Move, ...]
    ) -> tuple[Step, str | None]:
        if ranked is None:
            return self._before_ranking(row)
        if place is None:
            return Step.DROPPED, moves[-1].rule
        if place < self.limit:
            return Step.SHOWN, None
        out = [move.rule for move in moves if move.before < self.limit <= (move.after or 0)]
        return (Step.DISPLACED, out[-1]) if out else (Step.BELOW_THE_SLATE, None)

    def _before_ranking(self, row: int) -> tuple[Step, str | None]:
        if not self.keep[row]:
            return Step.FILTERED, self._barred(row)
        return (Step.BELOW_THE_CUT if row in self._proposed else Step.NOT_RETRIEVED), None

    def _barred(self, row: int) -> str:
        if row in self.trace.user.seen:
            return "seen"
        if row in self.trace.request.exclude:
            return "excluded"
        if row in self.trace.merging.barred:
            return "audience"
        return "removed"


def _place(rows: Rows, row: int) -> int | None:
    at = np.flatnonzero(rows == row)
    return int(at[0]) if len(at) else None
