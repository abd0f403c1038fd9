"""The features to go on with when the online store does not answer: the last ones this process saw for the user."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, field

from features.online import StoredUser


@dataclass(slots=True)
class StaleFeatures:
    """A bounded least-recently-used cache of one process. A user takes about 1 KB, so it is some 50 MB when full.

    It outlives bundles, so a row is kept under the project it was read from: another project's columns may mean
    something else.
    """

    capacity: int = 50_000
    _kept: OrderedDict[tuple[str, str], StoredUser] = field(default_factory=OrderedDict, repr=False)

    def keep(self, project: str, user_id: str, stored: StoredUser) -> None:
        """Remember the latest good read."""
        self._kept[project, user_id] = stored
        self._kept.move_to_end((project, user_id))
        if len(self._kept) > self.capacity:
            self._kept.popitem(last=False)

    def last(self, project: str, user_id: str) -> StoredUser | None:
        """The latest good read of this user here, if it is still kept."""
        return self._kept.get((project, user_id))

    def forget(self, project: str, user_id: str) -> None:
        """The store no longer has this user."""
        self._kept.pop((project, user_id), None)

    def __len__(self) -> int:
        return len(self._kept)
