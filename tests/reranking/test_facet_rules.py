"""The rules that go by the optional columns of the items: filters, creators, freshness."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from domain.slate import Audience, Slate
from domain.stages import Rule
from reranking.creators import CreatorCap
from reranking.diversity import GenreWindow
from reranking.filters import BusinessFilters, permitted
from reranking.freshness import DAY, Freshness
from tests.reranking.slates import facets, shown, slate

RATED = facets(age_rating=np.array([18, 12, np.nan, 6, 18, 18, 0, 0, 0, 0], np.float32))
LICENSED = facets(regions=np.array([[1, 0], [0, 1], [0, 0], *[[1, 1]] * 7], np.bool_), region_names=("DE", "FR"))


def viewed(audience: Audience, **context: Any) -> Slate:
    return slate(audience=audience, **context)


def test_what_is_above_the_viewers_age_or_unrated_gives_way_to_the_reserve() -> None:
    assert shown(BusinessFilters().apply(viewed(Audience(12.0), facets=RATED))) == [1, 3, 6, 7, 8]
    assert shown(BusinessFilters(admit_unrated=True).apply(viewed(Audience(12.0), facets=RATED))) == [1, 2, 3, 6, 7]


@pytest.mark.parametrize(("region", "expected"), [("DE", [0, 2, 3, 4, 5]), ("FR", [1, 2, 3, 4, 5]), ("XX", [2])])
def test_what_is_not_licensed_where_the_viewer_is_is_not_shown(region: str, expected: list[int]) -> None:
    assert shown(BusinessFilters().apply(viewed(Audience(None, region), facets=LICENSED))) == expected


def test_removed_items_are_not_shown_to_anybody() -> None:
    assert shown(BusinessFilters().apply(slate(removed=np.arange(10) < 3))) == [3, 4, 5, 6, 7]


def test_a_filter_takes_even_a_pinned_item_and_leaves_the_other_pins() -> None:
    pinned = slate(facets=RATED, audience=Audience(12.0)).with_pins({0: 4, 2: 9}, "promotion")
    after = BusinessFilters().apply(pinned)
    assert shown(after) == [1, 3, 9, 6, 7]
    assert after.pinned == (2,)


def test_what_the_audience_may_not_see_is_known_where_no_rule_goes() -> None:
    every = np.arange(10, dtype=np.int32)
    may = permitted(viewed(Audience(12.0), facets=RATED).context)
    assert np.flatnonzero(~may(every)).tolist() == [0, 2, 4, 5]
    assert permitted(slate(facets=RATED).context)(every).all()
    may = permitted(viewed(Audience(12.0), facets=RATED).context, [BusinessFilters(admit_unrated=True)])
    assert np.flatnonzero(~may(every)).tolist() == [0, 4, 5]


def test_a_creator_gives_way_beyond_the_cap_and_fills_up_when_nobody_else_is_left() -> None:
    creators = facets(creator=np.array([0, 0, 0, 1, 0, -1, -1, 1, 0, 0], np.int32))
    assert shown(CreatorCap(most=2).apply(slate(facets=creators))) == [0, 1, 3, 5, 6]
    assert shown(CreatorCap(most=1).apply(slate(limit=7, facets=creators))) == [0, 1, 2, 3, 4, 5, 6]


def test_a_pinned_item_counts_for_its_creators_cap() -> None:
    creators = facets(creator=np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 0], np.int32))
    pinned = slate(facets=creators).with_pins({4: 9}, "promotion")
    assert shown(CreatorCap(most=1).apply(pinned)) == [2, 3, 4, 5, 9]


def test_a_window_parts_the_items_of_one_creator() -> None:
    creators = facets(creator=np.array([0, 0, 0, 1, 2, 3, 4, 5, 6, 7], np.int32))
    assert shown(GenreWindow(window=3, most_of_creator=1).apply(slate(facets=creators))) == [0, 3, 4, 1, 5]


def test_what_is_new_rises_by_the_lift_and_by_half_of_it_a_half_life_later() -> None:
    published = np.full(10, -1000 * DAY)
    published[[5, 9]] = -1.0, -14 * DAY
    after = Freshness(lift=4.5, half_life_days=14).apply(slate(limit=10, facets=facets(published_at=published)))
    assert shown(after) == [0, 5, 1, 2, 3, 4, 6, 9, 7, 8]
    assert dict(after.moved) == {5: "freshness", 9: "freshness"}


def test_what_is_not_out_yet_does_not_rise() -> None:
    soon = slate(facets=facets(published_at=np.full(10, DAY)))
    assert Freshness().apply(soon) is soon


def test_the_age_of_an_item_is_by_the_clock_of_the_data() -> None:
    published = np.full(10, np.nan)
    published[5] = 0.0
    replayed = slate(now=1000 * DAY, moment=1.0, facets=facets(published_at=published))
    assert 5 in shown(Freshness(lift=3).apply(replayed))
    live = Slate(replayed.candidates, 5, replace(replayed.context, moment=None))
    assert Freshness(lift=3).apply(live) is live


@pytest.mark.parametrize("rule", [BusinessFilters(), CreatorCap(), Freshness()], ids=repr)
def test_a_dataset_without_the_columns_is_left_alone(rule: Rule) -> None:
    bare = viewed(Audience(12.0, "DE"))
    assert rule.apply(bare) is bare
