"""What a load saw: a row a request, and the figures that promises are made of."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from app.table import table

QUANTILES = (50, 95, 99)
FAILED = 0  # the status of a request that got no answer


class Sample(NamedTuple):
    """One request. Times are in seconds; ``due`` counts from the start of the load."""

    due: float  # when it should have been sent
    seconds: float  # from then until the whole answer, or until it was given up
    status: int  # HTTP's; 200 for OK over gRPC, ``FAILED`` for none
    level: str  # empty without an answer
    reasons: tuple[str, ...] = ()
    delay: float = 0.0  # how late it was sent: the generator's own doing, and part of ``seconds``
    user_id: str = ""
    resent: bool = False


@dataclass(frozen=True, slots=True)
class LoadResult:
    """The samples of one load in the order of their due times."""

    offered: float  # requests a second
    seconds: float  # how long it was offered
    samples: Sequence[Sample]

    def between(self, start: float, end: float) -> LoadResult:
        """What was due in ``[start, end)``."""
        return LoadResult(self.offered, end - start, [part for part in self.samples if start <= part.due < end])

    def only(self, wanted: Callable[[Sample], bool]) -> LoadResult:
        """The samples that are ``wanted``, under the same offer."""
        return LoadResult(self.offered, self.seconds, [part for part in self.samples if wanted(part)])

    @property
    def achieved(self) -> float:
        """Requests answered with 200, a second."""
        return self.count(200) / self.seconds if self.seconds else 0.0

    @property
    def availability(self) -> float:
        """Share of the requests answered with 200; 1 where nothing was asked."""
        return self.count(200) / len(self.samples) if self.samples else 1.0

    def count(self, status: int) -> int:
        return sum(part.status == status for part in self.samples)

    def quantile(self, percent: float) -> float:
        """Seconds; NaN without samples. A request without an answer counts with the time until it was given up."""
        return float(np.percentile([part.seconds for part in self.samples], percent)) if self.samples else float("nan")

    @property
    def statuses(self) -> Counter[int]:
        return Counter(part.status for part in self.samples)

    @property
    def levels(self) -> Counter[str]:
        return Counter(part.level for part in self.samples if part.level)

    @property
    def reasons(self) -> Counter[str]:
        return Counter(reason for part in self.samples for reason in part.reasons)

    def level_ratio(self, level: str) -> float:
        """Share of all requests that were answered at ``level``."""
        return self.levels[level] / len(self.samples) if self.samples else 0.0

    @property
    def sending_delay(self) -> float:
        """p99 in seconds of how late requests were sent: above a few ms the generator is what was measured."""
        return float(np.percentile([part.delay for part in self.samples], 99)) if self.samples else 0.0

    def document(self) -> dict[str, Any]:
        """In JSON's types; times in milliseconds."""
        return {
            "offered_per_second": self.offered,
            "achieved_per_second": round(self.achieved, 2),
            "seconds": self.seconds,
            "requests": len(self.samples),
            "availability": self.availability,
            "latency_ms": {f"p{percent}": round(self.quantile(percent) * 1000, 3) for percent in QUANTILES},
            "sending_delay_p99_ms": round(self.sending_delay * 1000, 3),
            "resent": sum(part.resent for part in self.samples),
            "statuses": {str(status): n for status, n in sorted(self.statuses.items())},
            "levels": dict(self.levels.most_common()),
            "reasons": dict(self.reasons.most_common()),
        }

    def json(self) -> str:
        return json.dumps(self.document(), indent=1)

    def text(self) -> str:
        """For a terminal."""
        rows = [(name, _shown(value)) for name, value in self.document().items()]
        return table(["what", "value"], rows)


def _shown(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {count}" for name, count in value.items()) or "-"
    return f"{value:.6g}" if isinstance(value, float) else str(value)
