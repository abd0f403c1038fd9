"""Settings + bundle -> Pipeline: the only file that names concrete classes.

What lives as long as the process (connections, breakers, executor, the last features seen) is opened once; what belongs
to a bundle is built anew for each and swapped in one assignment.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass, field, replace
from typing import Any

import pybreaker
import redis.asyncio as aioredis

from app import metrics
from app.admission import Admission, AdmissionPolicy, StandingDelay
from app.beside.exposure_watch import ExposureWatch, Shelf
from app.beside.feature_watch import watch_of
from app.beside.memory_watch import MemoryWatch
from app.beside.recall_watch import RecallWatch
from app.beside.recorder import FileRecorder
from app.beside.shadow import Shadow
from app.cursor import Cursors, open_key
from app.event_parts import open_log
from app.events_api import ArmedLog
from app.experiments import Experiments, read_experiments
from app.guard import Guard
from app.limit import LimitPolicy
from app.orders import Follower, OrderBook
from app.pipeline import Budget, Pipeline
from app.quality import QualityPolicy
from app.ranking import RANKING
from app.removals import Removals
from app.settings import Settings
from app.user_reader import PART as FEATURES
from app.user_reader import UserReader
from domain.catalogue import Items
from domain.errors import BundleError
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
from features.definitions import ItemFacts
from ranking.logistic import LogisticRanker
from ranking.triton import TritonChannel, TritonRanker
from release.bundle import Bundle, SourceSpec, Tables
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

log = logging.getLogger("streamrec.wiring")


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
    """Waiting for 0.15 of the deadline is fine, for 0.3 too long: more would not fit under the ranking's ceiling."""
    deadline, most = settings.deadline_seconds, float(settings.max_full_path)
    limit = LimitPolicy(
        initial=min(LimitPolicy().initial, most), most=most, alpha_seconds=0.15 * deadline, beta_seconds=0.3 * deadline
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
                with_shown=remembers(process),
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


def remembers(process: Process) -> bool:
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
