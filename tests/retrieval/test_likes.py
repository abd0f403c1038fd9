import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from domain.catalogue import History
from features.definitions import positive
from retrieval.likes import latest_likes


@given(st.lists(st.sampled_from([1.0, 3.5, 3.7, 5.0, float("nan")]), max_size=30), st.integers(1, 40))
def test_likes_are_the_latest_of_the_positive_events(rating: list[float], k: int) -> None:
    h = len(rating)
    history = History(np.arange(h, dtype=np.int32), np.array(rating, np.float32), np.arange(h, dtype=np.float64))
    wanted = history.only(positive(history, 3.7)).latest(k).item_row
    assert latest_likes(history, 3.7, k).tolist() == wanted.tolist()
