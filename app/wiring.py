"""Settings + bundle -> Pipeline: the only file that names concrete classes.

What lives as long as the process (connections, breakers, executor, the last features seen) is opened once; what belongs
to a bundle is built anew for each and swapped in one assignment.
"""

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

import pybreaker
import redis.asyncio as aioredis

from app import metrics
from app.admission import ADMITTED, Admission, AdmissionPolicy, Priority, StandingDelay
from app.beside.exposure_watch import ExposureWatch, Shelf, keep_counting
from app.beside.feature_watch import keep_watching, watch_of
from app.beside.memory_watch import MemoryWatch
from app.beside.recall_watch import RecallWatch
from app.beside.recorder import FileRecorder
from app.beside.shadow import Shadow
from app.cursor import Cursors, open_key
from app.event_parts import open_log
from app.events_api import ArmedLog
from app.experiments import Experiments, read_experiments
from app.falling_back import popular, precomputed
from app.guard import Guard
from app.limit import LimitPolicy, Outcome
from app.orders import Follower, OrderBook
from app.pipeline import Budget, Pipeline
from app.quality import QualityPolicy
from app.ranking import RANKING
from app.recommend import recommend
from app.removals import Removals
from app.settings import Settings
from app.user_reader import PART as FEATURES
from app.user_reader import UserReader
from domain.answer import Answer
from domain.catalogue import Items
from domain.deadline import Deadline
from domain.degradation import DegradationLevel
from domain.errors import BadAnswer, BundleError, DependencyError, StartError, StreamRecError
from domain.request import Query
from domain.stages import Ranker, Source
from events.lag import LagWatch
from events.log import EventLog
from fallbacks.batch_lists import BatchList
from fallbacks.breakers import Breaker, BreakerPolicy
from fallbacks.model_mark import ModelMark
from fallbacks.popular_list import PopularList
from fallbacks.stale_features import StaleFeatures
from features import layout, online
from features.contract import CONTRACT
from features.contract_diff import Meaning
from features.definitions import ItemFacts
from ranking.logistic import LogisticRanker
from ranking.triton import TritonChannel, TritonRanker
from release.bundle import Bundle, SourceSpec, Tables
from release.previous import earlier
from reranking.campaigns import read_campaigns
from reranking.configured import configured
from reranking.memory import Memory
from retrieval.collaborative import Collaborative
from retrieval.content import Content
from retrieval.device import open_index
from retrieval.executor import BoundedExecutor, Threaded
from retrieval.filters import Offer
from retrieval.popularity import Popularity
from retrieval.preference import Preference
from retrieval.shadow import SampledIndex
from retrieval.two_tower import TwoTower

SOURCES = ("two_tower", "collaborative", "content", "popularity", "preference")
SEARCH_THREADS = 2
SEARCHES_WAITING = 32
INLINE_ITEMS = (
    20_000  # searching 9,000 at depth 1000 takes 0.09 ms, the way into a thread and back 0.03 ms, and the GIL
)
POLL_SECONDS = 0.5
CLOSING_SECONDS = 2.0
WAITED_FOR = frozenset(f"{name}.timeout" for name in (FEATURES, *SOURCES))
TOO_LATE = frozenset({f"{RANKING}.timeout", "deadline.near"})

log = logging.getLogger("streamrec.wiring")
T = TypeVar("T")


@dataclass(frozen=True, slots=True, eq=False)
class Process:
    """What outlives every bundle: connections, breakers, the bounded executor, the last features seen."""

    settings: Settings
    redis: aioredis.Redis
    triton: TritonChannel
    executor: BoundedExecutor
    guard: Guard
    last_seen: StaleFeatures
    events: EventLog
    lag: LagWatch
    orders: Follower
    removals: Removals
    admission: Admission
    shadow: Shadow
    cursors: Cursors
    experiments: Experiments
    recorder: FileRecorder
    memory: MemoryWatch = field(default_factory=MemoryWatch)
    recall: RecallWatch = field(default_factory=RecallWatch)
    exposure: ExposureWatch = field(default_factory=ExposureWatch)

    @classmethod
    def of(cls, settings: Settings) -> Process:
        """Everything made, nothing connected yet: a dependency that is away now is found out by the first request."""
        client = online.connect(settings.redis_address)
        experiments = read_experiments(settings.experiments, SOURCES)
        events, admission = open_log(settings), _admission(settings)
        guard = _guard(settings, admission.delay)
        return cls(
            settings,
            client,
            TritonChannel(settings.triton_address, lambda: admission.limit.estimate),
            BoundedExecutor(SEARCH_THREADS, SEARCHES_WAITING),
            guard,
            StaleFeatures(),
            ArmedLog(events, experiments.arms) if experiments.layers else events,
            LagWatch(client),
            Follower(OrderBook(settings.home), guard.hold),
            Removals.kept_at(client, settings.home),
            admission,
            Shadow(settings.shadow_ratio, metrics.shadow_ran),
            Cursors(open_key(settings.cursor_key, settings.home)),
            experiments,
            FileRecorder(settings.home / "replay", settings.replay_ratio),
        )

    async def close(self) -> None:
        await self.events.close()
        await self.redis.aclose()
        await self.triton.close()
        self.executor.shutdown(wait=False, cancel_futures=True)


def _admission(settings: Settings) -> Admission:
    """Waiting for a fifth of the deadline is fine, for two fifths too long; narrowing begins between the two."""
    deadline, most = settings.deadline_seconds, float(settings.max_full_path)
    limit = LimitPolicy(
        initial=min(LimitPolicy().initial, most), most=most, alpha_seconds=0.2 * deadline, beta_seconds=0.4 * deadline
    )
    quality = QualityPolicy(target_seconds=0.3 * deadline)
    policy = AdmissionPolicy(limit, quality, settings.max_requests, settings.max_delay_seconds)
    return Admission(policy, metrics.admitted)


def _guard(settings: Settings, delay: StandingDelay) -> Guard:
    """One breaker a dependency. A source's ceiling is all of retrieval's."""
    ceilings = {FEATURES: settings.features_seconds, RANKING: settings.ranking_seconds}
    ceilings |= dict.fromkeys(SOURCES, settings.retrieval_seconds)
    slow = {FEATURES: settings.slow_features_seconds, RANKING: settings.slow_ranking_seconds}
    slow |= dict.fromkeys(SOURCES, settings.slow_retrieval_seconds)
    listener = _TellMetrics()
    breakers = {name: Breaker(name, BreakerPolicy(slow_seconds=slow[name]), listeners=(listener,)) for name in ceilings}
    for name, breaker in breakers.items():
        metrics.breaker_is(name, breaker.state)
    return Guard(breakers, ceilings, metrics.dependency_called, standing=lambda: delay.seconds)


class _TellMetrics(pybreaker.CircuitBreakerListener):
    def state_change(self, cb: pybreaker.CircuitBreaker, old_state: Any, new_state: Any) -> None:
        log.warning("breaker changed", extra={"part": cb.name, "from": old_state.name, "to": new_state.name})
        metrics.breaker_is(str(cb.name), str(new_state.name))


def build(bundle: Bundle, process: Process) -> Pipeline:
    """The bundle, wired. Opens the index (a large one is memory-mapped); may take seconds, so not on the event loop."""
    tables, settings, dataset = bundle.tables, process.settings, bundle.manifest.dataset
    attempt = process.guard.attempt
    project = layout.project_name(CONTRACT, tables.items.genre_names)
    items = process.removals.applied(tables.items)
    campaigns = read_campaigns(settings.campaigns, tables.items.ids) if settings.campaigns else ()
    return Pipeline(
        bundle=bundle.version,
        items=items,
        offer=Offer.of(items.eligible),
        clock=bundle.clock,
        reader=UserReader(
            store=online.OnlineStore(
                process.redis,
                project,
                CONTRACT,
                bundle.clock,
                with_shown=_remembers(process),
                with_promoted=any(campaign.daily_cap is not None for campaign in campaigns),
            ),
            attempt=attempt,
            last_seen=process.last_seen,
            project=project,
            problem=metrics.feature_problem,
            users=tables.users,
            items=tables.items,
            facts=item_facts(tables.items, dataset.positive_stars),
            clock=bundle.clock,
            watch=watch_of(bundle),
            lag=process.lag.seconds,
            max_lag_seconds=settings.max_event_lag_seconds,
        ),
        sources=tuple(_source(spec, bundle, process) for spec in bundle.manifest.sources),
        quotas=tuple(spec.quota for spec in bundle.manifest.sources),
        ranker=_ranker(bundle, process),
        simple_ranker=LogisticRanker(tables.logistic, tables.items),
        rules=configured(settings.rules),
        campaigns=campaigns,
        fallbacks=_fallbacks(tables, items),
        attempt=attempt,
        compute=process.guard.compute,
        budget=Budget(
            settings.features_seconds,
            settings.retrieval_seconds,
            settings.ranking_seconds,
            settings.reranking_seconds,
            settings.reserve_seconds,
            settings.candidates,
        ),
        mark=ModelMark(tell=lambda bad: _model_changed(bundle.version, bad=bad)),
        shadow=process.shadow,
        narrowed=process.admission.quality.narrowed,
        recorder=process.recorder,
        stale_at=bundle.manifest.lineage.created_at + settings.max_model_age_seconds,
        vectors=tables.user_tower.embedding,
        shelf=Shelf.of(items, settings.exposure_columns, settings.exposure_share),
        spent=lambda user_id: process.exposure.spent(user_id, campaigns),
    )


def _remembers(process: Process) -> bool:
    """Whether what users were shown matters to some rule. Who does not ask for it pays nothing for it."""
    rules = configured(process.settings.rules)
    return any(rule.name == Memory().name for rule in rules) or process.experiments.uses(Memory().name)


def _fallbacks(tables: Tables, items: Items) -> tuple[BatchList, PopularList]:
    return BatchList(tables.batch_lists, items.eligible), PopularList.of(tables.popularity, items.eligible)


def with_removals(pipeline: Pipeline, bundle: Bundle, removals: Removals) -> Pipeline:
    """The bundle's pipeline without what is removed now: the merge and every list ask the item table."""
    items = removals.applied(bundle.tables.items)
    if pipeline.shelf is not None:
        pipeline.shelf.items = items  # in place, as its quota is replaced: it may just be judged
    return replace(pipeline, items=items, offer=Offer.of(items.eligible), fallbacks=_fallbacks(bundle.tables, items))


def _model_changed(version: str, *, bad: bool) -> None:
    log.warning("model marked", extra={"bundle": version, "bad": bad})
    metrics.model_is(bad=bad)


def item_facts(items: Items, positive_stars: float) -> ItemFacts:
    """What the user features need of the item table."""
    events = items.features[:, CONTRACT.item.slices["item_events_total_count"].start]
    return ItemFacts(items.year, items.genres, events, positive_stars)


def _source(spec: SourceSpec, bundle: Bundle, process: Process) -> Source:
    tables, dataset = bundle.tables, bundle.manifest.dataset
    match spec.name:
        case "two_tower":
            index = SampledIndex(open_index(bundle.index_path, process.settings.search_device))
            nearest = TwoTower(tables.user_tower, index, dataset.positive_stars, spec.depth)
            return nearest if searched_inline(index.index, process.settings) else Threaded(nearest, process.executor)
        case "collaborative":
            return Collaborative(tables.collaborative, dataset.positive_stars, spec.depth)
        case "content":
            return Content(tables.content, dataset.positive_stars, spec.depth)
        case "popularity":
            return Popularity(tables.popularity, spec.depth)
        case "preference":
            return Preference(tables.preference, tables.items.genres, dataset.positive_stars, spec.depth)
    raise BundleError(f"{bundle.version} names a source {spec.name!r} that this code does not have")


def searched_inline(index: Any, settings: Settings) -> bool:
    """Whether a search is shorter than the way into a thread and back is worth: everything compared, on the CPU."""
    return settings.search_device == "cpu" and int(index.ntotal) <= INLINE_ITEMS


def _ranker(bundle: Bundle, process: Process) -> Ranker:
    if bundle.publication is None:
        raise BundleError(f"{bundle.version} is not published: run `streamrec publish {bundle.path}`")
    return TritonRanker(process.triton, str(bundle.publication.number), bundle.tables.items)


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
        self.remembers = _remembers(self.process)
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
