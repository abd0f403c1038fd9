"""The rules, one after the other, in the order of the configuration."""

from __future__ import annotations

from collections.abc import Sequence

from domain.deadline import Deadline
from domain.slate import Slate
from domain.stages import Rule
from reranking.filters import BusinessFilters


def apply(rules: Sequence[Rule], slate: Slate, deadline: Deadline) -> tuple[Slate, tuple[str, ...]]:
    """The slate after all ``rules``, and the names of those for which there was no time left.

    A rule is too short to be interrupted, so the deadline is looked at between two. The first one always runs, and so
    does what decides whether an item may be shown at all.
    """
    skipped = []
    for done, rule in enumerate(rules):
        if done and deadline.expired and not isinstance(rule, BusinessFilters):
            skipped.append(rule.name)
        else:
            slate = rule.apply(slate)
    return slate, tuple(skipped)
