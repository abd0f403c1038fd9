"""Is what the rankers are given now what they were trained on? One line a feature, and the hit rate of the store.

A wide feature has the PSI of its worst column: a genre slot that moved away shows in two of 24 columns, and a mean over
all of them would hide it. With 500 requests chance alone takes the worst of 24 to about 0.05.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from enum import IntEnum

import numpy as np

from features.contract import CONTRACT, Contract
from features.counts import FeatureCounts, code_spans
from monitoring.psi import ALERT, WARN, psi, shares
from release.bundle import Bundle, ReferenceTables

MIN_REQUESTS = 500
DEFAULT_WARN, DEFAULT_ALERT = 0.05, 0.20  # share of requests at the default or unknown, above the reference's
HIT_TARGET, HIT_ALERT = 0.99, 0.95


class Verdict(IntEnum):
    """From good to bad. What cannot be judged, for want of requests or of training, is neither."""

    UNJUDGED = 0
    OK = 1
    WARN = 2
    ALERT = 3


@dataclass(frozen=True, slots=True)
class FeatureSkew:
    """One feature. ``default_ratio`` of a category is the share of code 0, unknown."""

    feature: str
    psi: float  # NaN where it was not judged
    column: int | None  # of a wide feature: the one whose PSI that is
    default_ratio: float
    reference_default_ratio: float
    verdict: Verdict

    @property
    def default_excess(self) -> float:
        """NaN where it was not judged: an untrained category is always unknown to the reference."""
        return self.default_ratio - self.reference_default_ratio if self.verdict else math.nan


@dataclass(frozen=True, slots=True)
class Skew:
    """One window of requests against the bundle that served them."""

    requests: int
    reads: int
    hit_ratio: float  # NaN without reads
    features: tuple[FeatureSkew, ...]

    @property
    def enough(self) -> bool:
        """Whether there were requests enough to say anything of a feature."""
        return self.requests >= MIN_REQUESTS

    @property
    def hit_verdict(self) -> Verdict:
        if self.reads < MIN_REQUESTS:
            return Verdict.UNJUDGED
        if self.hit_ratio >= HIT_TARGET:
            return Verdict.OK
        return Verdict.WARN if self.hit_ratio >= HIT_ALERT else Verdict.ALERT

    @property
    def verdict(self) -> Verdict:
        """The worst of all."""
        return max([self.hit_verdict, *(feature.verdict for feature in self.features)])

    @property
    def alerts(self) -> tuple[str, ...]:
        """The features that somebody must look at."""
        return tuple(feature.feature for feature in self.features if feature.verdict is Verdict.ALERT)


def untrained(bundle: Bundle) -> frozenset[str]:
    """The features that the bundle's dataset did not have."""
    return frozenset(bundle.manifest.lineage.parameters.get("untrained_features", ()))


def judge(
    reference: ReferenceTables,
    counted: FeatureCounts,
    untrained: Collection[str] = (),
    contract: Contract = CONTRACT,
) -> Skew:
    """Every feature, the reference being taken at the ages and phases of the requests that were counted."""
    measured = [*_numeric(reference, counted, contract), *_categories(reference, counted, contract)]
    enough = counted.requests >= MIN_REQUESTS
    features = tuple(
        feature if enough and feature.feature not in untrained else _unjudged(feature) for feature in measured
    )
    reads, hits = counted.reads.tolist()
    return Skew(counted.requests, reads, hits / reads if reads else math.nan, features)


def _numeric(reference: ReferenceTables, counted: FeatureCounts, contract: Contract) -> Iterator[FeatureSkew]:
    by_age = shares(counted.ages)
    columns = psi(np.einsum("s,sub->ub", by_age, shares(reference.counts)), shares(counted.bins))
    users = np.maximum(1, reference.counts[:, 0].sum(axis=1))
    usual = by_age @ (reference.defaults / users[:, None])
    defaults = counted.defaults / max(1, counted.requests)
    for place, (name, span) in enumerate(contract.numeric.slices.items()):
        of_columns = columns[span]
        worst = int(np.argmax(of_columns)) if len(of_columns) > 1 else None
        yield _measured(name, float(of_columns.max()), worst, defaults[place], usual[place])


def _categories(reference: ReferenceTables, counted: FeatureCounts, contract: Contract) -> Iterator[FeatureSkew]:
    by_phase = shares(counted.phases)
    for name, span in code_spans(contract).items():
        expected, observed = by_phase @ shares(reference.codes[:, span]), shares(counted.codes[span])
        yield _measured(name, float(psi(expected, observed)), None, observed[0], expected[0])


def _measured(name: str, index: float, column: int | None, default: float, usual: float) -> FeatureSkew:
    excess = default - usual
    verdict = Verdict.OK
    if index >= WARN or excess >= DEFAULT_WARN:
        verdict = Verdict.WARN
    if index >= ALERT or excess >= DEFAULT_ALERT:
        verdict = Verdict.ALERT
    return FeatureSkew(name, float(index), column, float(default), float(usual), verdict)


def _unjudged(feature: FeatureSkew) -> FeatureSkew:
    return replace(feature, psi=math.nan, verdict=Verdict.UNJUDGED)
