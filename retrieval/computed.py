"""Sources that only compute: with the user at hand their answer is there at once."""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod

from domain.candidates import Candidates
from domain.deadline import Deadline
from domain.request import Request
from domain.user import UserFeatures


class Computed(ABC):
    """A source without I/O that is done in well under a millisecond, and waits for nobody but perhaps the user.

    ``gather`` calls its ``propose`` in line: to cut it into a task, or to put a timer around what nothing can
    interrupt, costs as much as many of them compute. What waits for anything but the user must not be one, because it
    would hold up the others.
    """

    __slots__ = ()
    name: str

    @abstractmethod
    async def retrieve(self, request: Request, user: asyncio.Task[UserFeatures], deadline: Deadline) -> Candidates:
        """As ``domain.stages.Source`` has it."""


class Impersonal(Computed):
    """One that knows nothing of the user."""

    __slots__ = ()

    @abstractmethod
    def propose(self, request: Request) -> Candidates:
        """What ``retrieve`` answers."""

    async def retrieve(self, request: Request, user: asyncio.Task[UserFeatures], deadline: Deadline) -> Candidates:
        """As ``domain.stages.Source`` has it."""
        del user, deadline
        return self.propose(request)


class Personal(Computed):
    """One that needs the user."""

    __slots__ = ()

    @abstractmethod
    def propose(self, request: Request, user: UserFeatures) -> Candidates:
        """What ``retrieve`` answers, once the user is known."""

    async def retrieve(self, request: Request, user: asyncio.Task[UserFeatures], deadline: Deadline) -> Candidates:
        """As ``domain.stages.Source`` has it."""
        del deadline
        return self.propose(request, await asyncio.shield(user))
