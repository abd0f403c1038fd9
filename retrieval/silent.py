"""A source that an experiment leaves out: its columns stay, as the rankers know them, and are empty."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from domain.candidates import Candidates
from domain.deadline import Deadline
from domain.request import Request
from domain.user import UserFeatures


@dataclass(frozen=True, slots=True)
class Silent:
    """Stands in the place of the source ``name`` and proposes nothing."""

    name: str

    async def retrieve(self, request: Request, user: asyncio.Task[UserFeatures], deadline: Deadline) -> Candidates:
        del request, user, deadline
        return Candidates.none()
