"""One real request, with what every stage was given and gave."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field, replace

from app.pipeline import Pipeline
from app.recommend import recommend
from domain.answer import Answer
from domain.arrays import Floats
from domain.candidates import Candidates
from domain.deadline import Deadline
from domain.request import Query, Request
from domain.slate import Slate
from domain.stages import Ranker, Rule, Source
from domain.user import UserFeatures

PATIENCE_SECONDS = 30.0


@dataclass(slots=True)
class Recorded:
    """What a request left behind; slates and found candidates by the name of the rule or source."""

    query: Query
    request: Request = field(init=False)
    user_task: asyncio.Task[UserFeatures] = field(init=False)
    candidates: Candidates = field(init=False)
    answer: Answer = field(init=False)
    found: dict[str, Candidates] = field(default_factory=dict)
    slates: dict[str, Slate] = field(default_factory=dict)

    @property
    def user(self) -> UserFeatures:
        return self.user_task.result()


async def recording(pipeline: Pipeline, query: Query) -> Recorded:
    """Answer ``query`` through ``pipeline``, looking over every stage's shoulder."""
    seen = Recorded(query)
    watched = replace(
        pipeline,
        sources=tuple(_Source(seen, source) for source in pipeline.sources),
        ranker=_Ranker(seen, pipeline.ranker),
        rules=tuple(_Rule(seen, rule) for rule in pipeline.rules),
    )
    seen.answer = await recommend(watched, query, Deadline.after(PATIENCE_SECONDS))
    return seen


@dataclass(frozen=True, slots=True)
class _Source:
    seen: Recorded
    source: Source

    @property
    def name(self) -> str:
        return self.source.name

    async def retrieve(self, request: Request, user: asyncio.Task[UserFeatures], deadline: Deadline) -> Candidates:
        self.seen.request, self.seen.user_task = request, user
        found = await self.source.retrieve(request, user, deadline)
        self.seen.found[self.name] = found
        return found


@dataclass(frozen=True, slots=True)
class _Ranker:
    seen: Recorded
    ranker: Ranker

    @property
    def name(self) -> str:
        return self.ranker.name

    async def score(self, user: UserFeatures, candidates: Candidates, deadline: Deadline) -> Floats:
        self.seen.candidates = candidates
        return await self.ranker.score(user, candidates, deadline)


@dataclass(frozen=True, slots=True)
class _Rule:
    seen: Recorded
    rule: Rule

    @property
    def name(self) -> str:
        return self.rule.name

    def apply(self, slate: Slate) -> Slate:
        self.seen.slates[self.name] = slate
        return self.rule.apply(slate)
