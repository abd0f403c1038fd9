"""The sources' models against cases whose answer is known."""

from __future__ import annotations

import numpy as np
import pytest

from domain.arrays import Floats
from retrieval.neighbours import Neighbours
from tests.training.conftest import ITEMS, MakeFolder
from training import collaborative, content, popularity, sources
from training.dataset import read
from training.split import Cut, everything, validation_cut


def dense(neighbours: Neighbours) -> Floats:
    table = np.zeros((len(neighbours), len(neighbours)), np.float32)
    for row in range(len(neighbours)):
        span = slice(int(neighbours.indptr[row]), int(neighbours.indptr[row + 1]))
        table[row, neighbours.item_row[span]] = neighbours.weight[span]
    return table


def test_ease_equals_the_case_worked_out_by_hand() -> None:
    # Two items, both met by one user: X'met + I = [[2, 1], [1, 2]], P = [[2, -1], [-1, 2]] / 3, B = -P01 / P11 = 1/2.
    met = np.array([[1, 1]], np.float32)
    expected = [[0.0, 0.5], [0.5, 0.0]]
    np.testing.assert_allclose(dense(collaborative.strongest_neighbours(met, 1.0, 10)), expected, atol=1e-6)
    np.testing.assert_allclose(
        dense(collaborative.strongest_neighbours(np.repeat(met, 3, axis=0), 3.0, 10)), expected, atol=1e-6
    )


@pytest.mark.parametrize("users", [4, 40])
def test_ease_by_users_and_by_items_is_the_closed_form(users: int) -> None:
    met = (np.random.default_rng(0).random((users, 12)) < 0.4).astype(np.float32)
    precision = np.linalg.inv(met.T.astype(np.float64) @ met + 5.0 * np.eye(12))
    expected = -precision / precision.diagonal()
    np.fill_diagonal(expected, 0.0)
    np.testing.assert_allclose(dense(collaborative.strongest_neighbours(met, 5.0, 12)), expected, atol=1e-5)


def test_only_the_strongest_neighbours_are_shipped_whatever_their_sign() -> None:
    met = (np.random.default_rng(1).random((30, 12)) < 0.4).astype(np.float32)
    every, few = (dense(collaborative.strongest_neighbours(met, 5.0, k)) for k in (12, 3))
    assert ((few != 0).sum(axis=1) == 3).all()
    left_out = np.where(few == 0, np.abs(every), 0.0).max(axis=1)
    assert (left_out <= np.where(few != 0, np.abs(every), np.inf).min(axis=1)).all()


def test_what_was_not_liked_counts_less_the_worse_it_was_rated(make_folder: MakeFolder) -> None:
    met = collaborative.graded(everything(read(make_folder())))
    np.testing.assert_allclose(met, [[1.0, 0.275, 0.0], [0.0, 0.0, 1.0]])


def test_items_alike_in_genre_year_and_title_are_neighbours(make_folder: MakeFolder) -> None:
    items = {
        "item_id": ["a", "b", "c"],
        "title": ["The Sea Wolf", "The Sea Hawk", "Quiet Town"],
        "year": [1940, 1941, 2010],
        "genres": [["Adventure"], ["Adventure"], ["Drama"]],
    }
    table = dense(content.fit(read(make_folder(items=items))))
    assert table[0, 1] == pytest.approx(table[1, 0])
    assert table[0, 1] > 0.7
    assert table[0, 2] == table[2, 0] == 0.0


def test_an_item_with_nothing_to_compare_has_no_neighbours(make_folder: MakeFolder) -> None:
    bare = {"item_id": ["a", "b", "c"], "title": ["x", "y", "z"]}
    assert len(content.fit(read(make_folder(items=bare))).item_row) == 0


def test_titles_in_any_script_are_compared(make_folder: MakeFolder) -> None:
    ids = [f"i{n:02d}" for n in range(60)]
    titles = ["七人の侍 完全版", "七人の侍", *(f"word{n}" for n in range(58))]
    ratings = {"user_id": ["1"], "item_id": ["i00"], "rating": [4.0], "timestamp": [1]}
    folder = make_folder(items={"item_id": ids, "title": titles, "year": [None] * 60}, ratings=ratings)
    table = dense(content.fit(read(folder)))
    assert table[0, 1] > 0.1
    assert (table[2:] == 0).all()


def test_an_older_event_counts_less_by_the_half_life(make_folder: MakeFolder) -> None:
    day = 86_400
    ratings = {
        "user_id": ["1", "2", "3"],
        "item_id": ["a", "b", "b"],
        "rating": [4.0] * 3,
        "timestamp": [0, 0, 10 * day],
    }
    cut = everything(read(make_folder(items=ITEMS, ratings=ratings)))
    np.testing.assert_allclose(popularity.decayed_counts(cut, 10.0), [0.5, 1.5, 0.0])
    np.testing.assert_allclose(popularity.decayed_counts(cut, np.inf), [1.0, 2.0, 0.0])
    table = popularity.fit(cut, 10.0)
    assert table.item_row.tolist() == [1, 0, 2]  # what nobody has touched comes last


def test_held_out_events_teach_no_source(make_random_folder: MakeFolder) -> None:
    dataset = read(make_random_folder())
    cut = validation_cut(dataset)
    known = set(zip(dataset.user_row[cut.known].tolist(), dataset.item_row[cut.known].tolist(), strict=True))
    users, items = np.nonzero(collaborative.graded(cut))
    assert set(zip(users.tolist(), items.tolist(), strict=True)) == known
    assert popularity.decayed_counts(cut, np.inf).sum() == cut.known.sum()


def test_the_merged_set_is_the_whole_eligible_catalogue_where_that_is_smaller(make_random_folder: MakeFolder) -> None:
    dataset = read(make_random_folder(items=60, events=6))
    cut = validation_cut(dataset)
    nobody = Cut(dataset, np.where(np.arange(len(cut.length)) == 0, 0, cut.length), cut.until)
    fitted = sources.fit(nobody, content.fit(dataset), np.inf, 0)
    new, known = sources.retrieve_all(fitted, [0, 1])
    assert len(new.candidates) == 60
    assert len(known.candidates) == 60 - len(np.unique(cut.history(1).item_row))
    answers = dict(zip(sources.NAMES, new.found, strict=True))
    assert [name for name, found in answers.items() if len(found)] == ["popularity"]
