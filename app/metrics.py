"""What is counted, and how several workers count as one.

Metrics are process-wide by nature, so they stand here once and are moved through the functions below. Under
``PROMETHEUS_MULTIPROC_DIR``, which the supervisor sets for its workers before this module is imported,
prometheus_client keeps a file a process in that folder and ``exposition`` adds all of them up; without it, this process
speaks for itself. Labels are few and closed: never a user, an item or anything else a caller sent.
"""

from __future__ import annotations

import math
import os
from collections.abc import Mapping
from functools import cache
from pathlib import Path
from typing import TypeVar

from prometheus_client import (
    CONTENT_TYPE_LATEST,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
    values,
)
from prometheus_client.multiprocess import MultiProcessCollector, mark_process_dead

from domain.answer import Answer
from domain.degradation import DegradationLevel

BREAKER_STATES = ("closed", "half-open", "open")

# 0.15 is the default deadline, 0.2 the ceiling the business set: without bounds there neither can be computed.
REQUEST_BOUNDS = (0.005, 0.01, 0.015, 0.02, 0.025, 0.035, 0.05, 0.075, 0.1, 0.125, 0.15, 0.2, 0.3, 0.5, 1.0, 2.5)
STAGE_BOUNDS = (0.0002, 0.0005, 0.001, 0.002, 0.004, 0.008, 0.015, 0.025, 0.04, 0.06, 0.08, 0.1, 0.15, 0.2, 0.3)
SIZE_BOUNDS = (0, 1, 5, 10, 20, 50, 100, 200, 500, 1000)
EVENT_BOUNDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 10.0, 60.0, 600.0, 1800.0)

PROCESS = os.getpid()
if values.ValueClass is not values.MutexValue:
    # The library would ask the kernel who this is at each of a request's 75 values, in case of a fork. Nothing forks.
    values.ValueClass = values.MultiProcessValue(lambda: PROCESS)  # type: ignore[no-untyped-call]

REGISTRY = CollectorRegistry()
Labelled = TypeVar("Labelled", Counter, Histogram)
disable_created_metrics()  # type: ignore[no-untyped-call]  # a second series for every counter, which nothing here reads

REQUESTS = Counter("streamrec_requests_total", "Recommendation requests", ["transport", "status"], registry=REGISTRY)
REQUEST_SECONDS = Histogram(
    "streamrec_request_seconds", "From the door to the answer", ["transport"], buckets=REQUEST_BOUNDS, registry=REGISTRY
)
ANSWERS = Counter("streamrec_answers_total", "Answers by degradation level", ["level"], registry=REGISTRY)
REASONS = Counter("streamrec_reasons_total", "Why answers were not better", ["part", "cause"], registry=REGISTRY)
STAGE_SECONDS = Histogram(
    "streamrec_stage_seconds", "Time in a stage of the request", ["stage"], buckets=STAGE_BOUNDS, registry=REGISTRY
)
CALLS = Counter(
    "streamrec_calls_total", "Guarded calls by how they ended: ok, cancelled or a cause", ["part", "outcome"],
    registry=REGISTRY,
)  # fmt: skip
CALL_SECONDS = Histogram(
    "streamrec_call_seconds", "Time of a guarded call", ["part"], buckets=STAGE_BOUNDS, registry=REGISTRY
)
CANDIDATES = Counter(
    "streamrec_source_candidates_total", "Candidates proposed by a source", ["source"], registry=REGISTRY
)
FORGOTTEN = Counter(
    "streamrec_forgotten_slates_total", "Slates that could not be remembered for the user", registry=REGISTRY
)
ARMS = Counter("streamrec_arm_answers_total", "Answers by experiment arm", ["layer", "arm"], registry=REGISTRY)
UNRECORDED = Counter(
    "streamrec_unrecorded_requests_total", "Requests drawn for replay that could not be kept", registry=REGISTRY
)
FEATURE_PROBLEMS = Counter(
    "streamrec_feature_problems_total",
    "Feature values that could not be used",
    ["feature", "reason"],
    registry=REGISTRY,
)
EVENT_BATCHES = Counter(
    "streamrec_event_batches_total", "Batches of events at the door", ["transport", "status"], registry=REGISTRY
)
EVENT_BATCH_SECONDS = Histogram(
    "streamrec_event_batch_seconds", "From the door until the log has a batch", ["transport"],
    buckets=REQUEST_BOUNDS, registry=REGISTRY,
)  # fmt: skip
EVENTS_NOT_TAKEN = Counter(
    "streamrec_event_batches_not_taken_total", "Batches that the log could not take", ["cause"], registry=REGISTRY
)
EVENTS_CONSUMED = Counter(
    "streamrec_events_consumed_total", "Events written into the users' state; one that is given out twice counts twice",
    ["kind"], registry=REGISTRY,
)  # fmt: skip
EVENT_SECONDS = Histogram(
    "streamrec_event_seconds", "From the log to the user's state", buckets=EVENT_BOUNDS, registry=REGISTRY
)
EVENTS_BURIED = Counter("streamrec_events_buried_total", "Dead letters by reason", ["reason"], registry=REGISTRY)
EVENTS_FAILED = Counter(
    "streamrec_event_consumer_failures_total", "Batches that could not be written, and are given out again", ["cause"],
    registry=REGISTRY,
)  # fmt: skip
# Set by the workers, not the consumers: a lag must show when every consumer is gone.
EVENT_LAG = Gauge(
    "streamrec_event_lag_seconds", "Age of the oldest event that is not in a user's state",
    multiprocess_mode="livemax", registry=REGISTRY,
)  # fmt: skip
BUGS = Counter("streamrec_bugs_total", "Exceptions that nobody expected", ["where"], registry=REGISTRY)

ACCESS = Counter(
    "streamrec_access_total",
    "Requests checked at the door, by the key's name (empty: none that is known) and outcome",
    ["key", "outcome"],
    registry=REGISTRY,
)
BUNDLES_REFUSED = Counter("streamrec_bundles_refused_total", "Published bundles that did not load", registry=REGISTRY)

# "live": a worker that is gone does not count. "sum": how many workers say so, and no label a worker.
BREAKER_WORKERS = Gauge(
    "streamrec_breaker_workers", "Workers whose breaker for a part is in a state", ["part", "state"],
    multiprocess_mode="livesum", registry=REGISTRY,
)  # fmt: skip
BUNDLE_WORKERS = Gauge(
    "streamrec_bundle_workers", "Workers that serve a bundle", ["version", "number"],
    multiprocess_mode="livesum", registry=REGISTRY,
)  # fmt: skip
PUBLISHED_SECONDS = Gauge(
    "streamrec_bundle_published_timestamp_seconds", "When the oldest bundle in use was published",
    multiprocess_mode="livemin", registry=REGISTRY,
)  # fmt: skip

MODEL_TRAINED_SECONDS = Gauge(
    "streamrec_model_trained_timestamp_seconds", "When the oldest models in use were trained",
    multiprocess_mode="livemin", registry=REGISTRY,
)  # fmt: skip
INDEX_RECALL = Gauge(
    "streamrec_index_recall_ratio", "Share of the exact nearest items that the index finds, of the worst worker",
    multiprocess_mode="livemin", registry=REGISTRY,
)  # fmt: skip
INDEX_RECALL.set(math.inf)  # not measured: a zero would be an alert, and NaN hides the others from a minimum

# What all workers counted together; each of them says the same, some seconds apart. NaN: too few requests to judge.
FEATURE_PSI = Gauge(
    "streamrec_feature_psi", "Distance of a feature's values from those in training", ["feature"],
    multiprocess_mode="livemostrecent", registry=REGISTRY,
)  # fmt: skip
FEATURE_DEFAULT_EXCESS = Gauge(
    "streamrec_feature_default_excess_ratio",
    "Share of requests with a feature's default or unknown code, less that in training", ["feature"],
    multiprocess_mode="livemostrecent", registry=REGISTRY,
)  # fmt: skip
FEATURE_HITS = Gauge(
    "streamrec_feature_hit_ratio", "Share of reads that found the user's whole row",
    multiprocess_mode="livemostrecent", registry=REGISTRY,
)  # fmt: skip
SKEW_REQUESTS = Gauge(
    "streamrec_feature_watch_requests", "Requests of the last two clock hours that the distances are of",
    multiprocess_mode="livemostrecent", registry=REGISTRY,
)  # fmt: skip

ADMISSIONS = Counter(
    "streamrec_admissions_total", "Requests by the path that they took, or were refused", ["priority", "path"],
    registry=REGISTRY,
)  # fmt: skip
IN_FLIGHT_LIMIT = Gauge(
    "streamrec_in_flight_limit", "Requests that may be on the full path at once, of all workers",
    multiprocess_mode="livesum", registry=REGISTRY,
)  # fmt: skip
QUALITY = Gauge(
    "streamrec_quality_ratio", "The lowest quality factor of a worker: below 0.9 fewer candidates are ranked",
    multiprocess_mode="livemin", registry=REGISTRY,
)  # fmt: skip
BAD_MODEL_WORKERS = Gauge(
    "streamrec_bad_model_workers", "Workers that have marked the model bad", multiprocess_mode="livesum",
    registry=REGISTRY,
)  # fmt: skip
SHADOW_RUNS = Counter(
    "streamrec_shadow_runs_total", "Rungs run beside live requests, by how it ended", ["level", "outcome"],
    registry=REGISTRY,
)  # fmt: skip
SHADOW_SECONDS = Histogram(
    "streamrec_shadow_seconds", "Time of a rung in shadow", ["level"], buckets=STAGE_BOUNDS, registry=REGISTRY
)
SHADOW_SIZE = Histogram(
    "streamrec_shadow_size", "What a rung in shadow gave: features for STALE_FEATURES, items for the others",
    ["level"], buckets=SIZE_BOUNDS, registry=REGISTRY,
)  # fmt: skip
EXPOSURE_SLATES = Counter(
    "streamrec_exposure_slates_total", "Slates in the exposure ledger, or lost to it", ["outcome"], registry=REGISTRY
)
EXPOSURE = Gauge(
    "streamrec_exposure_ratio", "Of the last week: promised, delivered, coverage, gini, worst_equity", ["measure"],
    multiprocess_mode="livemostrecent", registry=REGISTRY,
)  # fmt: skip

_LEVELS = {level: ANSWERS.labels(level.name) for level in DegradationLevel}  # each level shows from the start, at zero


@cache
def _of(metric: Labelled, *labels: str) -> Labelled:
    """The child of these labels, found once: the library looks it up under a lock. Labels are few, so all are kept."""
    return metric.labels(*labels)


def request_finished(transport: str, status: str, seconds: float) -> None:
    """One request, however it ended. ``transport`` is ``http`` or ``grpc``; ``status`` is in its words."""
    _of(REQUESTS, transport, status).inc()
    _of(REQUEST_SECONDS, transport).observe(seconds)


def answered(answer: Answer) -> None:
    """How good an answer was, why not better, and where its time went."""
    _LEVELS[answer.level].inc()
    for reason in answer.reasons:
        part, _, cause = reason.partition(".")
        _of(REASONS, part, cause).inc()
    for layer, arm in answer.arms.items():
        _of(ARMS, layer, arm).inc()
    for source, n in answer.proposed.items():
        _of(CANDIDATES, source).inc(n)
    for stage, seconds in answer.timing.items():
        _of(STAGE_SECONDS, stage).observe(seconds)


def slates_forgotten(slates: int) -> None:
    """Slates that nobody will remember the user was shown."""
    FORGOTTEN.inc(slates)


def request_not_recorded() -> None:
    """A request that was drawn for replay, and could not be kept."""
    UNRECORDED.inc()


def dependency_called(name: str, outcome: str, seconds: float) -> None:
    """One guarded call of a dependency or source; what ``app.guard`` tells."""
    _of(CALLS, name, outcome).inc()
    _of(CALL_SECONDS, name).observe(seconds)


def feature_problem(feature: str, reason: str) -> None:
    """A feature's value was missing, out of range or too old, so that its default stands in."""
    FEATURE_PROBLEMS.labels(feature, reason).inc()


def events_asked(transport: str, status: str, seconds: float) -> None:
    """One batch of events at a door, however it ended."""
    EVENT_BATCHES.labels(transport, status).inc()
    EVENT_BATCH_SECONDS.labels(transport).observe(seconds)


def events_not_taken(cause: str) -> None:
    """The log could not take a batch, and the caller was told."""
    EVENTS_NOT_TAKEN.labels(cause).inc()


def event_consumed(kind: str, seconds: float) -> None:
    """An event's state was written, so long after the log had it."""
    EVENTS_CONSUMED.labels(kind).inc()
    EVENT_SECONDS.observe(seconds)


def event_buried(reason: str) -> None:
    EVENTS_BURIED.labels(reason).inc()


def consumer_failed(cause: str) -> None:
    EVENTS_FAILED.labels(cause).inc()


def event_lag_is(seconds: float) -> None:
    """How far the consumers are behind, as this worker knows it."""
    EVENT_LAG.set(seconds)


def bug_found(where: str) -> None:
    BUGS.labels(where).inc()


def access_checked(key: str, outcome: str) -> None:
    """``key`` is the name of a key in the operator's file, so there are no more of them than lines."""
    _of(ACCESS, key, outcome).inc()


def breaker_is(part: str, state: str) -> None:
    """The state of this worker's breaker for ``part``: one of ``BREAKER_STATES``."""
    for known in BREAKER_STATES:
        BREAKER_WORKERS.labels(part, known).set(float(known == state))


def admitted(priority: str, path: str) -> None:
    """The path of one request."""
    _of(ADMISSIONS, priority, path).inc()


def load_is(limit: int, quality: float) -> None:
    """What this worker's admission has come to: its adaptive limit and its quality factor."""
    IN_FLIGHT_LIMIT.set(limit)
    QUALITY.set(quality)


def carries_no_load() -> None:
    """This process is no worker: the zero that its file begins with must not be the lowest quality of all."""
    QUALITY.set(math.inf)


def model_is(*, bad: bool) -> None:
    """Whether this worker has marked the current bundle's model bad."""
    BAD_MODEL_WORKERS.set(float(bad))


def shadow_ran(rung: str, outcome: str, seconds: float, size: int) -> None:
    """One rung in shadow, or one that was dropped."""
    SHADOW_RUNS.labels(rung, outcome).inc()
    if outcome != "dropped":
        SHADOW_SECONDS.labels(rung).observe(seconds)
        SHADOW_SIZE.labels(rung).observe(size)


def bundle_is(version: str, number: int | None, published_at: float | None) -> None:
    """The bundle that this worker serves now, and no other."""
    for labels in [tuple(label.values()) for label in _held(BUNDLE_WORKERS)]:
        BUNDLE_WORKERS.labels(*labels).set(0)  # removing it would leave the old value in the file of this process
    BUNDLE_WORKERS.labels(version, str(number or 0)).set(1)
    PUBLISHED_SECONDS.set(published_at or 0)


def serves_no_bundle() -> None:
    """This process is no worker: the zero that its file begins with must not be the oldest publication of all."""
    PUBLISHED_SECONDS.set(math.inf)
    MODEL_TRAINED_SECONDS.set(math.inf)


def models_are_of(created_at: float) -> None:
    """When the models that this worker serves were trained, UTC seconds."""
    MODEL_TRAINED_SECONDS.set(created_at)


def index_recall_is(ratio: float) -> None:
    """What of the exact answer approximate search finds; NaN, nobody asked, counts as not measured."""
    INDEX_RECALL.set(math.inf if math.isnan(ratio) else ratio)


def bundle_refused() -> None:
    """A published bundle did not load here; the one in use goes on."""
    BUNDLES_REFUSED.inc()


def skew_is(features: Mapping[str, tuple[float, float]], hit_ratio: float, requests: int) -> None:
    """How far each feature is from training: its PSI and its excess of defaults, NaN where not judged."""
    for feature, (index, excess) in features.items():
        FEATURE_PSI.labels(feature).set(index)
        FEATURE_DEFAULT_EXCESS.labels(feature).set(excess)
    FEATURE_HITS.set(hit_ratio)
    SKEW_REQUESTS.set(requests)


def skew_unknown() -> None:
    """The counts cannot be read, so nothing is known of skew: an old figure would be taken for a new one."""
    features = [labels["feature"] for labels in _held(FEATURE_PSI)]
    skew_is(dict.fromkeys(features, (math.nan, math.nan)), math.nan, 0)


def exposure_counted(slates: int, lost: int) -> None:
    """Slates that came into the ledger, and those that could not."""
    EXPOSURE_SLATES.labels("counted").inc(slates)
    EXPOSURE_SLATES.labels("lost").inc(lost)


def exposure_is(promised: float, delivered: float, coverage: float, gini: float, worst_equity: float) -> None:
    """How exposure was spread over the last week, over all workers; NaN where nothing was shown."""
    told = {"promised": promised, "delivered": delivered, "coverage": coverage, "gini": gini}
    for measure, value in {**told, "worst_equity": worst_equity}.items():
        EXPOSURE.labels(measure).set(value)


def exposition() -> tuple[bytes, str]:
    """All metrics in Prometheus' text format, and its media type. Reads files when there are several workers."""
    registry = REGISTRY
    if values.ValueClass is not values.MutexValue:  # decided by the library at import, from its own variable
        registry = CollectorRegistry()
        MultiProcessCollector(registry)  # type: ignore[no-untyped-call]
    return generate_latest(registry), CONTENT_TYPE_LATEST


def worker_died(pid: int, folder: Path) -> None:
    """Stop counting the gauges of a worker that is gone; its counters stay. ``folder`` is the multiprocess folder."""
    mark_process_dead(pid, str(folder))  # type: ignore[no-untyped-call]


def _held(gauge: Gauge) -> list[dict[str, str]]:
    return [sample.labels for family in gauge.collect() for sample in family.samples]
