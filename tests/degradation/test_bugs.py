"""A bug anywhere on the way costs its own part of the answer, and is counted; the answer leaves."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from app.metrics import REGISTRY
from app.pipeline import Pipeline
from app.serving import Serving
from app.wiring import Process
from domain.deadline import Deadline
from domain.degradation import DegradationLevel as Level
from domain.request import Query
from release.bundle import Bundle

QUERY = Query("user-3", limit=5)


class Buggy:
    """Whatever is asked of it fails, but for what a test lends it."""

    def __init__(self, **lent: Any) -> None:
        vars(self).update(lent)

    def __getattr__(self, name: str) -> Any:
        raise ZeroDivisionError(name)


def bugs(where: str) -> float:
    return REGISTRY.get_sample_value("streamrec_bugs_total", {"where": where}) or 0


@pytest.mark.parametrize(
    ("part", "where"),
    [("experiments", "experiments"), ("exposure", "exposure"), ("memory", "memory"), ("cursors", "cursor")],
)
async def test_what_happens_beside_the_answer_costs_it_nothing(
    pipeline: Pipeline, process: Process, bundle: Bundle, part: str, where: str
) -> None:
    opened, spent = process.cursors.opened, process.exposure.spent
    buggy: Any = Buggy(opened=opened, spent=spent, uses=lambda _: False)
    broken = replace(process, **{part: buggy})
    serving, before = Serving(broken, bundle, pipeline, lambda _: None), bugs(where)
    answer = await serving.recommend(QUERY, Deadline.after(20))
    assert (answer.level, len(answer.items)) == (Level.FULL, 5)
    assert (answer.cursor is None) == (part == "cursors")
    assert bugs(where) == before + 1


async def test_a_bug_that_the_lists_have_too_leaves_the_popular_items(
    pipeline: Pipeline, process: Process, bundle: Bundle
) -> None:
    broken = replace(pipeline, reader=Buggy(users=pipeline.reader.users))  # type: ignore[arg-type]
    serving, before = Serving(process, bundle, broken, lambda _: None), (bugs("recommend"), bugs("lists"))
    first = await serving.recommend(QUERY, Deadline.after(20))
    shown = tuple(item.item_id for item in first.items)
    second = await serving.recommend(replace(QUERY, exclude_item_ids=shown, debug=True), Deadline.after(20))
    assert (bugs("recommend"), bugs("lists")) == (before[0] + 2, before[1] + 2)
    for answer in (first, second):
        assert (answer.level, answer.reasons) == (Level.POPULAR, ("service.bug",))
        assert len(answer.items) == 5
    assert not set(shown) & {item.item_id for item in second.items}
