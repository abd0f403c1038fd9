"""What an operator ordered by hand, for all workers of this machine: one file under HOME, which each of them follows.

An admin call reaches one worker and must hold in all, and in one that starts later. So it is written down, and the loop
that looks at the bundle's link looks at this file, too.
"""

from __future__ import annotations

import fcntl
import json
import logging
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

FILE = "orders.json"

_log = logging.getLogger("streamrec.orders")


@dataclass(frozen=True, slots=True)
class Orders:
    """``held``: dependencies that are not to be asked. ``reloads``: how often a reload was ordered."""

    held: frozenset[str] = frozenset()
    reloads: int = 0


@dataclass(frozen=True, slots=True)
class OrderBook:
    """Reads and writes the file in ``home``. No file: nothing was ordered. One that is no orders counts as none."""

    home: Path

    def read(self) -> Orders:
        try:
            given = json.loads((self.home / FILE).read_bytes())
            return Orders(frozenset(map(str, given["held"])), int(given["reloads"]))
        except FileNotFoundError:
            return Orders()
        except (OSError, ValueError, KeyError, TypeError) as error:
            _log.error("orders cannot be read", extra={"why": type(error).__name__})  # told in full
            return Orders()

    def hold(self, parts: frozenset[str]) -> Orders:
        """From now on these are held, and no others; raises ``OSError``."""
        return self._change(lambda orders: replace(orders, held=parts))

    def reload(self) -> Orders:
        """Every worker looks anew at the link, even at a bundle that it refused; raises ``OSError``."""
        return self._change(lambda orders: replace(orders, reloads=orders.reloads + 1))

    def _change(self, change: Callable[[Orders], Orders]) -> Orders:
        """One at a time, and atomically: a reader sees the orders before or after."""
        self.home.mkdir(parents=True, exist_ok=True)
        with (self.home / f"{FILE}.lock").open("a") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            changed = change(self.read())
            scratch = self.home / f"{FILE}.new"
            scratch.write_text(json.dumps({"held": sorted(changed.held), "reloads": changed.reloads}))
            scratch.replace(self.home / FILE)
        return changed


@dataclass(slots=True, eq=False)
class Follower:
    """One worker's view of the orders: ``follow`` says whether a reload was ordered since it last looked."""

    book: OrderBook
    hold: Callable[[frozenset[str]], None]
    _orders: Orders = field(init=False)

    def __post_init__(self) -> None:
        self._orders = self.book.read()
        self.hold(self._orders.held)

    @property
    def held(self) -> list[str]:
        return sorted(self._orders.held)

    def follow(self) -> bool:
        """Pass on what is held now."""
        before, self._orders = self._orders, self.book.read()
        if self._orders.held != before.held:
            self.hold(self._orders.held)
            _log.warning("held by order", extra={"parts": self.held})
        return self._orders.reloads != before.reloads
