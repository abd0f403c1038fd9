"""Who asks: users of a bundle by Zipf's law, and a share whom nobody knows. The same seed, the same traffic."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import orjson

from release.bundle import Bundle

DRAWN = 4096  # asked in a circle: drawing costs nothing while measuring
STRANGER = "stranger-"  # what the ids of those begin with whom nobody knows


@dataclass(frozen=True, slots=True)
class Traffic:
    """Rank ``r`` of the known users asks in proportion to ``1 / r ** skew``; ``cold`` is the share of strangers."""

    users: Sequence[str]
    skew: float = 1.05
    cold: float = 0.05
    limit: int = 20
    seed: int = 0
    headers: Sequence[tuple[str, str]] = field(default=())  # beside those that every request carries

    def __post_init__(self) -> None:
        if not 0.0 <= self.cold <= 1.0 or not (self.users or self.cold == 1.0):
            raise ValueError("traffic needs users, and a share of strangers from 0 to 1")

    def drawn(self, n: int = DRAWN) -> list[str]:
        """``n`` user ids."""
        random = np.random.default_rng(self.seed)
        strangers = random.random(n) < self.cold
        weight = 1.0 / np.arange(1, len(self.users) + 1) ** self.skew
        order = random.permutation(len(self.users))  # which user is popular has nothing to do with their id
        known = order[random.choice(len(self.users), n, p=weight / weight.sum())] if len(self.users) else strangers
        return [
            f"{STRANGER}{self.seed}-{i}" if cold else self.users[user]
            for i, (cold, user) in enumerate(zip(strangers.tolist(), known.tolist(), strict=True))
        ]

    def requests(self, host: str) -> Iterator[tuple[str, bytes]]:
        """Without end: a user id and the whole HTTP request that asks for their slate."""
        extra = "".join(f"{name}: {value}\r\n" for name, value in self.headers)
        made = [(user, http_request(host, user, self.limit, extra)) for user in self.drawn()]
        while True:
            yield from made


def http_request(host: str, user_id: str, limit: int = 20, extra_headers: str = "") -> bytes:
    """``POST /v1/recommendations`` as it goes over the wire; each of ``extra_headers`` ends in CR LF."""
    body = orjson.dumps({"user_id": user_id, "limit": limit})
    head = (
        f"POST /v1/recommendations HTTP/1.1\r\nhost: {host}\r\ncontent-type: application/json\r\n"
        f"content-length: {len(body)}\r\n{extra_headers}\r\n"
    )
    return head.encode() + body


def users_of(bundle: Path) -> list[str]:
    """The user ids of the bundle; raises ``BundleError``."""
    ids = Bundle.load(bundle).tables.users.ids
    return [ids.text(row) for row in range(len(ids))]


def read_level(body: bytes) -> tuple[str, tuple[str, ...]]:
    """The level and the reasons of an answer, found without parsing all of it; empty where there are none."""
    at = body.rfind(b'"degradation":{')
    if at < 0:
        return "", ()
    end = body.index(b"}", at)
    told = json.loads(body[at + len(b'"degradation":') : end + 1])
    return str(told["level"]), tuple(told["reasons"])
