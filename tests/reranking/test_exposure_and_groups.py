from __future__ import annotations

import numpy as np
import pytest

from domain.errors import StartError
from domain.slate import ExposureQuota
from release.bundle import Bundle
from reranking.exposure import MinimumExposure
from reranking.groups import NEW, grouped
from tests.reranking.slates import shown, slate


def quota(share: float, groups: list[int], *owed: float) -> ExposureQuota:
    return ExposureQuota(share, np.array(groups, np.int32), np.array(owed, np.float32))


LAST_TWO = [-1] * 8 + [0, 0]


def test_the_best_of_an_owed_group_rises_into_the_lower_half() -> None:
    after = MinimumExposure().apply(slate(quota=quota(0.2, LAST_TWO, 1.0)))
    assert shown(after) == [0, 1, 2, 8, 3]
    assert dict(after.moved) == {8: "exposure"}


def test_what_the_slate_shows_of_the_group_anyway_counts() -> None:
    content = slate(quota=quota(0.2, [0, *LAST_TWO[1:]], 1.0))
    assert MinimumExposure().apply(content) is content


def test_an_owed_item_never_leaves_for_another() -> None:
    after = MinimumExposure().apply(slate(quota=quota(0.4, [-1, -1, -1, -1, 0, -1, -1, -1, 0, 0], 1.0)))
    assert {4, 8} <= set(shown(after))


def test_groups_are_drawn_by_what_they_are_owed_and_a_group_owed_nothing_never() -> None:
    groups = [-1] * 7 + [0, 1, 2]
    rose = [
        next(iter(MinimumExposure().apply(slate(quota=quota(0.2, groups, 3.0, 1.0, 0.0), seed=seed)).moved))
        for seed in range(400)
    ]
    assert set(rose) == {7, 8}
    assert 0.68 < rose.count(7) / 400 < 0.82


def test_a_share_of_less_than_a_place_holds_on_average() -> None:
    given = [
        len(MinimumExposure().apply(slate(quota=quota(0.05, LAST_TWO, 1.0), seed=seed)).moved) for seed in range(800)
    ]
    assert 0.20 < np.mean(given) < 0.30  # a quarter of a place of five


def test_a_pinned_place_is_not_given_away() -> None:
    pinned = slate(quota=quota(0.4, LAST_TWO, 1.0)).with_pins({4: 7, 3: 6}, "promotion")
    assert shown(MinimumExposure().apply(pinned))[3:] == [6, 7]
    assert {8, 9} < set(shown(MinimumExposure().apply(pinned)))


def test_items_are_grouped_by_columns_and_new_ones_by_themselves(tiny_bundle: Bundle) -> None:
    items = tiny_bundle.tables.items
    new = np.arange(len(items)) < 5
    groups = grouped(items, ("genre", "decade"), new)
    assert groups.names[-1] == NEW
    assert {groups.names[code] for code in groups.code[:5]} == {NEW}
    for row in np.flatnonzero(~new & (groups.code >= 0)).tolist():
        genre, _, decade = groups.names[groups.code[row]].partition(" x ")
        assert items.genres[row, items.genre_names.index(genre)]
        assert decade == f"{int(items.year[row]) // 10}0s"
    assert groups.sizes.sum() == (groups.code >= 0).sum()
    assert set(np.flatnonzero(groups.code < 0)) <= set(
        np.flatnonzero(np.isnan(items.year) | ~items.genres.any(axis=1)).tolist()
    )


def test_a_column_that_there_is_none_of_is_refused(tiny_bundle: Bundle) -> None:
    with pytest.raises(StartError, match="cannot be grouped by 'mood'"):
        grouped(tiny_bundle.tables.items, ("mood",), np.zeros(50, np.bool_))
