"""Who is held out, in which order, and what is known at the moment of a cut."""

from __future__ import annotations

import numpy as np
import pytest

from tests.training.conftest import ITEMS, MakeFolder
from training.dataset import Dataset, read
from training.split import BEGINNINGS, beginners_cut, cut, everything, final_cut, lengths, validation_cut


def one_user(make_folder: MakeFolder, times: list[int], stars: list[float], name: str = "dataset") -> Dataset:
    ids = [f"i{n:02d}" for n in range(len(times))]
    ratings = {"user_id": ["u"] * len(ids), "item_id": ids, "rating": stars, "timestamp": times}
    return read(make_folder(items={"item_id": ids, "title": ids}, name=name, ratings=ratings))


@pytest.mark.parametrize(
    ("events", "train", "validation", "test"), [(10, 7, 1, 2), (5, 3, 1, 1), (3, 2, 0, 1), (1, 0, 0, 1)]
)
def test_parts_are_rounded_down_from_the_start(
    make_folder: MakeFolder, events: int, train: int, validation: int, test: int
) -> None:
    dataset = one_user(make_folder, list(range(events)), [4.0] * events)
    assert len(validation_cut(dataset).history(0)) == train
    assert len(validation_cut(dataset).held_out(0)) == validation
    assert len(final_cut(dataset).held_out(0)) == test


def test_no_event_is_on_both_sides_and_none_is_lost(make_folder: MakeFolder) -> None:
    dataset = one_user(make_folder, [5] * 20, [4.0] * 20)
    whole = final_cut(dataset)
    parts = [validation_cut(dataset).history(0), validation_cut(dataset).held_out(0), whole.held_out(0)]
    assert np.concatenate([part.item_row for part in parts]).tolist() == dataset.history(0).item_row.tolist()
    assert whole.known.sum() == len(whole.history(0))


def test_the_moment_is_the_second_of_the_first_held_out_event(make_folder: MakeFolder) -> None:
    dataset = one_user(make_folder, list(range(100, 110)), [4.0] * 10)
    assert validation_cut(dataset).moment(0) == 107.0
    assert everything(dataset).moment(0) == 110.0


def test_only_positives_of_the_held_out_part_are_labels(make_folder: MakeFolder) -> None:
    dataset = one_user(make_folder, list(range(10)), [5.0] * 8 + [3.5, 4.0])
    assert final_cut(dataset).liked(0).tolist() == [9]


def test_a_cut_asks_only_about_what_lies_before_its_until(make_folder: MakeFolder) -> None:
    dataset = one_user(make_folder, list(range(10)), [5.0] * 10)
    assert cut(dataset, 50, 60).liked(0).tolist() == [5]


def test_each_user_is_cut_for_themselves(make_folder: MakeFolder) -> None:
    ratings = {
        "user_id": ["1"] * 3 + ["2"] * 2,
        "item_id": ["a", "b", "c", "a", "b"],
        "rating": [4.0] * 5,
        "timestamp": [1, 2, 3, 900, 901],
    }
    dataset = read(make_folder(items=ITEMS, ratings=ratings))
    assert lengths(dataset, 70).tolist() == [2, 1]
    assert validation_cut(dataset).known.tolist() == [True, True, False, True, False]


def test_beginners_are_known_by_their_first_events_and_only_they_are_asked_about(
    make_random_folder: MakeFolder,
) -> None:
    dataset = read(make_random_folder(users=60))
    beginners = beginners_cut(dataset, 60, 80, 0)
    usual, end = lengths(dataset, 60), lengths(dataset, 80)
    asked = beginners.until > beginners.length
    assert 0.1 < asked.mean() < 0.6
    assert set(beginners.length[asked].tolist()) == set(BEGINNINGS)
    assert (beginners.length[~asked] == usual[~asked]).all()
    assert (beginners.until[asked] - beginners.length[asked] == 30 * 20 // 100).all()
    assert (beginners.until <= end).all()


def test_a_beginner_of_few_events_is_never_asked_about_the_test_part(make_folder: MakeFolder) -> None:
    ids = [f"i{n}" for n in range(3)]
    ratings = {"user_id": [f"u{n}" for n in range(30) for _ in ids], "item_id": ids * 30, "rating": [4.0] * 90}
    ratings |= {"timestamp": list(range(90))}
    dataset = read(make_folder(items={"item_id": ids, "title": ids}, ratings=ratings))
    beginners = beginners_cut(dataset, 60, 80, 0)
    assert (beginners.until <= lengths(dataset, 80)).all()
    assert (beginners.length <= lengths(dataset, 60)).all()
