"""Keeps one part running: started again when it ends, or could not start; at once first, then with growing delays.

Nothing here waits: whether what was started has become ready is asked at the next looks, so that a part that hangs does
not keep the others from being looked after. It starts in the thread that looks, because a child ends with the thread
that started it (``app/processes/tied.py``).
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from app.processes.process import Part, is_up
from domain.errors import StartError
from release.publish import Echo

FIRST_DELAY_SECONDS = 0.5
LAST_DELAY_SECONDS = 30.0
STEADY_SECONDS = 60.0
"""After running this long a part's next death counts as its first."""


@dataclass(slots=True, eq=False)
class Keeper:
    """The part, how to start it, and when to try again."""

    start: Callable[[], Part]  # does not wait for it
    echo: Echo
    part: Part | None  # ready; None: it could not start yet
    on_death: Callable[[Part], object] = lambda _: None
    clock: Callable[[], float] = time.monotonic
    _started_at: float = field(init=False)
    _delay: float = FIRST_DELAY_SECONDS
    _next_try_at: float | None = None
    _starting: bool = False  # it runs, and is not known to be ready
    _said: str = ""

    def __post_init__(self) -> None:
        self._started_at = self.clock()
        if self.part is None:
            self._next_try_at = self._started_at + self._delay

    def look(self) -> None:
        """Start the part again if it ended and its delay is over, or see whether it is ready."""
        if self._next_try_at is not None:
            if self.clock() >= self._next_try_at:
                self._try()
        elif self.part is not None and self._starting:
            self._follow(self.part)
        elif self.part is not None and not self.part.running:
            self._bury(self.part)

    def _bury(self, part: Part) -> None:
        if self.clock() - self._started_at > STEADY_SECONDS:
            self._delay = FIRST_DELAY_SECONDS
        self._end(part, f"{part.name} ended with {part.process.returncode}")

    def _try(self) -> None:
        try:
            self.part = self.start()
        except StartError as error:
            self._schedule(str(error))
        else:
            self._started_at, self._next_try_at, self._starting = self.clock(), None, True
            self._follow(self.part)

    def _follow(self, part: Part) -> None:
        try:
            self._starting = not is_up(part, part.ready, self.clock() - self._started_at, part.ready_seconds)
        except StartError as error:
            self._starting = False
            self._end(part, str(error))
        else:
            if not self._starting:
                self._started_at = self.clock()
                self.echo(f"{part.name} started again, pid {part.process.pid}")

    def _end(self, part: Part, why: str) -> None:
        self._schedule(why)
        part.kill()  # or what it left behind
        self.on_death(part)

    def _schedule(self, why: str) -> None:
        said = f"{why}: starting it again in {self._delay:g} s"
        if said != self._said:  # what cannot start for good is told once
            self.echo(said)
        self._said = said
        self._next_try_at = self.clock() + self._delay
        self._delay = min(self._delay * 2, LAST_DELAY_SECONDS)
