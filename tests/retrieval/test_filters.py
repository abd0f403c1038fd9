import numpy as np
import pytest

from retrieval.filters import Offer, allowed

ELIGIBLE = np.array([True, True, False, True, True])


def test_an_offer_leaves_out_what_is_blocked_and_is_whole_again_afterwards() -> None:
    offer = Offer.of(ELIGIBLE)
    seen, excluded = np.array([0, 2, 0], np.int32), np.array([4, 0], np.int32)
    with offer.without(seen, excluded) as keep:
        assert keep.tolist() == allowed(ELIGIBLE, seen, excluded).tolist() == [False, True, False, True, False]
    assert offer.keep.tolist() == ELIGIBLE.tolist()


def test_an_offer_is_whole_again_after_a_bug_and_leaves_the_items_alone() -> None:
    offer = Offer.of(ELIGIBLE)
    with pytest.raises(ZeroDivisionError), offer.without(np.array([1], np.int32)):
        raise ZeroDivisionError
    assert offer.keep.tolist() == ELIGIBLE.tolist() == [True, True, False, True, True]
