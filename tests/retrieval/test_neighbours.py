import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from retrieval.neighbours import Neighbours, best


def neighbours() -> Neighbours:
    # 0 -> 1 (0.5), 2 (1.0);  1 -> nothing;  2 -> 0 (2.0)
    return Neighbours(np.array([0, 2, 2, 3]), np.array([1, 2, 0], np.int32), np.array([0.5, 1.0, 2.0], np.float32))


def test_rows_speak_for_their_neighbours() -> None:
    spoken = neighbours().speak(np.array([0, 2], np.int32), np.array([1.0, 0.5], np.float32))
    assert spoken.tolist() == [1.0, 0.5, 1.0]


def test_a_row_without_neighbours_says_nothing() -> None:
    assert neighbours().speak(np.array([1], np.int32), np.ones(1, np.float32)).tolist() == [0.0, 0.0, 0.0]


def test_a_repeated_row_speaks_twice() -> None:
    assert neighbours().speak(np.array([2, 2], np.int32), np.ones(2, np.float32)).tolist() == [4.0, 0.0, 0.0]


@given(st.lists(st.integers(0, 5), min_size=4, max_size=4), st.lists(st.integers(0, 11), max_size=6))
def test_rows_of_one_length_speak_as_each_of_them_does(lengths: list[int], rows: list[int]) -> None:
    random = np.random.default_rng(len(rows))
    indptr = np.concatenate(([0], np.cumsum(np.repeat(lengths, 3))))
    entries = random.integers(0, 12, int(indptr[-1])).astype(np.int32)
    table = Neighbours(indptr, entries, random.random(len(entries)).astype(np.float32))
    weight = random.random(len(rows)).astype(np.float32)
    wanted = np.zeros(12)
    for row, times in zip(rows, weight, strict=True):
        item_row, said = table.of(row)
        np.add.at(wanted, item_row, said * times)
    assert table.speak(np.array(rows, np.int32), weight).tolist() == wanted.astype(np.float32).tolist()


@given(st.lists(st.integers(-3, 6), max_size=40), st.integers(1, 50))
def test_best_is_what_sorting_all_positive_scores_gives(values: list[int], k: int) -> None:
    scores = np.array(values, np.float32)
    wanted = [row for row in np.argsort(-scores, kind="stable").tolist() if scores[row] > 0][:k]
    assert best(scores, k).item_row.tolist() == wanted


@given(st.integers(0, 2**32), st.sampled_from([30, 20_000]), st.integers(0, 6), st.integers(1, 60))
def test_what_is_proposed_is_to_the_bit_the_best_of_what_is_spoken(seed: int, items: int, heard: int, k: int) -> None:
    random = np.random.default_rng(seed)
    lengths = random.integers(0, 5, items) * (np.arange(items) < 30)
    # few values, so that many sums tie, and some of them are negative
    item_row = random.integers(0, random.choice([5, items]), int(lengths.sum())).astype(np.int32)
    weight = (random.integers(-2, 5, len(item_row)) / 3).astype(np.float32)
    table = Neighbours(np.concatenate(([0], np.cumsum(lengths))), item_row, weight)
    rows, said = random.integers(0, 30, heard).astype(np.int32), random.random(heard).astype(np.float32)
    without = random.integers(0, items, 4).astype(np.int32)
    spoken = table.speak(rows, said)
    spoken[without] = 0.0
    wanted, found = best(spoken, k), table.proposed(rows, said, without, k)
    assert found.item_row.tolist() == wanted.item_row.tolist()
    assert found.score.tobytes() == wanted.score.tobytes()


def test_items_that_nobody_speaks_for_can_be_left_out_too() -> None:
    large = Neighbours(np.array([0, 2, *[2] * 99]), np.array([7, 9], np.int32), np.array([0.5, 1.0], np.float32))
    without = np.arange(9, dtype=np.int32)
    found = large.proposed(np.zeros(1, np.int32), np.ones(1, np.float32), without, 5)
    assert (found.item_row.tolist(), found.score.tolist()) == ([9], [1.0])
    assert not len(large.proposed(np.ones(1, np.int32), np.ones(1, np.float32), without, 5))
