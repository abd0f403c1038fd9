"""What to serve when the current bundle cannot be: the newest of those before it that is whole."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path


def earlier(current: Path) -> Iterator[Path]:
    """The publications before ``current``, newest first; nothing for a bundle that lies elsewhere."""
    if not current.name.isdecimal():
        return
    beside = [path for path in current.parent.glob("[0-9]*") if path.name.isdecimal()]
    yield from sorted(
        (path for path in beside if int(path.name) < int(current.name)), key=lambda path: int(path.name), reverse=True
    )
