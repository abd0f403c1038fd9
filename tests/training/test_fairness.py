"""Disparity and equity by hand, over groups made of a dataset's own columns."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.training.conftest import MakeFolder
from training import fairness
from training.dataset import read
from training.fairness import Groups, ItemGroup, UserGroup
from training.split import final_cut


def rows(*values: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    return np.array(values, np.int32)


def test_exposure_equity_by_hand() -> None:
    """Items 0 and 1 are of a, 2 of b. Shown: a at place 1, b at place 2; liked: one each."""
    groups = Groups(("a", "b"), np.array([[1.0, 0.0], [1.0, 0.0], [0.0, 1.0]]))
    a, b = fairness.by_item_group(groups, [rows(0, 2)], [rows(1, 2)])
    second = 1 / np.log2(3)
    assert (a.merit_share, b.merit_share) == (0.5, 0.5)
    assert a.exposure_share == pytest.approx(1 / (1 + second))
    assert b.over_merit == pytest.approx(2 * second / (1 + second))


def test_an_item_of_two_genres_belongs_to_each_by_half_and_cells_add_up() -> None:
    genre = Groups(("x", "y"), np.array([[0.5, 0.5], [1.0, 0.0]]))
    cells = genre.times(Groups(("old", "new"), np.array([[1.0, 0.0], [0.0, 1.0]])))
    assert cells.names == ("x x old", "x x new", "y x old", "y x new")
    np.testing.assert_allclose(cells.weight, [[0.5, 0.0, 0.5, 0.0], [0.0, 1.0, 0.0, 0.0]])


def test_equity_is_the_overlap_of_exposure_and_merit() -> None:
    even = [ItemGroup("a", 90, 0.75, 0.75), ItemGroup("b", 90, 0.25, 0.25)]
    assert fairness.equity(even) == 1.0
    assert fairness.equity([ItemGroup("a", 90, 0.75, 0.5), ItemGroup("b", 90, 0.25, 0.5)]) == 0.75
    assert fairness.equity([ItemGroup("a", 90, 1.0, 0.0), ItemGroup("b", 0, 0.0, 1.0)]) == 0.0


def test_groups_too_small_to_judge_decide_nothing() -> None:
    few, many = ItemGroup("few", 3, 0.5, 0.0), ItemGroup("many", 90, 0.5, 0.4)
    assert fairness.least_served([few, many]) == many
    assert fairness.least_served([few]) is None
    groups = [UserGroup("few", 2, 0.0, 0.0), UserGroup("a", 40, 0.5, 0.2), UserGroup("b", 40, 0.8, 0.25)]
    assert fairness.disparity(groups) == pytest.approx(0.3)
    assert fairness.disparity_of_one(groups) == pytest.approx(0.05)
    assert fairness.disparity(groups[:2]) == 0.0


def test_hits_of_a_group_by_hand() -> None:
    """The first user is hit by one of two positives, the second not at all."""
    groups = Groups(("all",), np.ones((2, 1)))
    (group,) = fairness.by_user_group(groups, [0, 1], [rows(4, 7), rows(5)], [rows(7, 8), rows(6)])
    assert (group.users, group.hit_at_10, group.hit_of_one) == (2, 0.5, 0.25)


def test_users_are_grouped_by_activity_and_by_the_columns_of_their_file(make_random_folder: MakeFolder) -> None:
    folder = make_random_folder(users=9)
    users = {"user_id": [f"u{n}" for n in range(8)], "region": ["north", "south"] * 4, "score": [0.5] * 8}
    pq.write_table(pa.table(users), folder / "users.parquet")
    groups = fairness.user_groups(folder, final_cut(read(folder)))
    assert groups.keys() == {"activity", "region"}
    assert groups["activity"].weight.sum(axis=0).tolist() == [3, 3, 3]
    assert groups["region"].names == ("north", "south", "unknown")


def test_items_are_grouped_by_decade_and_genre_or_by_creator_and_language(make_random_folder: MakeFolder) -> None:
    plain = make_random_folder()
    told = make_random_folder(name="told", creator_id=[f"c{row % 3}" for row in range(60)], language=["en", None] * 30)
    assert [*fairness.item_groups(plain, read(plain))] == ["decade", "genre", "decade x genre"]
    groups = fairness.item_groups(told, read(told))
    assert [*groups] == ["creator", "language", "creator x language"]
    assert groups["language"].names == ("en", "unknown")
    for group in groups.values():
        np.testing.assert_allclose(group.weight.sum(axis=1), 1.0)


def test_a_dataset_with_nothing_to_group_by_is_one_group(make_random_folder: MakeFolder) -> None:
    bare: Path = make_random_folder(genres=None, year=None)
    assert [group.names for group in fairness.item_groups(bare, read(bare)).values()][:2] == [
        ("unknown",),
        ("unknown",),
    ]
