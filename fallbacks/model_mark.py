"""Whether the bundle's model can be trusted with an order.

A model that once gives scores that cannot decide an order (not finite, of the wrong count, all the same) is marked bad:
the rung below ranks from then on. Now and then a request asks it again beside its answer, where nothing depends on it;
that many good answers in a row take the mark away. A new bundle brings a new mark.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

PROBES = 3
PROBE_SECONDS = 0.25


@dataclass(slots=True)
class ModelMark:
    """The mark of one bundle's model, as this process sees it. ``tell`` hears of every change."""

    tell: Callable[[bool], object] = lambda _: None
    clock: Callable[[], float] = time.monotonic
    why: str | None = None  # it is bad; None while it is trusted
    _good: int = field(default=0, repr=False)
    _probe_at: float = field(default=0.0, repr=False)

    @property
    def bad(self) -> bool:
        return self.why is not None

    def spoil(self, why: str) -> None:
        """It gave scores that cannot be used."""
        fresh, self.why, self._good = not self.bad, why, 0
        if fresh:
            self._probe_at = self.clock() + PROBE_SECONDS
            self.tell(True)

    def retire(self) -> None:
        """Its bundle is no longer the current one: what its last requests find changes nothing that is told."""
        self.tell = lambda _: None

    def probe_due(self) -> bool:
        """Whether it is time to ask a bad model again; True at most once in ``PROBE_SECONDS``."""
        if not self.bad or self.clock() < self._probe_at:
            return False
        self._probe_at = self.clock() + PROBE_SECONDS
        return True

    def good(self) -> None:
        """A probe gave scores that can be used."""
        self._good += 1
        if self.bad and self._good >= PROBES:
            self.why = None
            self.tell(False)
