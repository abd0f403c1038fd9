import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.catalogue import Facets, History, IdTable, TextTable

usable_ids = (
    st.text(min_size=1, max_size=12)
    .filter(lambda text: not text.endswith("\0"))
    .filter(lambda text: text.isascii() or not any("\ud800" <= char <= "\udfff" for char in text))
)


@given(st.sets(usable_ids, max_size=30), st.lists(usable_ids, max_size=10))
def test_every_known_id_is_found_and_no_other(known: set[str], asked: list[str]) -> None:
    table = IdTable.of(known)
    for text, row in zip(asked, table.rows(asked).tolist(), strict=True):
        assert (row >= 0) == (text in known)
        assert row < 0 or table.text(row) == text


def test_an_id_longer_than_any_known_one_is_unknown_not_cut() -> None:
    assert IdTable.of(["12", "34"]).rows(["123", "12"]).tolist() == [-1, 0]


def test_an_id_that_differs_by_a_trailing_nul_is_unknown() -> None:
    assert IdTable.of(["ab", "abc"]).row("ab\0") == -1


@given(st.sets(usable_ids, max_size=30), st.lists(st.text(alphabet="ab\0\xe9\ud800", max_size=6), max_size=10))
def test_an_id_is_known_or_not_whatever_is_asked_beside_it(known: set[str], asked: list[str]) -> None:
    order = sorted(known, key=str.encode)
    expected = [order.index(text) if text in known else -1 for text in asked]
    assert IdTable.of(known).rows(asked).tolist() == expected


def test_an_empty_table_knows_nobody() -> None:
    assert IdTable.of([]).rows(["1"]).tolist() == [-1]


@pytest.mark.parametrize("ids", [["1", "1"], [""], ["a\0"]])
def test_ids_that_could_be_confused_are_refused(ids: list[str]) -> None:
    with pytest.raises(ValueError, match="id"):
        IdTable.of(ids)


@given(st.lists(st.text(max_size=20).filter(lambda text: text.encode("utf-8", "replace").decode() == text)))
def test_titles_come_back_as_they_went_in(titles: list[str]) -> None:
    table = TextTable.of(titles)
    assert [table.text(row) for row in range(len(titles))] == titles


def history(*events: tuple[int, float]) -> History:
    rows, times = zip(*events, strict=True) if events else ((), ())
    return History(np.array(rows, np.int32), np.full(len(rows), 4, np.float32), np.array(times, np.float64))


def test_an_event_that_both_histories_hold_counts_once() -> None:
    both = history((1, 10), (2, 20), (3, 20)).then(history((3, 20), (4, 30)))
    assert both.item_row.tolist() == [1, 2, 3, 4]


def test_a_late_event_takes_its_place_in_time() -> None:
    assert history((1, 10), (2, 30)).then(history((3, 20))).item_row.tolist() == [1, 3, 2]


events = st.lists(st.tuples(st.integers(0, 3), st.integers(0, 8).map(float)), max_size=12)


@given(events, events)
def test_a_history_goes_on_with_what_it_does_not_hold_in_the_order_of_time(
    earlier: list[tuple[int, float]], later: list[tuple[int, float]]
) -> None:
    first = min((time for _, time in later[:1]), default=0.0)
    known = {event for event in earlier if event[1] >= first}
    expected = sorted(earlier + [event for event in later if event not in known], key=lambda event: event[1])
    both = history(*earlier).then(history(*later))
    if later:
        assert list(zip(both.item_row.tolist(), both.timestamp.tolist(), strict=True)) == expected


def test_nothing_later_changes_nothing() -> None:
    before = history((1, 10))
    assert before.then(History.none()) is before
    assert History.none().then(before).item_row.tolist() == [1]


def test_facets_follow_their_items_and_nothing_is_known_of_a_stranger() -> None:
    facets = Facets(
        creator=np.array([1, 0], np.int32),
        creator_names=("a", "b"),
        language=np.array([0, -1], np.int32),
        language_names=("en",),
        age_rating=np.array([12, np.nan], np.float32),
        rated=True,
        regions=np.array([[True], [False]]),
        region_names=("eu",),
        published_at=np.array([5.0, 6.0]),
    )
    moved = facets.ordered(np.array([1, -1, 0], np.int32))
    assert moved.creator.tolist() == [0, -1, 1]
    assert moved.language.tolist() == [-1, -1, 0]
    np.testing.assert_array_equal(moved.age_rating, [np.nan, np.nan, 12])
    assert moved.regions.ravel().tolist() == [False, False, True]
    np.testing.assert_array_equal(moved.published_at, [6.0, np.nan, 5.0])
