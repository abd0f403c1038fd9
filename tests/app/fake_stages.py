"""Stages that do what a test says: a ranker, an online store and a source, faked at their Protocols."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from app.pipeline import Pipeline
from domain.arrays import Floats
from domain.candidates import Candidates
from domain.errors import DependencyError
from features.contract import CONTRACT
from features.online import Recents, StoredUser


class Ranker:
    """Scores by a function of the rows, or fails."""

    name = "dcn_v2"

    def __init__(self, score: Callable[[Candidates], Floats] | DependencyError | None = None) -> None:
        self.score_of = score or (lambda c: np.linspace(1, 0, len(c), dtype=np.float32))

    async def score(self, user, candidates, deadline) -> Floats:
        if isinstance(self.score_of, DependencyError):
            raise self.score_of
        return self.score_of(candidates)


class Store:
    def __init__(self, *known: str, error: DependencyError | None = None, recent: tuple[str, ...] = ()) -> None:
        self.known, self.error, self.recent = known, error, recent
        self.features = CONTRACT.user.defaults

    async def read(self, user_id: str) -> StoredUser | None:
        if self.error:
            raise self.error
        r = len(self.recent)
        recents = Recents(self.recent, np.full(r, 5, np.float32), np.full(r, 2e9))
        return StoredUser(self.features, recents, 9e9, 0.0, stale=False, problems=()) if user_id in self.known else None


class Source:
    def __init__(self, name: str, outcome: list[int] | Exception) -> None:
        self.name, self.outcome = name, outcome

    async def retrieve(self, request, user, deadline) -> Candidates:
        if isinstance(self.outcome, Exception):
            raise self.outcome
        return Candidates.proposed(np.array(self.outcome, np.int32), np.ones(len(self.outcome), np.float32))


def with_store(pipeline: Pipeline, store: Store) -> Pipeline:
    return replace(pipeline, reader=replace(pipeline.reader, store=store))
