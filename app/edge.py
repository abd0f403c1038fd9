"""What both doors share: what stands behind them, who asks, how long they wait, and what to do about a bug."""

from __future__ import annotations

import logging
import random
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from app import metrics
from app.admission import Admission
from app.pipeline import Pipeline
from domain.answer import Answer
from domain.deadline import Deadline
from domain.errors import InvalidRequest
from domain.request import Query
from events.log import EventLog

if TYPE_CHECKING:
    from starlette.types import Scope

MAX_REQUEST_BYTES = 64 * 1024

_log = logging.getLogger("streamrec.edge")
_SANE_ID = re.compile(r"[A-Za-z0-9._:-]{1,64}")
_NUMBER = re.compile(r"-?[0-9]{1,400}(\.[0-9]{1,400})?", re.ASCII)


class Serving(Protocol):
    """What a door needs of the rest of the service; the real one is in ``app.serving``."""

    @property
    def ready(self) -> bool: ...

    @property
    def events(self) -> EventLog:
        """Where events go."""
        ...

    @property
    def pipeline(self) -> Pipeline:
        """The bundle in use, wired: where the page looks things up."""
        ...

    @property
    def admission(self) -> Admission:
        """Who gets the full path."""
        ...

    async def recommend(self, query: Query, deadline: Deadline) -> Answer:
        """An answer, whatever is broken."""
        ...

    def state(self) -> Mapping[str, Any]:
        """What is loaded and how each dependency is, in JSON's types."""
        ...


@dataclass(slots=True)
class Readiness:
    """Whether this process wants requests: its own state only, so that a dead dependency empties no load balancer."""

    serving: Serving
    stopping: bool = False

    @property
    def ready(self) -> bool:
        return self.serving.ready and not self.stopping


@dataclass(frozen=True, slots=True)
class Patience:
    """How long a caller waits: what they say, up to ``longest``, or ``default``. Seconds."""

    default: float
    longest: float

    def seconds(self, asked: float | None) -> float:
        return self.default if asked is None else min(asked, self.longest)


def request_id(given: str | None) -> str:
    """The caller's id of the request if it is harmless in a log and a header, else a new one."""
    return given if given and _SANE_ID.fullmatch(given) else f"{random.getrandbits(128):032x}"


def header(scope: Scope, name: bytes) -> str | None:
    """The first value of an HTTP header, by its name in lower case; None without one."""
    for given, value in scope["headers"]:
        if given == name:
            return str(value, "latin-1")
    return None


def seconds_of(milliseconds: Sequence[str]) -> float | None:
    """Seconds in the values of a timeout header; raises ``InvalidRequest``. None if there is none; may be negative."""
    if not milliseconds:
        return None
    if len(milliseconds) > 1 or not _NUMBER.fullmatch(milliseconds[0]):
        raise InvalidRequest("X-Request-Timeout-Ms must be one number of milliseconds")
    return float(milliseconds[0]) / 1000


async def answer(serving: Serving, query: Query, deadline: Deadline) -> Answer:
    """Ask, and count what came back."""
    given = await serving.recommend(query, deadline)
    metrics.answered(given)
    return given


def report_bug(where: str, request: str, error: Exception) -> None:
    """Count and log an exception that nobody expected."""
    metrics.bug_found(where)
    _log.error("bug", exc_info=error, extra={"where": where, "request_id": request})
