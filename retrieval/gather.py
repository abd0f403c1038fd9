"""All sources at once; whoever is late or fails is left behind with a reason."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Protocol, TypeVar

from domain.candidates import Candidates
from domain.deadline import Deadline
from domain.errors import DependencyError, Late
from domain.request import Request
from domain.stages import Source
from domain.user import UserFeatures
from retrieval.computed import Computed, Impersonal, Personal

T = TypeVar("T")


class Attempt(Protocol):
    """One guarded call to a dependency: returns its answer by the deadline or raises ``DependencyError``."""

    async def __call__(self, name: str, work: Callable[[], Awaitable[T]], deadline: Deadline) -> T: ...


class Compute(Protocol):
    """The same for work that nothing can interrupt: no timer, and no deadline."""

    def __call__(self, name: str, work: Callable[[], T]) -> T: ...


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """One source's answer. ``cause`` says why a source failed (``timeout``, ``unavailable``, ``open`` ...), else None.

    No candidates and no cause: the source had nothing to go by.
    """

    source: str
    candidates: Candidates
    cause: str | None = None


async def gather(
    sources: Sequence[Source],
    attempt: Attempt,
    compute: Compute,
    request: Request,
    user: asyncio.Task[UserFeatures],
    deadline: Deadline,
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

    impersonal = [source for source in sources if isinstance(source, Impersonal)]
    personal = [source for source in sources if isinstance(source, Personal)]
    if len(impersonal) + len(personal) == len(sources):
        found = await _computed(impersonal, personal, compute, request, user, deadline)
        return [found[source.name] for source in sources]
    async with asyncio.TaskGroup() as group:  # a source never raises into it, so only a bug cancels its siblings
        tasks = [group.create_task(ask(source)) for source in sources if not isinstance(source, Computed)]
        await asyncio.sleep(0)  # whoever waits has begun before the loop is busy
        found = await _computed(impersonal, personal, compute, request, user, deadline)
    found |= {answer.source: answer for answer in (task.result() for task in tasks)}
    return [found[source.name] for source in sources]


async def _computed(
    impersonal: Sequence[Impersonal],
    personal: Sequence[Personal],
    compute: Compute,
    request: Request,
    user: asyncio.Task[UserFeatures],
    deadline: Deadline,
) -> dict[str, Found]:
    """Those that do not need the user first. When the user is late, the others are not asked, and it is not theirs."""
    found = {source.name: _asked(source.name, compute, partial(source.propose, request)) for source in impersonal}
    if not personal:
        return found
    if not user.done():
        await asyncio.wait({user}, timeout=deadline.remaining)  # which leaves the read alone: it is not ours only
    if not user.done():
        return found | {source.name: Found(source.name, Candidates.none(), Late.cause) for source in personal}
    known = user.result()
    for source in personal:
        found[source.name] = _asked(source.name, compute, partial(source.propose, request, known))
    return found


def _asked(name: str, compute: Compute, work: Callable[[], Candidates]) -> Found:
    try:
        return Found(name, compute(name, work))
    except DependencyError as error:
        return Found(name, Candidates.none(), error.cause)
