"""One suite for every re-ranking rule: a new rule is one more line in ``RULES``."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.candidates import Candidates
from domain.deadline import Deadline
from domain.slate import Campaign, Slate, SlateContext
from domain.stages import Rule
from reranking.apply import apply
from reranking.diversity import GenreWindow
from reranking.promotion import Promotion

ITEMS, GENRES = 60, 6
RULES = [GenreWindow(), GenreWindow(window=3, most=1, reach=5), Promotion()]


@st.composite
def slates(draw: st.DrawFn) -> Slate:
    rows = draw(st.lists(st.integers(0, ITEMS - 1), unique=True, max_size=50))
    genres = np.random.default_rng(draw(st.integers(0, 5))).random((ITEMS, GENRES)) < 0.3
    promoted = draw(st.lists(st.integers(0, ITEMS - 1), unique=True, max_size=4))
    slots = tuple(draw(st.lists(st.integers(0, 60), max_size=4)))
    campaign = Campaign("c", np.array(promoted, np.int32), slots, 0.0, draw(st.sampled_from([0.5, 2.0])))
    candidates = Candidates.proposed(np.array(rows, np.int32), np.linspace(1, 0, len(rows), dtype=np.float32))
    return Slate(candidates, draw(st.integers(1, 30)), SlateContext(1.0, genres, (campaign,)))


@pytest.mark.parametrize("rule", RULES, ids=repr)
@given(slate=slates())
def test_a_rule_never_loses_invents_or_repeats(rule: Rule, slate: Slate) -> None:
    after = rule.apply(slate)
    assert sorted(after.candidates.item_row.tolist()) == sorted(slate.candidates.item_row.tolist())
    assert after.limit == slate.limit


@pytest.mark.parametrize("rule", RULES, ids=repr)
@given(slate=slates())
def test_a_rule_keeps_scores_with_their_items(rule: Rule, slate: Slate) -> None:
    score = dict(zip(slate.candidates.item_row.tolist(), slate.candidates.score.tolist(), strict=True))
    after = rule.apply(slate).candidates
    assert [score[row] for row in after.item_row.tolist()] == after.score.tolist()


@pytest.mark.parametrize("rule", RULES, ids=repr)
@given(slate=slates())
def test_a_rule_is_pure(rule: Rule, slate: Slate) -> None:
    before = slate.candidates.item_row.tolist()
    assert rule.apply(slate).candidates.item_row.tolist() == rule.apply(slate).candidates.item_row.tolist()
    assert slate.candidates.item_row.tolist() == before


@given(slate=slates())
def test_what_was_promoted_survives_all_other_rules(slate: Slate) -> None:
    campaign = slate.context.campaigns[0]
    after, skipped = apply([GenreWindow(), Promotion()], slate, Deadline.after(60))
    assert skipped == ()
    present = np.isin(campaign.item_row, slate.candidates.item_row).sum() if campaign.active(1.0) else 0
    slots = {slot for slot in campaign.slots if slot < min(slate.limit, len(slate.candidates))}
    shown = after.shown.item_row
    wearing = [slot for slot in slots if after.moved.get(int(shown[slot])) == "promotion"]
    assert len(wearing) == min(present, len(slots))


def test_rules_there_is_no_time_for_are_told() -> None:
    late = Slate(Candidates.none(), 5, SlateContext(1.0, np.zeros((1, 1), np.bool_)))
    _, skipped = apply([GenreWindow(), Promotion()], late, Deadline.after(-1))
    assert skipped == ("promotion",)
