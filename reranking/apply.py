"""The rules, one after the other, in the order of the configuration."""

from __future__ import annotations

from collections.abc import Sequence

from domain.deadline import Deadline
from domain.slate import Slate
from domain.stages import Rule


def apply(rules: Sequence[Rule], slate: Slate, deadline: Deadline) -> tuple[Slate, tuple[str, ...]]:
    """The slate after all ``rules``, and the names of those for which there was no time left.

    A rule is too short to be interrupted, so the deadline is looked at between two. The first one always runs.
    """
    for done, rule in enumerate(rules):
        if done and deadline.expired:
            return slate, tuple(skipped.name for skipped in rules[done:])
        slate = rule.apply(slate)
    return slate, ()
