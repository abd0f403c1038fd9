import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.candidates import Candidates

scores = st.lists(st.floats(width=32, allow_nan=True, allow_infinity=True), max_size=60)


def candidates_of(score: list[float]) -> Candidates:
    return Candidates.proposed(np.arange(len(score), dtype=np.int32), np.array(score, np.float32))


@given(scores, st.integers(0, 70))
def test_top_loses_invents_and_repeats_nothing(score: list[float], k: int) -> None:
    top = candidates_of(score).top(k)
    assert len(top) == min(k, len(score))
    assert len(set(top.item_row.tolist())) == len(top)
    assert set(top.item_row.tolist()) <= set(range(len(score)))


@given(scores)
def test_a_score_that_is_not_finite_sorts_last(score: list[float]) -> None:
    finite = np.isfinite(candidates_of(score).top(len(score)).score)
    assert not (~finite[:-1] & finite[1:]).any()


@given(scores)
def test_top_is_best_first_among_the_finite(score: list[float]) -> None:
    top = candidates_of(score).top(len(score)).score
    finite = top[np.isfinite(top)]
    assert (finite[:-1] >= finite[1:]).all()


def test_ties_keep_their_order() -> None:
    assert candidates_of([1.0, 2.0, 1.0, 2.0]).top(4).item_row.tolist() == [1, 3, 0, 2]


@given(st.lists(st.floats(width=32) | st.sampled_from([0.0, -0.0, 1e-45, -1e-45, np.inf, np.nan]), max_size=60))
def test_top_sorts_as_python_does(score: list[float]) -> None:
    last = [-value if np.isfinite(value) else np.inf for value in score]
    assert candidates_of(score).top(60).item_row.tolist() == sorted(range(len(score)), key=last.__getitem__)


@given(st.lists(st.booleans(), max_size=20))
def test_a_mask_takes_what_its_positions_take(mask: list[bool]) -> None:
    taken = candidates_of([*range(len(mask))]).take(np.array(mask, np.bool_))
    assert taken.item_row.tolist() == taken.score.tolist() == np.flatnonzero(mask).tolist()


def test_columns_stay_aligned_when_taken() -> None:
    both = Candidates(
        np.array([7, 8, 9], np.int32),
        np.array([0.1, 0.3, 0.2], np.float32),
        np.array([[1, np.nan], [2, 5], [np.nan, 6]], np.float32),
        np.array([[0, np.nan], [1, 0], [np.nan, 1]], np.float32),
    )
    best = both.top(1)
    assert best.item_row.tolist() == [8]
    assert best.source_scores.tolist() == [[2, 5]]
    assert best.proposed_by.tolist() == [[True, True]]


def test_candidates_cannot_be_looped_over() -> None:
    with pytest.raises(TypeError, match="columns"):
        iter(candidates_of([1.0]))
