"""One worker's service: every request answered by the bundle of the moment, and the bundle swapped beneath them."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

from app import metrics
from app.admission import ADMITTED, Admission, Priority
from app.beside.exposure_watch import keep_counting
from app.beside.feature_watch import keep_watching
from app.falling_back import popular, precomputed
from app.limit import Outcome
from app.pipeline import Pipeline
from app.ranking import RANKING
from app.recommend import recommend
from app.settings import Settings
from app.user_reader import PART as FEATURES
from app.wiring import SOURCES, Process, build, remembers, with_removals
from domain.answer import Answer
from domain.deadline import Deadline
from domain.degradation import DegradationLevel
from domain.errors import BadAnswer, BundleError, DependencyError, StartError, StreamRecError
from domain.request import Query
from events.log import EventLog
from features import layout, online
from features.contract import CONTRACT
from features.contract_diff import Meaning
from release.bundle import Bundle
from release.previous import earlier

POLL_SECONDS = 0.5
CLOSING_SECONDS = 2.0
WAITED_FOR = frozenset(f"{name}.timeout" for name in (FEATURES, *SOURCES))
TOO_LATE = frozenset({f"{RANKING}.timeout", "deadline.near"})

log = logging.getLogger("streamrec.serving")
T = TypeVar("T")


def _spared(where: str, work: Callable[[], T], instead: T) -> T:
    """What ``work`` gives. A bug in it is counted and logged, and costs its own part of the answer only."""
    try:
        return work()
    except Exception:
        metrics.bug_found(where)
        log.exception("bug beside the request path", extra={"where": where})
        return instead


@dataclass(slots=True, eq=False)
class Serving:
    """One worker's service: the process's parts and the current bundle, which may be replaced at any moment."""

    process: Process
    bundle: Bundle
    pipeline: Pipeline
    on_swap: Callable[[Bundle], None]
    ready: bool = True
    remembers: bool = field(init=False, repr=False)
    _watching: list[asyncio.Task[None]] = field(default_factory=list, repr=False)
    _refused: Path | None = field(default=None, repr=False)

    def __post_init__(self) -> None:
        self.remembers = remembers(self.process)
        self.process.recall.over(self.pipeline.sources)

    @property
    def events(self) -> EventLog:
        return self.process.events

    @property
    def admission(self) -> Admission:
        return self.process.admission

    async def recommend(self, query: Query, deadline: Deadline) -> Answer:
        """An answer, whatever is broken: a bug is counted, logged, and answered from the precomputed lists.

        Raises ``InvalidRequest`` on a cursor that cannot be taken, and nothing else.
        """
        query = self.process.cursors.opened(query)  # the caller's mistake, which is no bug and no answer
        current = self.pipeline  # one bundle for the whole request
        pipeline = _spared("experiments", lambda: self.process.experiments.applied(current, query.user_id), current)
        given = await self._given(pipeline, query, deadline)
        return given if query.why else self._shown(query, given, pipeline)

    def _shown(self, query: Query, given: Answer, pipeline: Pipeline) -> Answer:
        """What is on its way to a person is counted and remembered, a prefetch is not; both may be gone on with."""
        process = self.process
        seen = ADMITTED.get().priority is Priority.USER
        if pipeline.shelf and seen:
            _spared("exposure", lambda: process.exposure.saw(query.user_id, given), None)
        if self.remembers and seen:
            _spared("memory", lambda: process.memory.saw(query.user_id, given), None)
        return replace(given, cursor=_spared("cursor", lambda: process.cursors.after(query, given), None))

    async def _given(self, pipeline: Pipeline, query: Query, deadline: Deadline) -> Answer:
        place, granted, outcome = self.admission.begin(), deadline.remaining, Outcome.IGNORE
        try:
            if place is None:
                return precomputed(pipeline, query, "admission.shed")
            given = await recommend(pipeline, query, deadline)
            outcome = self._outcome(given, granted)
            return given
        except Exception:
            metrics.bug_found("recommend")
            log.exception("bug on the request path")
            listed = _spared("lists", lambda: precomputed(pipeline, query, "service.bug"), None)
            return popular(pipeline, query, "service.bug") if listed is None else listed
        finally:
            if place is not None:
                place.end(outcome)

    def _outcome(self, given: Answer, granted: float) -> Outcome:
        """What a full path tells of load. A caller who grants little time is late by their own doing."""
        if not TOO_LATE.isdisjoint(given.reasons):
            fair = granted >= self.process.settings.deadline_seconds / 2
            return Outcome.FAILURE if fair else Outcome.IGNORE
        if given.level >= DegradationLevel.BATCH_LIST:
            return Outcome.IGNORE
        aside = given.level is DegradationLevel.SIMPLE_RANKING or not WAITED_FOR.isdisjoint(given.reasons)
        return Outcome.ASIDE if aside or not given.asked_ranker else Outcome.SUCCESS

    def state(self) -> Mapping[str, Any]:
        """For ``/healthz``: what is loaded here and how each dependency is."""
        publication = self.bundle.publication
        return {
            "worker": os.getpid(),
            "bundle": {
                "version": self.bundle.version,
                "number": publication and publication.number,
                "published_at": publication and publication.published_at,
                "contract": self.bundle.manifest.contract_hash,
                "items": len(self.bundle.tables.items),
                "users": len(self.bundle.tables.users),
            },
            "triton_model_version": publication and str(publication.number),
            "sources": [source.name for source in self.pipeline.sources],
            "dependencies": {name: breaker.state for name, breaker in self.process.guard.breakers.items()},
            "held": self.process.orders.held,
            "model": {"trusted": not self.pipeline.mark.bad, "why_not": self.pipeline.mark.why},
            "admission": {
                "limit": self.admission.limit.limit,
                "in_flight": self.admission.in_flight,
                "quality": round(self.admission.quality.factor, 3),
            },
        }

    async def watch(self) -> None:
        """Look at the link, and at how far the consumers are, for as long as the worker lives."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.check()
                await self.look_at_lag()
                await self.look_at_removals()
                self._tell_load()
            except Exception:  # the loop must outlive a bug in what it does, or bundles are never swapped again
                metrics.bug_found("watch")
                log.exception("bug in the watch loop")

    def _tell_load(self) -> None:
        metrics.load_is(self.admission.limit.limit, self.admission.quality.factor)

    async def look_at_lag(self) -> None:
        """Off the path of a request. While Redis is away, what is known of the lag ages."""
        with contextlib.suppress(DependencyError):
            await self.process.lag.look()
        metrics.event_lag_is(self.process.lag.seconds())

    async def look_at_removals(self) -> None:
        """Take out what was removed since, on every rung; an outage of Redis changes nothing that is removed."""
        with contextlib.suppress(DependencyError):
            if await self.process.removals.look():
                self.pipeline = with_removals(self.pipeline, self.bundle, self.process.removals)
                log.info("removals changed", extra={"items": len(self.process.removals.since)})

    async def check(self) -> None:
        """Swap the pipeline if the link names another bundle. One that does not load is refused once and left alone."""
        path = self.process.settings.bundle.resolve()
        if self.process.orders.follow() or path == self.bundle.path:
            self._refused = None  # ordered, or the link was moved back: what was refused may have been mended since
        if path in {self.bundle.path, self._refused}:
            return
        try:
            await self._swap(path)
        except (StreamRecError, OSError, RuntimeError) as error:  # RuntimeError: what FAISS raises
            self._refused = path
            metrics.bundle_refused()
            log.error("bundle refused", extra={"bundle": path.name, "why": str(error)})  # noqa: TRY400 - told in full

    def start(self) -> None:
        """Begin all that happens beside requests; ``close`` ends it."""
        self._tell_load()
        telling = keep_watching(lambda: (self.bundle, self.pipeline.reader.watch), self.process.redis)
        counting = keep_counting(self.process.exposure, lambda: self.pipeline.shelf, self.process.redis)
        beside = (
            self.watch(),
            telling,
            self.process.shadow.run(),
            self.admission.delay.watch(),
            self.process.recall.keep(),
            counting,
            self.process.memory.keep(self.process.redis),
            self.process.recorder.keep(),
        )
        self._watching = [asyncio.create_task(one) for one in beside]

    async def _swap(self, path: Path) -> None:
        started = time.perf_counter()
        bundle, pipeline = await asyncio.to_thread(_open, path, self.process)
        self.pipeline.mark.retire()  # requests that are still on their way through it
        self.bundle, self.pipeline = bundle, pipeline
        self.process.recall.over(pipeline.sources)
        metrics.model_is(bad=False)  # its mark goes with the bundle
        self.on_swap(bundle)
        log.info("bundle swapped", extra={"bundle": bundle.version, "seconds": time.perf_counter() - started})

    async def close(self) -> None:
        self.ready = False
        for task in self._watching:
            task.cancel()
        if self._watching:  # not longer than this for one that does not heed it: the process ends anyway
            await asyncio.wait(self._watching, timeout=CLOSING_SECONDS)
        await self.process.close()


def _open(path: Path, process: Process) -> tuple[Bundle, Pipeline]:
    bundle = Bundle.load(path, model=False)
    return bundle, build(bundle, process)


def _open_or_earlier(path: Path, process: Process) -> tuple[Bundle, Pipeline]:
    """The bundle at ``path``, else the newest whole one before it; raises the first ``BundleError`` if none is."""
    try:
        return _open(path, process)
    except BundleError as error:
        for older in earlier(path):
            with contextlib.suppress(BundleError):
                opened = _open(older, process)
                metrics.bundle_refused()
                log.error("bundle refused", extra={"bundle": path.name, "why": str(error), "instead": older.name})  # noqa: TRY400 - told in full
                return opened
        raise


async def open_serving(settings: Settings, on_swap: Callable[[Bundle], None] = lambda _: None) -> Serving:
    """Load the current bundle and wire it; raises ``StartError``. ``on_swap`` is told of it and of every later one.

    Redis and Triton need not be there: without them the service starts degraded and recovers by itself.
    """
    process = Process.of(settings)
    with contextlib.suppress(DependencyError):
        await process.removals.look()
    try:
        bundle, pipeline = await asyncio.to_thread(_open_or_earlier, settings.bundle.resolve(), process)
    except BundleError as error:
        await process.close()
        raise StartError(str(error)) from error
    try:
        await _agree(bundle, process)
    except StartError:
        await process.close()
        raise
    with contextlib.suppress(StreamRecError):
        await online.warm(process.redis, connections=4)
    serving = Serving(process, bundle, pipeline, on_swap)
    on_swap(bundle)
    serving.start()
    return serving


async def _agree(bundle: Bundle, process: Process) -> None:
    """Raise ``StartError`` if the store's features mean something else; a store that is away is asked by no one."""
    genre_names = bundle.tables.items.genre_names
    project = layout.project_name(CONTRACT, genre_names)
    try:
        different = await online.disagreements(process.redis, project, Meaning.of(CONTRACT, genre_names))
    except BadAnswer as error:
        raise StartError(str(error)) from error
    except DependencyError:
        return
    if different:
        raise StartError(f"the features in Redis mean something else than this code's (ours): {'; '.join(different)}")
