"""What is counted, and how several workers count as one.

Metrics are process-wide by nature, so they stand here once and are moved through the functions below. Under
``PROMETHEUS_MULTIPROC_DIR``, which the supervisor sets for its workers before this module is imported,
prometheus_client keeps a file a process in that folder and ``exposition`` adds all of them up; without it, this process
speaks for itself. Labels are few and closed: never a user, an item or anything else a caller sent.
"""

from __future__ import annotations

from pathlib import Path

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

REGISTRY = CollectorRegistry()
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
FEATURE_PROBLEMS = Counter(
    "streamrec_feature_problems_total",
    "Feature values that could not be used",
    ["feature", "reason"],
    registry=REGISTRY,
)
BUGS = Counter("streamrec_bugs_total", "Exceptions that nobody expected", ["where"], registry=REGISTRY)

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

_LEVELS = {level: ANSWERS.labels(level.name) for level in DegradationLevel}  # each level shows from the start, at zero


def request_finished(transport: str, status: str, seconds: float) -> None:
    """One request, however it ended. ``transport`` is ``http`` or ``grpc``; ``status`` is in its words."""
    REQUESTS.labels(transport, status).inc()
    REQUEST_SECONDS.labels(transport).observe(seconds)


def answered(answer: Answer) -> None:
    """How good an answer was, why not better, and where its time went."""
    _LEVELS[answer.level].inc()
    for reason in answer.reasons:
        part, _, cause = reason.partition(".")
        REASONS.labels(part, cause).inc()
    for source, n in answer.proposed.items():
        CANDIDATES.labels(source).inc(n)
    for stage, seconds in answer.timing.items():
        STAGE_SECONDS.labels(stage).observe(seconds)


def dependency_called(name: str, outcome: str, seconds: float) -> None:
    """One guarded call of a dependency or source; what ``app.guard`` tells."""
    CALLS.labels(name, outcome).inc()
    CALL_SECONDS.labels(name).observe(seconds)


def feature_problem(feature: str, reason: str) -> None:
    """A feature's value was missing, out of range or too old, so that its default stands in."""
    FEATURE_PROBLEMS.labels(feature, reason).inc()


def bug_found(where: str) -> None:
    BUGS.labels(where).inc()


def breaker_is(part: str, state: str) -> None:
    """The state of this worker's breaker for ``part``: one of ``BREAKER_STATES``."""
    for known in BREAKER_STATES:
        BREAKER_WORKERS.labels(part, known).set(float(known == state))


def bundle_is(version: str, number: int | None, published_at: float | None) -> None:
    """The bundle that this worker serves now, and no other."""
    for labels in [tuple(label.values()) for label in _held(BUNDLE_WORKERS)]:
        BUNDLE_WORKERS.labels(*labels).set(0)  # removing it would leave the old value in the file of this process
    BUNDLE_WORKERS.labels(version, str(number or 0)).set(1)
    PUBLISHED_SECONDS.set(published_at or 0)


def bundle_refused() -> None:
    """A published bundle did not load here; the one in use goes on."""
    BUNDLES_REFUSED.inc()


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
