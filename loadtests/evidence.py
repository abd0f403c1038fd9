"""What shows that the answers of a load were made the long way: ranked by Triton, whole, by the graph that was named.

An answer at FULL says that nothing fell short, not how much was done. So the service's own counters are read before and
after, and a few requests are asked with ``debug``. Whom no ranker is asked about (``ranking/strangers.py``) are the
traffic's strangers: they have no event, so popularity's order is theirs by design, and they are not counted.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field
from http import HTTPStatus
from urllib.request import ProxyHandler, Request, build_opener

from app.commands.client import call
from loadtests.load_result import LoadResult
from loadtests.traffic import STRANGER

RANKED = 'streamrec_calls_total{outcome="ok",part="ranking"}'
ASKED_SECONDS = 5.0
SAMPLED = 5
ASKED_AT_MOST = 20  # for one sample


@dataclass(slots=True, eq=False)
class Witness:
    """Watches a service at ``address`` (``http://host:port``) while it is under load; ``key`` is an API key."""

    address: str
    key: str | None = None
    _before: float = field(default=0.0, init=False)
    ranked: float = field(default=0.0, init=False)
    """Calls that Triton answered between ``begin`` and ``end``."""

    def begin(self) -> None:
        self._before = self._calls()

    def end(self) -> None:
        self.ranked = self._calls() - self._before

    def candidates(self, users: Sequence[str]) -> int:
        """The fewest candidates that were ranked for ``SAMPLED`` answers at FULL to these users; 0 where there is none.

        After a load beyond what the service can do, the first answers may still be narrowed, which the level says.
        """
        asked = users[:: max(1, len(users) // (SAMPLED * ASKED_AT_MOST))]
        ranked = (self._ranked_for(user) for user in asked)
        return min(itertools.islice((n for n in ranked if n is not None), SAMPLED), default=0)

    def _ranked_for(self, user: str) -> int | None:
        body: dict[str, object] = {"user_id": user, "debug": True}
        status, answer = call(self.address, "/v1/recommendations", body, key=self.key)
        full = status == HTTPStatus.OK and answer["degradation"]["level"] == "FULL"
        return int(answer["debug"]["ranked"]) if full else None

    def _calls(self) -> float:
        """Of all workers, since they started; raises ``OSError``."""
        headers = {"authorization": f"Bearer {self.key}"} if self.key else {}
        asked = Request(f"{self.address}/metrics", headers=headers)  # noqa: S310 - http
        with build_opener(ProxyHandler({})).open(asked, timeout=ASKED_SECONDS) as answer:
            return counted(answer.read().decode(), RANKED)


def counted(exposition: str, series: str) -> float:
    """The value of one series in Prometheus's text; 0 where it was never counted."""
    for line in exposition.splitlines():
        name, _, value = line.rpartition(" ")
        if name == series:
            return float(value)
    return 0.0


def full_of_known(result: LoadResult) -> int:
    """Answers at FULL to users whom the bundle knows: each of them was ranked, or the level lies."""
    return sum(part.level == "FULL" and not part.user_id.startswith(STRANGER) for part in result.samples)


def is_reference(version: str) -> bool:
    """Whether the bundle of this version is ranked by the reference graph: ``streamrec synth`` names it so."""
    return "-reference-graph-" in version or version.startswith("synthetic-")


def doubts(result: LoadResult, witness: Witness, users: Sequence[str], version: str, wanted: int = 500) -> list[str]:
    """Why the figures of this load prove nothing, a line each; ``users`` are known to the bundle of ``version``."""
    found, full = [], full_of_known(result)
    if witness.ranked < full:
        found.append(f"{full} answers at FULL to known users, of which Triton ranked {witness.ranked:g}")
    if (fewest := witness.candidates(users)) != wanted:
        found.append(f"{fewest} candidates were ranked for a sampled request, not {wanted}")
    if not is_reference(version):
        found.append(f"{version} is not ranked by the reference graph (`streamrec synth --like`)")
    return found
