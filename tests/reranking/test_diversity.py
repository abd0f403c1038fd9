import numpy as np

from domain.candidates import Candidates
from domain.slate import Slate, SlateContext
from reranking.diversity import GenreWindow


def slate(genre_of: list[int], limit: int) -> Slate:
    genres = np.zeros((len(genre_of), 4), np.bool_)
    genres[np.arange(len(genre_of)), genre_of] = True
    n = len(genre_of)
    candidates = Candidates.proposed(np.arange(n, dtype=np.int32), np.linspace(1, 0, n, dtype=np.float32))
    return Slate(candidates, limit, SlateContext(0.0, genres))


def test_a_run_of_one_genre_is_broken_by_the_next_best_of_another() -> None:
    after = GenreWindow(window=3, most=2).apply(slate([0, 0, 0, 1, 2, 3, 1], 4))
    assert after.shown.item_row.tolist() == [0, 1, 3, 2]
    assert dict(after.moved) == {3: "diversity"}


def test_a_slate_is_never_short_when_there_is_nothing_else() -> None:
    crowd = slate([0, 0, 0, 1, 2, 3], 6)
    after = GenreWindow(window=6, most=1).apply(crowd)
    assert sorted(after.shown.item_row.tolist()) == [0, 1, 2, 3, 4, 5]


def test_a_genre_that_most_candidates_have_tells_nothing_apart() -> None:
    same = GenreWindow(window=3, most=1).apply(slate([0, 0, 0, 0, 1], 3))
    assert same.shown.item_row.tolist() == [0, 1, 2]
    assert not same.moved
