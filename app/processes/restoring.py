"""Gives Triton and Redis again what they lost of the current bundle, whoever runs them, as soon as they answer.

A thread for each, so that one that hangs keeps nobody else waiting; never on the path of a request. Everything it needs
is imported already: the user features are written without Feast (``features.materialise.restore_user_features``).
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field

from app.commands.publishing import features_lost, give_features, give_model, model_lost
from app.settings import Settings
from domain.errors import StreamRecError
from release.publish import Echo

LOOK_SECONDS = 0.25
LAST_DELAY_SECONDS = 30.0


@dataclass(slots=True, eq=False)
class Restorer:
    """Looks whether one part has lost something, and gives it back; after a failure with growing delays."""

    part: str
    lost: Callable[[], bool]
    give: Callable[[], object]
    echo: Echo
    _delay: float = LOOK_SECONDS

    def look(self) -> float:
        """Look once; how many seconds to wait before the next time."""
        try:
            if self.lost():
                self.give()
        except (StreamRecError, OSError, ValueError, RuntimeError) as error:  # one bug must not end the looking
            self.echo(f"{self.part} cannot be given what it lost: {error}")
            self._delay = min(self._delay * 2, LAST_DELAY_SECONDS)
        else:
            self._delay = LOOK_SECONDS
        return self._delay


@dataclass(slots=True, eq=False)
class Restoring:
    """The restorers of one service, each in its thread."""

    restorers: tuple[Restorer, ...]
    _ended: threading.Event = field(default_factory=threading.Event, repr=False)
    _threads: list[threading.Thread] = field(default_factory=list, repr=False)

    @classmethod
    def of(cls, settings: Settings, echo: Echo) -> Restoring:
        """For the Triton and the Redis of these settings."""
        return cls(
            (
                Restorer("Redis", lambda: features_lost(settings), lambda: give_features(settings, echo), echo),
                Restorer("Triton", lambda: model_lost(settings), lambda: give_model(settings, echo), echo),
            )
        )

    def start(self) -> None:
        for restorer in self.restorers:
            thread = threading.Thread(target=self._run, args=(restorer,), name=f"restore {restorer.part}", daemon=True)
            thread.start()
            self._threads.append(thread)

    def stop(self, seconds: float = 5.0) -> None:
        """End after what is being done now, or leave it behind after ``seconds``: it is safe to be cut off."""
        self._ended.set()
        for thread in self._threads:
            thread.join(seconds)

    def _run(self, restorer: Restorer) -> None:
        while not self._ended.is_set():
            self._ended.wait(restorer.look())
