"""What a user was shown lately, as Redis holds it: a list a user, the newest slate first, each with its moment.

Every worker pushes onto the list, so slates of several workers come together without anybody reading first; the list
keeps the last few and ends by itself. It belongs to no Feast project and names items by their external ids: it outlives
bundles and contracts.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import orjson

from domain.arrays import Seconds

PREFIX = b"streamrec:shown:"
KEPT_SLATES = 8
KEPT_SECONDS = 3600
PROMOTED = b"streamrec:promoted:"  # a hash a user and UTC day: campaign -> impressions
DAY = 86_400
PROMOTED_SECONDS = 2 * DAY

log = logging.getLogger("streamrec.shown")


@dataclass(frozen=True, slots=True, eq=False)
class ShownIds:
    """Items by their external ids and when each was shown, UTC seconds on the wall clock; one may be there twice."""

    item_ids: tuple[str, ...]
    at: Seconds  # (n,)

    @classmethod
    def none(cls) -> ShownIds:
        return cls((), np.empty(0, np.float64))


@dataclass(frozen=True, slots=True)
class Promoted:
    """How often campaigns were shown to a user on one UTC day, for their caps."""

    day: int = 0  # since 1970
    by_campaign: Mapping[str, int] = field(default_factory=dict)

    @classmethod
    def read(cls, day: int, fields: Sequence[bytes]) -> Promoted:
        """From a hash as Redis lists it, names and counts in turn; what is no count counts as nothing."""
        pairs = zip(fields[::2], fields[1::2], strict=True)
        return cls(day, {name.decode("utf-8", "replace"): int(count) for name, count in pairs if count.isdigit()})


def today(now: float) -> int:
    """Days since 1970, UTC."""
    return int(now // DAY)


def promoted_key(user_id: str, day: int) -> bytes:
    return b"%s%d:%s" % (PROMOTED, day, user_id.encode("utf-8", "surrogatepass"))


def shown_key(user_id: str) -> bytes:
    return PREFIX + user_id.encode("utf-8", "surrogatepass")


def encode(at: float, item_ids: Sequence[str]) -> bytes:
    """One slate as it stands in the list."""
    return orjson.dumps([at, *item_ids])


def decode(slates: Sequence[bytes]) -> ShownIds:
    """The list as read; an entry that ``encode`` did not make counts as nothing."""
    ids: list[str] = []
    moments: list[float] = []
    sizes: list[int] = []
    for raw in slates:
        try:
            at, *shown = orjson.loads(raw)
            moments.append(float(at))
            sizes.append(len(shown))
            ids += map(str, shown)
        except (TypeError, ValueError):
            log.warning("a slate that a user was shown cannot be read")
    return ShownIds(tuple(ids), np.repeat(np.array(moments, np.float64), sizes))
