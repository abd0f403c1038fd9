"""The stages of a request, one small Protocol each. A new source, rule or rung implements one of these."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Protocol, TypeAlias

import numpy as np

from domain.arrays import Floats, Mask, Rows
from domain.candidates import Candidates
from domain.deadline import Deadline
from domain.degradation import DegradationLevel
from domain.request import Request
from domain.slate import Slate
from domain.user import UserFeatures

May: TypeAlias = Callable[[Rows], Mask]
"""``(n,)``: which of the rows may be shown. Asked of few rows at a time: a catalogue may have a million."""


def anything(rows: Rows) -> Mask:
    """No limit."""
    return np.ones(len(rows), np.bool_)


class Source(Protocol):
    """Proposes candidates, best first. An empty answer means the source has nothing to go by: no history."""

    @property
    def name(self) -> str: ...

    async def retrieve(self, request: Request, user: asyncio.Task[UserFeatures], deadline: Deadline) -> Candidates:
        """At most the source's own number of candidates; raises only ``DependencyError``.

        ``user`` is shared by all sources and always resolves: await it through ``asyncio.shield``, or a source that
        is cut off cancels the read for everyone.
        """
        ...


class Ranker(Protocol):
    """DCN-V2 on Triton; logistic regression on the CPU."""

    @property
    def name(self) -> str: ...

    async def score(self, user: UserFeatures, candidates: Candidates, deadline: Deadline) -> Floats:
        """``(n,)``, one score a candidate in the same order; drops nothing. Raises only ``DependencyError``."""
        ...


class Rule(Protocol):
    """A pure function of the slate: may move and drop, never invents or repeats."""

    @property
    def name(self) -> str: ...

    def apply(self, slate: Slate) -> Slate: ...


class Fallback(Protocol):
    """A precomputed answer: synchronous, no I/O. ``seen`` stays out, and so does what ``may`` not be shown."""

    @property
    def level(self) -> DegradationLevel: ...

    def slate(self, request: Request, seen: Rows, may: May = anything) -> Candidates:
        """At most ``request.limit`` candidates, best first; empty when there is nothing for this user."""
        ...
