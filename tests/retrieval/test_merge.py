import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from domain.candidates import Candidates
from retrieval.filters import allowed
from retrieval.merge import forced_rows, merge, with_forced

ITEMS = 40
ranked_list = st.lists(st.integers(-1, ITEMS + 2), max_size=30)


def proposed(rows: list[int]) -> Candidates:
    return Candidates.proposed(np.array(rows, np.int32), -np.arange(len(rows), dtype=np.float32))


def everything() -> np.ndarray:
    return np.ones(ITEMS, np.bool_)


@given(st.lists(ranked_list, min_size=1, max_size=4), st.integers(0, 50), st.sets(st.integers(0, ITEMS - 1)))
def test_the_merge_loses_invents_and_repeats_nothing(lists: list[list[int]], limit: int, blocked: set[int]) -> None:
    keep = allowed(everything(), np.array(sorted(blocked), np.int32))
    merged = merge([proposed(rows) for rows in lists], [5] * len(lists), keep, limit)
    offered = {row for rows in lists for row in rows if 0 <= row < ITEMS} - blocked
    rows = merged.item_row.tolist()
    assert len(rows) == len(set(rows)) == min(limit, len(offered))
    assert set(rows) <= offered


@given(st.lists(ranked_list, min_size=2, max_size=4))
def test_attribution_says_exactly_who_proposed_what(lists: list[list[int]]) -> None:
    merged = merge([proposed(rows) for rows in lists], [5] * len(lists), everything(), 1000)
    for row, by in zip(merged.item_row.tolist(), merged.proposed_by.tolist(), strict=True):
        assert by == [row in rows for rows in lists]


def test_a_source_is_sure_of_its_quota() -> None:
    agreed = list(range(20))
    merged = merge([proposed(agreed), proposed(agreed), proposed([30, 31, 32])], [0, 0, 2], everything(), 10)
    assert {30, 31} <= set(merged.item_row.tolist())
    assert 32 not in merged.item_row.tolist()


def test_places_without_a_quota_go_by_reciprocal_rank() -> None:
    merged = merge([proposed([1, 2, 3]), proposed([3, 2, 4])], [0, 0], everything(), 2)
    assert set(merged.item_row.tolist()) == {2, 3}


def test_ranks_count_allowed_items_only() -> None:
    keep = allowed(everything(), np.array([0], np.int32))
    merged = merge([proposed([0, 1])], [1], keep, 5)
    assert merged.source_ranks.tolist() == [[0.0]]


def test_rows_an_index_should_not_say_are_dropped() -> None:
    assert merge([proposed([-1, ITEMS, 3, 3, -1])], [5], everything(), 5).item_row.tolist() == [3]


def plain(lists: list[list[int]], quotas: list[int], keep: np.ndarray, limit: int) -> list[tuple[int, np.float32]]:
    """What the merge promises, said with dicts: rows with their fused score, in order."""
    fused: dict[int, np.float32] = {}
    sure = set()
    for rows, quota in zip(lists, quotas, strict=True):
        sound = dict.fromkeys(row for row in rows if 0 <= row < len(keep) and keep[row])
        for rank, row in enumerate(sound):
            fused[row] = fused.get(row, np.float32(0)) + np.float32(1) / np.float32(60 + rank)
        sure |= {*list(sound)[:quota]}
    best = sorted(fused, key=lambda row: (row not in sure, -fused[row], row))[:limit]
    return sorted(((row, fused[row]) for row in best), key=lambda each: -each[1])


far_rows = st.integers(0, 40).map(lambda row: row * 2_500)  # of a large catalogue, in which nothing is dense


@given(
    st.lists(st.tuples(st.lists(st.integers(-1, ITEMS) | far_rows, max_size=60), st.integers(0, 9)), max_size=6),
    st.integers(0, 60),
    st.sets(st.integers(0, ITEMS - 1)),
)
def test_scores_and_order_are_those_of_the_plain_fusion(
    offered: list[tuple[list[int], int]], limit: int, blocked: set[int]
) -> None:
    keep = allowed(np.ones(100_000, np.bool_), np.array(sorted(blocked), np.int32))
    lists, quotas = [rows for rows, _ in offered], [quota for _, quota in offered]
    merged = merge([proposed(rows) for rows in lists], quotas, keep, limit)
    wanted = plain(lists, quotas, keep, limit)
    assert merged.item_row.tolist() == [row for row, _ in wanted]
    assert merged.score.tolist() == [score for _, score in wanted]


def test_nothing_found_is_nothing_with_the_right_columns() -> None:
    merged = merge([Candidates.none(), Candidates.none()], [1, 1], everything(), 5)
    assert len(merged) == 0
    assert merged.source_ranks.shape == (0, 2)


def test_forced_items_take_the_last_places_and_nobody_proposed_them() -> None:
    merged = with_forced(merge([proposed([*range(10)])], [10], everything(), 10), np.array([9, 20], np.int32), 10)
    assert merged.item_row.tolist() == [0, 1, 2, 3, 4, 5, 6, 7, 9, 20]
    assert merged.proposed_by.ravel().tolist() == [True] * 9 + [False]


def test_forced_items_are_a_fifth_of_the_candidates_at_most() -> None:
    merged = with_forced(merge([proposed([*range(10)])], [10], everything(), 10), np.arange(20, 40, dtype=np.int32), 10)
    assert len(merged) == 10
    assert (merged.item_row >= 20).sum() == 2


@given(st.permutations(range(12)), st.integers(0, 12), st.sets(st.integers(0, 20)), st.integers(12, 60))
def test_forced_items_displace_the_last_of_the_others_only(
    rows: list[int], n: int, forced: set[int], limit: int
) -> None:
    before = merge([proposed(rows[:n]), proposed(rows[n // 2 : n])], [3, 3], everything(), limit)
    fits = sorted(forced)[: limit // 5]
    merged = with_forced(before, np.array(sorted(forced), np.int32), limit)
    stood = before.item_row.tolist()
    new = [row for row in fits if row not in stood]
    others = [row for row in stood if row not in fits]
    displaced = others[limit - len(fits) :] if new else []
    kept = [at for at, row in enumerate(stood) if row not in displaced]
    assert merged.item_row.tolist() == [stood[at] for at in kept] + new
    for column in ("score", "source_scores", "source_ranks"):
        assert getattr(merged, column)[: len(kept)].tobytes() == getattr(before, column)[kept].tobytes()
    assert not merged.score[len(kept) :].any()
    assert not merged.proposed_by[len(kept) :].any()


def test_what_is_tried_out_has_room_beside_a_large_campaign_whose_items_take_turns() -> None:
    tried, promoted = np.arange(38, 40, dtype=np.int32), np.arange(36, dtype=np.int32)
    forced = [forced_rows(tried, promoted, 50, seed) for seed in range(40)]
    assert all(len(rows) == 10 and set(tried) <= set(rows) and (np.diff(rows) > 0).all() for rows in forced)
    assert set(np.concatenate(forced)) == {*promoted, *tried}
    assert forced[3].tolist() == forced_rows(tried, promoted, 50, 3).tolist()
    assert forced_rows(tried, promoted[:3], 50, 0).tolist() == [0, 1, 2, 38, 39]
