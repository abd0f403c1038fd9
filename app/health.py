"""What a worker tells the rest of the machine: the heartbeat file that publishing waits for."""

from __future__ import annotations

import json
import logging
import os
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

_log = logging.getLogger("streamrec.health")


@dataclass(frozen=True, slots=True)
class Heartbeat:
    """``<folder>/<pid>.json``: this worker lives, and uses this publication.

    An old version of the model is unloaded only when no living worker names it any more. A disk that cannot be written
    stops publishing, never serving.
    """

    folder: Path
    pid: int = field(default_factory=os.getpid)

    @property
    def path(self) -> Path:
        return self.folder / f"{self.pid}.json"

    def beat(self, number: int | None) -> None:
        """Say which publication is in use; None for a bundle that was never published."""
        scratch = self.path.with_suffix(".new")
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            scratch.write_text(json.dumps({"pid": self.pid, "number": number}))
            scratch.replace(self.path)
        except OSError as error:
            _log.error("heartbeat not written", extra={"why": str(error)})

    def stop(self) -> None:
        """This worker is gone."""
        with suppress(OSError):
            self.path.unlink(missing_ok=True)
