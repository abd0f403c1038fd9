"""Keeps one part running: started again when it ends, or could not start; at once first, then with growing delays."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from app.process import Part
from domain.errors import StartError
from release.publish import Echo

FIRST_DELAY_SECONDS = 0.5
LAST_DELAY_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""After running this long a part's next death counts as its first."""


@dataclass(slots=True, eq=False)
class Keeper:
    """The part, how to start it, and when to try again."""

    start: Callable[[], Part]
    echo: Echo
    part: Part | None  # None: it could not start yet
    on_death: Callable[[Part], object] = lambda _: None
    clock: Callable[[], float] = time.monotonic
    _started_at: float = field(init=False)
    _delay: float = FIRST_DELAY_SECONDS
    _next_try_at: float | None = None
    _said: str = ""

    def __post_init__(self) -> None:
        self._started_at = self.clock()
        if self.part is None:
            self._next_try_at = self._started_at + self._delay

    def look(self) -> None:
        """Start the part again if it ended and its delay is over."""
        if self._next_try_at is None:
            if self.part is not None and not self.part.running:
                self._bury(self.part)
        elif self.clock() >= self._next_try_at:
            self._try()

    def _bury(self, part: Part) -> None:
        if self.clock() - self._started_at > STEADY_SECONDS:
            self._delay = FIRST_DELAY_SECONDS
        self._schedule(f"{part.name} ended with {part.process.returncode}")
        part.kill()  # what it left behind
        self.on_death(part)

    def _try(self) -> None:
        try:
            self.part = self.start()
        except StartError as error:
            self._schedule(str(error))
        else:
            self._started_at, self._next_try_at = self.clock(), None
            self.echo(f"{self.part.name} started again, pid {self.part.process.pid}")

    def _schedule(self, why: str) -> None:
        said = f"{why}: starting it again in {self._delay:g} s"
        if said != self._said:  # what cannot start for good is told once
            self.echo(said)
        self._said = said
        self._next_try_at = self.clock() + self._delay
        self._delay = min(self._delay * 2, LAST_DELAY_SECONDS)
