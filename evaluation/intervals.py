"""Is the difference of two models more than the luck of who was judged?

Paired bootstrap over users (Efron and Tibshirani, 1993; for rankings Sakai, SIGIR 2006): users are drawn with
replacement, both models' numbers of a user stay together, and the interval is the middle 95 % of what comes out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from training.quality import Numbers

RESAMPLES = 2000
TAIL = 0.025


@dataclass(frozen=True, slots=True)
class Interval:
    """An estimate with its 95 % interval."""

    value: float
    low: float
    high: float

    def __str__(self) -> str:
        return f"{self.value:.4f} [{self.low:.4f}, {self.high:.4f}]"


@dataclass(frozen=True, slots=True)
class Comparison:
    """One model over another: the difference and the ratio of their means."""

    difference: Interval
    ratio: Interval


def compare(ours: Numbers, theirs: Numbers, seed: int = 0) -> Comparison:
    """``(users,)`` each, aligned; at least one user. A ratio over zero is NaN."""
    rng = np.random.default_rng(seed)
    drawn = rng.multinomial(len(ours), np.full(len(ours), 1.0 / len(ours)), RESAMPLES) / len(ours)
    a, b = drawn @ ours, drawn @ theirs
    return Comparison(
        _interval(ours.mean() - theirs.mean(), a - b), _interval(_ratio(ours.mean(), theirs.mean()), _ratio(a, b))
    )


def _ratio(a: Numbers, b: Numbers) -> Numbers:
    return np.divide(a, b, out=np.full(np.shape(b), np.nan), where=np.asarray(b) > 0)


def _interval(value: Numbers, resampled: Numbers) -> Interval:
    sound = resampled[np.isfinite(resampled)]
    low, high = np.quantile(sound, [TAIL, 1.0 - TAIL]) if len(sound) else (np.nan, np.nan)
    return Interval(float(value), float(low), float(high))
