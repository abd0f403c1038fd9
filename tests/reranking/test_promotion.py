from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from domain.candidates import Candidates
from domain.catalogue import IdTable
from domain.errors import StartError
from domain.slate import Campaign, Slate, SlateContext, Spent
from reranking.campaigns import read_campaigns
from reranking.promotion import Promotion

FILE = """
[[campaign]]
name = "spring"
item_ids = ["b", "nobody knows this one"]
slots = [1]
starts_at = 2026-03-01T00:00:00Z
ends_at = 2026-06-01T00:00:00Z
"""


def slate(*campaigns: Campaign, now: float = 1.0) -> Slate:
    candidates = Candidates.proposed(np.arange(10, dtype=np.int32), np.linspace(1, 0, 10, dtype=np.float32))
    return Slate(candidates, 5, SlateContext(now, np.zeros((10, 2), np.bool_), campaigns))


def campaign(rows: list[int], *slots: int) -> Campaign:
    return Campaign("c", np.array(rows, np.int32), slots, 0.0, 2.0)


def test_the_best_scored_promoted_items_take_the_slots() -> None:
    after = Promotion().apply(slate(campaign([9, 7, 8], 0, 3)))
    assert after.shown.item_row.tolist() == [7, 0, 1, 8, 2]
    assert dict(after.moved) == {7: "promotion", 8: "promotion"}


def test_the_first_campaign_to_name_a_slot_has_it() -> None:
    after = Promotion().apply(slate(campaign([9], 0), campaign([8], 0, 1)))
    assert after.shown.item_row.tolist()[:2] == [9, 8]


def test_a_campaign_that_is_over_moves_nothing() -> None:
    before = slate(campaign([9], 0), now=2.0)
    assert Promotion().apply(before) is before


def test_an_item_that_is_no_candidate_is_not_invented() -> None:
    before = slate(campaign([77], 0))
    assert Promotion().apply(before) is before


def test_a_boosted_item_rises_to_where_its_score_belongs_and_not_to_a_slot() -> None:
    lifted = Campaign("c", np.array([6], np.int32), (), 0.0, 2.0, boost=0.34)
    assert Promotion().apply(slate(lifted)).shown.item_row.tolist() == [0, 1, 2, 6, 3]


def test_a_boost_lifts_as_far_whatever_the_scale_of_the_scores() -> None:
    lifted = slate(Campaign("c", np.array([6], np.int32), (), 0.0, 2.0, boost=0.34))
    merged = replace(lifted, candidates=lifted.candidates.scored(lifted.candidates.score / np.float32(60)))
    assert Promotion().apply(merged).shown.item_row.tolist() == Promotion().apply(lifted).shown.item_row.tolist()
    same = replace(lifted, candidates=lifted.candidates.scored(np.full(10, 0.5, np.float32)))
    assert Promotion().apply(same).shown.item_row.tolist() == [6, 0, 1, 2, 3]


def test_a_campaign_whose_budget_is_spent_or_whose_user_saw_enough_moves_nothing() -> None:
    limited = Campaign("c", np.array([9, 8], np.int32), (0, 1), 0.0, 2.0, daily_cap=2, budget=10)

    def after(spent: Spent) -> list[int]:
        before = slate(limited)
        told = replace(before, context=replace(before.context, spent={"c": spent}))
        rows: list[int] = Promotion().apply(told).shown.item_row.tolist()
        return rows

    assert after(Spent()) == [8, 9, 0, 1, 2]
    assert after(Spent(9, 0)) == [8, 0, 1, 2, 3]
    assert after(Spent(0, 1)) == [8, 0, 1, 2, 3]
    assert after(Spent(10, 0)) == after(Spent(0, 2)) == [0, 1, 2, 3, 4]


def test_an_impression_is_on_the_account_of_the_campaign_that_promoted_it() -> None:
    spent = Campaign("spent", np.array([9, 8], np.int32), (0,), 0.0, 2.0, budget=0)
    paid = Campaign("paid", np.array([9], np.int32), (2,), 0.0, 2.0)
    lifted = Campaign("lifted", np.array([9, 8], np.int32), (), 0.0, 2.0, boost=2.0)
    after = Promotion().apply(slate(spent, paid, lifted))
    assert after.shown.item_row.tolist() == [8, 0, 9, 1, 2]
    assert dict(after.promoted) == {9: "paid", 8: "lifted"}


def test_campaigns_come_from_a_file_and_know_only_this_bundles_items(tmp_path: Path) -> None:
    path = tmp_path / "campaigns.toml"
    path.write_text(FILE)
    (spring,) = read_campaigns(path, IdTable.of(["a", "b"]))
    assert spring.item_row.tolist() == [1]
    assert spring.slots == (1,)
    assert spring.active(1774000000.0)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("slots = [1]", "slots = [-1]"),
        ("slots = [1]", "slots = [true]"),
        ("2026-03-01T00:00:00Z", "2026-03-01"),
        ('name = "spring"', ""),
        ("slots = [1]", ""),
        ("slots = [1]", "slots = [1]\nboost = true"),
        ("slots = [1]", "slots = [1]\nbudget = -1"),
        ("slots = [1]", "slots = [1]\nweight = 1"),
        ("[[campaign]]", "[[campaigns]]"),
        ("item_ids =", "item_ids = ["),
    ],
)
def test_a_bad_campaign_file_is_refused_with_its_name(tmp_path: Path, old: str, new: str) -> None:
    path = tmp_path / "campaigns.toml"
    path.write_text(FILE.replace(old, new))
    with pytest.raises(StartError, match=r"campaigns\.toml"):
        read_campaigns(path, IdTable.of(["a", "b"]))
