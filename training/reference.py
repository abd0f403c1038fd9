"""How the features will look at the moments of requests: what the skew watch compares serving with.

The rankers' rows will not do: they are of earlier cuts, when every count was lower. Under replay everybody goes on from
their last event, so the reference is every user, weighted equally, at several ages from that event on. Live, it is the
moments of the latest events: a request comes where an event came.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Codes, Floats, Seconds
from domain.catalogue import Users
from domain.request import Context
from features.contract import CONTRACT, HOUR
from features.counts import FIRST_MONDAY, PHASE_SECONDS, PHASES, Bins, FeatureCounts, code_spans
from features.definitions import (
    SESSION_GAP_SECONDS,
    ItemFacts,
    context_codes,
    numeric_features,
    request_features,
)
from release.bundle import ReferenceTables
from training.dataset import Dataset

AGES: Seconds = SESSION_GAP_SECONDS * np.exp2(np.arange(12, dtype=np.float64))
"""A session ends at the first. Between two of them nothing but the hours since the last event changes, so these are
its bins as well: under replay every request of an age falls into one."""
AGE_STEP = 2**0.5  # from the lower end of an age to its middle
QUANTILES = np.linspace(0.1, 0.9, 9)
MOMENTS = 5_000  # more make the training longer and no bin truer


def reference_tables(dataset: Dataset, users: Users, facts: ItemFacts) -> ReferenceTables:
    """Histograms of every feature at the moments of requests, by age and phase."""
    if dataset.settings.clock != "live":
        return replayed_tables(users, facts)
    sample = _at_latest_events(dataset, facts)
    return _tables(Bins(_edges(sample), np.empty(0, np.float64)), [sample], _codes(np.zeros(1)))


def replayed_tables(users: Users, facts: ItemFacts) -> ReferenceTables:
    """The same where the users' own last events are what counts: nothing else of the dataset is needed."""
    samples = [_at_age(users, facts, age) for age in _middles()]
    edges = _edges(samples[0])  # while the session goes on: later its features are all the same
    last = CONTRACT.numeric.slices["user_since_last_event_hours"].start
    edges[last] = np.inf
    edges[last, : len(AGES)] = AGES / HOUR
    return _tables(Bins(edges, AGES), samples, _codes(_last_events(users)))


def _tables(bins: Bins, samples: list[Floats], codes: NDArray[np.int64]) -> ReferenceTables:
    counted = [_counted(bins, sample) for sample in samples]
    return ReferenceTables(
        bins.edges,
        bins.ages,
        np.stack([part.bins for part in counted]),
        np.stack([part.defaults for part in counted]),
        codes,
    )


def _middles() -> Seconds:
    """One age for each stratum: the second after the last event, then the middle of every other."""
    return np.concatenate([[1.0], AGES * AGE_STEP])


def _at_age(users: Users, facts: ItemFacts, age: float) -> Floats:
    """``(r, U)``: what serving sees of each user who ever did anything, ``age`` seconds after their last event."""
    rows = _some(np.flatnonzero(np.diff(users.indptr)))
    histories = [users.history(row) for row in rows.tolist()]
    at_request = [request_features(history, (history.last_event or 0.0) + age, facts) for history in histories]
    if not at_request:
        return np.empty((0, CONTRACT.numeric.width), np.float32)
    return np.concatenate([users.features[rows], np.stack(at_request)], axis=1)


def _at_latest_events(dataset: Dataset, facts: ItemFacts) -> Floats:
    """``(r, U)``: what was known just before each of the latest events, where anything was."""
    owner = np.repeat(np.arange(len(dataset.user_ids)), np.diff(dataset.indptr))
    later = np.flatnonzero(owner[1:] == owner[:-1]) + 1  # not a user's first
    latest = later[np.argsort(dataset.timestamp[later], kind="stable")[-MOMENTS:]]
    rows = [numeric_features(dataset.history(int(owner[at])), float(dataset.timestamp[at]), facts) for at in latest]
    return np.stack(rows) if rows else np.empty((0, CONTRACT.numeric.width), np.float32)


def _edges(sample: Floats) -> Floats:
    """``(U, b)``: deciles, the largest value, and just below the smallest, so that what was never there has its bin.

    Equal ones are one; what is left over is infinite.
    """
    edges = np.full((sample.shape[1], max(len(QUANTILES) + 2, len(AGES))), np.inf, np.float32)
    if not len(sample):
        return edges
    inner = np.quantile(sample, QUANTILES, axis=0, method="lower")
    below = np.nextafter(sample.min(axis=0), -np.inf, dtype=np.float32)
    for column, cuts in enumerate(np.vstack([below, inner, sample.max(axis=0)]).T):
        distinct = np.unique(cuts)
        edges[column, : len(distinct)] = distinct
    return edges


def _counted(bins: Bins, sample: Floats) -> FeatureCounts:
    nothing = np.zeros((len(sample), len(CONTRACT.context)), np.int32)
    return bins.count(sample, nothing, np.zeros(len(sample)), 0)


def _last_events(users: Users) -> Seconds:
    return users.timestamp[users.indptr[1:][np.diff(users.indptr) > 0] - 1] - FIRST_MONDAY


def _codes(starts: Seconds) -> NDArray[np.int64]:
    """``(T, C)``: the codes of all users, each of whom starts so many seconds after a Monday, at every later phase.

    The time of day and week repeats every week, so it is computed once for each of its quarters of an hour.
    """
    week: Codes = np.stack(
        [context_codes(Context(), FIRST_MONDAY + (quarter + 0.5) * PHASE_SECONDS) for quarter in range(PHASES)]
    )
    spans = list(code_spans(CONTRACT).values())
    shown = np.zeros((PHASES, spans[-1].stop), np.int64)
    for column, span in zip(week.T, spans, strict=True):
        shown[np.arange(PHASES), span.start + column] = 1
    users = np.bincount((starts // PHASE_SECONDS).astype(np.int64) % PHASES, minlength=PHASES)
    return np.stack([users @ np.roll(shown, -later, axis=0) for later in range(PHASES)])


def _some(rows: NDArray[np.intp]) -> NDArray[np.intp]:
    """At most ``MOMENTS`` of them, evenly."""
    if len(rows) <= MOMENTS:
        return rows
    return rows[np.linspace(0, len(rows) - 1, MOMENTS).round().astype(np.intp)]
