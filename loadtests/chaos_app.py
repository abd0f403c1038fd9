"""A worker whose sources and ranker can be broken from outside; everything else is the product's own wiring.

    python -m loadtests.chaos_app CONTROL_PORT

The real ``app.serving`` opens the service; then the ranker and those sources that are told to fail are wrapped at their
Protocols, again after every swap. What nobody broke is the product's own, and costs what it costs there. A line of JSON
to ``CONTROL_PORT`` on loopback says what is wrong from now on, the fields of ``Faults``; ``ok`` comes back. The product
has no switch for any of this.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from app.health import Heartbeat
from app.main import serve_until, tell_of
from app.pipeline import Pipeline
from app.processes.program import run_process, stop_signal
from app.serving import Serving, open_serving
from app.settings import Settings
from domain.arrays import Floats
from domain.candidates import Candidates
from domain.deadline import Deadline
from domain.errors import Unreachable
from domain.request import Request
from domain.stages import Ranker, Source
from domain.user import UserFeatures
from release.bundle import Bundle

HUNG_SECONDS = 3600.0


@dataclass(frozen=True, slots=True)
class Faults:
    """What is broken at this moment."""

    failing: tuple[str, ...] = ()  # sources that refuse at once
    hung: tuple[str, ...] = ()  # sources that never answer
    scores: str | None = None  # what the ranker answers instead: "nan", "equal", "short"
    ranker_slots: int = 0  # with ``ranker_seconds``: no Triton, so many at a time, each so long
    ranker_seconds: float = 0.0

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Faults:
        """Everything not given is well. Raises ``TypeError`` for what is no fault."""
        held: dict[str, Any] = {
            name: tuple(value) if isinstance(value, list) else value for name, value in given.items()
        }
        return cls(**held)


@dataclass(frozen=True, slots=True)
class FaultySource:
    """A source that does as it is told."""

    source: Source
    faults: Faults

    @property
    def name(self) -> str:
        return self.source.name

    async def retrieve(self, request: Request, user: asyncio.Task[UserFeatures], deadline: Deadline) -> Candidates:
        if self.name in self.faults.failing:
            raise Unreachable(f"{self.name} was told to fail")
        if self.name in self.faults.hung:
            await asyncio.sleep(HUNG_SECONDS)
        return await self.source.retrieve(request, user, deadline)


@dataclass(slots=True)
class FaultyRanker:
    """A ranker that does as it is told. With slots its capacity is ``slots / seconds``, whatever the machine."""

    ranker: Ranker
    faults: Faults
    _free_at: list[float] = field(default_factory=list)  # a moment of the loop's clock for each slot

    @property
    def name(self) -> str:
        return self.ranker.name

    async def score(self, user: UserFeatures, candidates: Candidates, deadline: Deadline) -> Floats:
        n = len(candidates)
        match self.faults.scores:
            case "nan":
                return np.full(n, np.nan, np.float32)
            case "equal":
                return np.full(n, 0.5, np.float32)
            case "short":
                return np.linspace(1, 0, max(1, n - 1), dtype=np.float32)
        if self.faults.ranker_slots:
            return await self._delayed(n)
        return await self.ranker.score(user, candidates, deadline)

    async def _delayed(self, n: int) -> Floats:
        """In the slot that is free first. Who leaves has had their place: a ranker does not hear of that."""
        now, slots = asyncio.get_running_loop().time(), self.faults.ranker_slots
        if len(self._free_at) != slots:
            self._free_at = [now] * slots
        slot = min(range(slots), key=self._free_at.__getitem__)
        self._free_at[slot] = max(now, self._free_at[slot]) + self.faults.ranker_seconds
        await asyncio.sleep(self._free_at[slot] - now)
        return np.linspace(1, 0, n, dtype=np.float32)


def broken(pipeline: Pipeline, whole: Pipeline, faults: Faults) -> Pipeline:
    """``pipeline`` with the sources and the ranker of the ``whole`` one, those that ``faults`` names broken."""
    named = {*faults.failing, *faults.hung}
    sources = tuple(FaultySource(one, faults) if one.name in named else one for one in whole.sources)
    wrong = faults.scores or faults.ranker_slots
    return replace(pipeline, sources=sources, ranker=FaultyRanker(whole.ranker, faults) if wrong else whole.ranker)


@dataclass(slots=True, eq=False)
class Breakable:
    """A service as ``app.main`` opens it, whose pipeline is broken anew by every word and after every swap."""

    heartbeat: Heartbeat
    serving: Serving
    _whole: Pipeline
    _faults: Faults = field(default_factory=Faults)

    @classmethod
    async def open(cls, settings: Settings) -> Breakable:
        """Raises ``StartError``."""
        heartbeat = Heartbeat(settings.workers_folder)
        serving = await open_serving(settings, lambda bundle: tell_of(bundle, heartbeat))
        opened = cls(heartbeat, serving, serving.pipeline)
        serving.on_swap = opened._on_swap
        return opened

    def tell(self, given: Mapping[str, Any]) -> None:
        """From now on this is wrong, in the fields of ``Faults``, and nothing else."""
        self._faults = Faults.of(given)
        self.serving.pipeline = broken(self.serving.pipeline, self._whole, self._faults)

    def _on_swap(self, bundle: Bundle) -> None:
        self._whole = self.serving.pipeline
        self.serving.pipeline = broken(self._whole, self._whole, self._faults)
        tell_of(bundle, self.heartbeat)

    async def close(self) -> None:
        with contextlib.suppress(OSError):
            self.heartbeat.stop()
        await self.serving.close()


async def control(port: int, opened: Breakable) -> asyncio.Server:
    """Listen for faults, a line of JSON each."""

    async def told(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while line := await reader.readline():
            opened.tell(json.loads(line))
            writer.write(b"ok\n")
            await writer.drain()
        writer.close()

    return await asyncio.start_server(told, "127.0.0.1", port)


def main() -> int:
    port = int(sys.argv[1])

    async def work(settings: Settings) -> None:
        opened = await Breakable.open(settings)
        listening = await control(port, opened)
        try:
            await serve_until(stop_signal().wait, opened.serving, settings)
        finally:
            listening.close()
            await opened.close()

    return run_process(work)


if __name__ == "__main__":
    sys.exit(main())
