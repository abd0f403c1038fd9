import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from domain.catalogue import History
from retrieval.collaborative import FORGETTING, HEARD, MAX_HISTORY, STARS_ABOVE_POSITIVE, history_weights

stars = st.one_of(st.floats(0, 6, width=32), st.just(float("nan")), st.sampled_from([2.5, 3.0, 3.5, 4.0, 4.5]))


@given(st.lists(stars, max_size=MAX_HISTORY), st.sampled_from([3.5, 3.7]))
def test_an_event_is_heard_by_its_rating_and_by_how_late_it_is(rating: list[float], positive: float) -> None:
    history = History(np.zeros(len(rating), np.int32), np.array(rating, np.float32), np.zeros(len(rating)))
    above = np.nan_to_num(history.rating - positive, nan=0.0)
    before_latest = np.arange(len(rating) - 1, -1, -1, dtype=np.float32)
    wanted = (np.interp(above, STARS_ABOVE_POSITIVE, HEARD) * (1 + before_latest) ** -FORGETTING).astype(np.float32)
    assert history_weights(history, positive).tolist() == wanted.tolist()
