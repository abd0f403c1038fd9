"""Whom no ranker is asked about."""

from __future__ import annotations

from domain.user import UserFeatures


def merged_order_stays(user: UserFeatures) -> bool:
    """Of a user without any event the rankers know nothing that the popularity of the items does not say better.

    Only popularity proposes anything then, so the order of the merge is its order; `docs/models.md` has the numbers.
    """
    return len(user.history) == 0
