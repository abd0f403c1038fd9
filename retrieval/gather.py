"""All sources at once; whoever is late or fails is left behind with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from domain.candidates import Candidates
from domain.deadline import Deadline
from domain.errors import DependencyError
from domain.request import Request
from domain.stages import Source
from domain.user import UserFeatures
from retrieval.computed import Computed, Personal

T = TypeVar("T")


class Attempt(Protocol):
    """One guarded call to a dependency: returns its answer by the deadline or raises ``DependencyError``."""

    async def __call__(self, name: str, work: Callable[[], Awaitable[T]], deadline: Deadline) -> T: ...


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """One source's answer. ``cause`` says why a source failed (``timeout``, ``unavailable``, ``open`` ...), else None.

    No candidates and no cause: the source had nothing to go by.
    """

    source: str
    candidates: Candidates
    cause: str | None = None


async def gather(
    sources: Sequence[Source], attempt: Attempt, request: Request, user: asyncio.Task[UserFeatures], deadline: Deadline
) -> list[Found]:
    """The answers of all ``sources``, in their order, no later than ``deadline``.

    Those that wait for something are asked at once, each in a task; those that compute, one after the other meanwhile.
    """

    async def ask(source: Source) -> Found:
        try:
            return Found(
                source.name,
                await attempt(source.name, lambda: source.retrieve(request, user, deadline), deadline),
            )
        except DependencyError as error:
            return Found(source.name, Candidates.none(), error.cause)

    computed = [source for source in sources if isinstance(source, Computed)]
    found: dict[str, Found] = {}
    async with asyncio.TaskGroup() as group:  # a source never raises into it, so only a bug cancels its siblings
        tasks = [group.create_task(ask(source)) for source in sources if not isinstance(source, Computed)]
        if tasks:
            await asyncio.sleep(0)  # whoever waits has begun before the loop is busy
        for source in sorted(computed, key=lambda source: isinstance(source, Personal)):
            found[source.name] = await ask(source)
    found |= {answer.source: answer for answer in (task.result() for task in tasks)}
    return [found[source.name] for source in sources]
