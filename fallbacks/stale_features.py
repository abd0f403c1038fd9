"""The features to go on with when the online store does not answer: the last ones this process saw for the user."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from features.online import StoredUser


@dataclass(slots=True)
class StaleFeatures:
    """A bounded least-recently-used cache. It outlives bundles, so what it holds speaks in external ids.

    A user takes about 1 KB, so the default capacity is some 50 MB when full.
    """

    capacity: int = 50_000
    _kept: OrderedDict[str, StoredUser] = field(default_factory=OrderedDict, repr=False)

    def keep(self, user_id: str, stored: StoredUser) -> None:
        """Remember the latest good read."""
        self._kept[user_id] = stored
        self._kept.move_to_end(user_id)
        if len(self._kept) > self.capacity:
            self._kept.popitem(last=False)

    def last(self, user_id: str) -> StoredUser | None:
        """The latest good read of this user here, if it is still kept."""
        return self._kept.get(user_id)

    def __len__(self) -> int:
        return len(self._kept)
