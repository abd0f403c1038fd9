"""Why an item is where it is, or at which step it fell out."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from app.falling_back import precomputed
from app.pipeline import Pipeline
from domain.explanation import Explained, Inside, Move, Step
from domain.request import Query
from domain.slate import Campaign, Slate
from reranking.promotion import Promotion
from retrieval.filters import Offer
from tests.app.fake_stages import Source
from tests.app.test_recommend import KNOWN, ask, pipeline, process

__all__ = ["pipeline", "process"]  # fixtures


class WithoutTheFirst:
    name = "without_the_first"

    def apply(self, slate: Slate) -> Slate:
        return slate.kept(np.arange(len(slate.candidates)) > 0)


async def told(pipeline: Pipeline, **query: Any) -> Inside:
    asked: dict[str, Any] = {"user_id": KNOWN, "limit": 5, "debug": True}
    answer = await ask(pipeline, Query(**asked | query))
    assert answer.inside is not None
    assert [item.item_id for item in answer.items] == [item.item_id for item in answer.inside.items]
    return answer.inside


async def why(pipeline: Pipeline, item_id: str, **query: Any) -> Explained:
    asked = (await told(pipeline, why=item_id, **query)).asked
    assert asked is not None
    return asked


def small(pipeline: Pipeline, *rows: int, **more: Any) -> Pipeline:
    """Two sources that propose these rows, the second in reverse, and no rules."""
    sources = (Source("content", list(rows)), Source("popularity", list(reversed(rows))))
    plain: dict[str, Any] = {"sources": sources, "quotas": (10, 10), "rules": (), "shelf": None}
    return replace(pipeline, **plain | more)


def unseen(pipeline: Pipeline) -> list[int]:
    users = pipeline.reader.users
    return np.setdiff1d(np.arange(len(pipeline.items)), users.history(users.ids.row(KNOWN)).item_row).tolist()


async def test_the_funnel_counts_what_each_stage_left(pipeline: Pipeline) -> None:
    seen = int(pipeline.reader.users.history(pipeline.reader.users.ids.row(KNOWN)).item_row[0])
    rows = [*unseen(pipeline)[:8], seen]
    funnel = (await told(small(pipeline, *rows))).funnel
    assert funnel.sources == {"content": 9, "popularity": 9}
    assert (funnel.merged, funnel.filtered, funnel.added, funnel.ranked, funnel.slate) == (9, 8, 0, 8, 5)


async def test_a_shown_item_has_its_sources_scores_and_moves(pipeline: Pipeline) -> None:
    rows = unseen(pipeline)
    promoted = np.array(rows[7:8], np.int32)
    campaign = Campaign("spring", promoted, (3,), 0.0, 9e9)
    whole = small(pipeline, *rows[:8], campaigns=(campaign,), rules=(Promotion(),))
    items = (await told(whole)).items
    item = items[3]
    assert item.item_id == pipeline.items.ids.text(rows[7])
    assert (item.step, item.place) == (Step.SHOWN, 3)
    assert [(source.source, source.rank) for source in item.sources] == [("content", 7), ("popularity", 0)]
    assert item.ranked_place is not None
    assert item.moves == (Move("promotion", item.ranked_place, 3),)


async def test_each_way_to_fall_out_has_its_step(pipeline: Pipeline) -> None:
    rows, name = unseen(pipeline), pipeline.items.ids.text
    history = pipeline.reader.users.history(pipeline.reader.users.ids.row(KNOWN)).item_row
    plain = small(pipeline, *rows[:8], int(history[0]))
    steps = {
        "nobody-knows-it": (Step.UNKNOWN, None),
        name(int(history[0])): (Step.FILTERED, "seen"),
        name(rows[9]): (Step.NOT_RETRIEVED, None),
        name(rows[2]): (Step.FILTERED, "excluded"),
    }
    for item_id, (step, reason) in steps.items():
        asked = await why(plain, item_id, exclude_item_ids=(name(rows[2]),))
        assert (asked.step, asked.reason, asked.place) == (step, reason, None)
    ranked = [item.item_id for item in (await told(plain, limit=8)).items]
    assert (await why(plain, ranked[7])).step is Step.BELOW_THE_SLATE
    cut = replace(plain, budget=replace(plain.budget, candidates=3), quotas=(0, 0))
    steps_of = {(await why(cut, name(row), limit=2)).step for row in rows[:8]}
    assert steps_of == {Step.SHOWN, Step.BELOW_THE_SLATE, Step.BELOW_THE_CUT}


async def test_an_item_that_is_removed_says_so(pipeline: Pipeline) -> None:
    rows = unseen(pipeline)
    removed = np.array(pipeline.items.removed)
    removed[rows[0]] = True
    items = replace(pipeline.items, removed=removed)
    without = small(pipeline, *rows[:8], items=items, offer=Offer.of(items.eligible))
    asked = await why(without, pipeline.items.ids.text(rows[0]))
    assert (asked.step, asked.reason) == (Step.FILTERED, "removed")


async def test_an_item_that_a_rule_put_out_names_the_rule(pipeline: Pipeline) -> None:
    rows = unseen(pipeline)
    plain = small(pipeline, *rows[:8])
    ranked = [item.item_id for item in (await told(plain, limit=8)).items]
    last = pipeline.items.ids.rows([ranked[7]])
    promoting = replace(plain, campaigns=(Campaign("spring", last, (0,), 0.0, 9e9),), rules=(Promotion(),))
    asked = await why(promoting, ranked[4])
    assert (asked.step, asked.reason, asked.ranked_place) == (Step.DISPLACED, "promotion", 4)
    assert asked.moves == (Move("promotion", 4, 5),)
    dropping = replace(plain, rules=(WithoutTheFirst(),))
    asked = await why(dropping, ranked[0])
    assert (asked.step, asked.reason, asked.moves[-1].after) == (Step.DROPPED, "without_the_first", None)


async def test_a_listed_slate_has_places_and_nothing_else(pipeline: Pipeline) -> None:
    answer = precomputed(pipeline, Query(KNOWN, limit=5, debug=True, why="item-00"), "why.not")
    inside = answer.inside
    assert inside is not None
    assert [item.place for item in inside.items] == [0, 1, 2, 3, 4]
    assert (inside.funnel.slate, inside.funnel.ranked) == (5, 0)
    assert inside.asked is not None
    assert inside.asked.step in {Step.SHOWN, Step.NOT_ON_THE_LIST}


@pytest.mark.parametrize("debug", [True, False])
async def test_nothing_is_explained_to_who_does_not_ask(pipeline: Pipeline, debug: bool) -> None:
    answer = await ask(pipeline, Query(KNOWN, limit=5, debug=debug))
    assert (answer.inside is not None) == debug
