"""One suite for every re-ranking rule: a new rule is one more line in ``RULES``."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.candidates import Candidates
from domain.catalogue import Facets
from domain.deadline import Deadline
from domain.slate import Audience, Campaign, ExposureQuota, Slate, SlateContext, Spent
from domain.stages import Rule
from domain.user import Shown
from reranking.apply import apply
from reranking.configured import DEFAULT, configured
from reranking.creators import CreatorCap
from reranking.diversity import GenreWindow
from reranking.dpp import Dpp
from reranking.exposure import MinimumExposure
from reranking.filters import BusinessFilters
from reranking.freshness import Freshness
from reranking.memory import Memory
from reranking.mmr import Mmr
from reranking.promotion import Promotion

ITEMS, GENRES, NOW = 60, 6, 1_000_000_000.0
ORDERING: list[Rule] = [
    GenreWindow(),
    GenreWindow(window=3, most=1, most_of_creator=1, reach=5),
    Mmr(),
    Mmr(relevance_weight=0.2, reach=3),
    Dpp(),
    Dpp(window=3, relevance_weight=0.5),
    CreatorCap(),
    CreatorCap(most=1),
    Memory(),
    Memory(slates=0.3),
    Freshness(),
    Freshness(lift=9.5),
    MinimumExposure(),
    MinimumExposure(first_share=0.0, most_share=1.0),
    Promotion(),
]
FILTERS: list[Rule] = [BusinessFilters(), BusinessFilters(admit_unrated=True)]
ORDERS = [
    DEFAULT,
    "diversity,promotion,exposure,filters",
    "promotion,exposure,dpp,creators,mmr,freshness,filters",
    "exposure,creators,promotion,filters,diversity",
]


def facets(draw: np.random.Generator) -> Facets:
    age = NOW - draw.integers(-5, 100, ITEMS) * 86_400.0
    return Facets(
        draw.integers(-1, 8, ITEMS).astype(np.int32),
        tuple("abcdefgh"),
        np.full(ITEMS, -1, np.int32),
        (),
        draw.choice(np.array([0.0, 12.0, 18.0, np.nan], np.float32), ITEMS),
        True,
        draw.random((ITEMS, 2)) < 0.4,
        ("DE", "FR"),
        np.where(draw.random(ITEMS) < 0.2, np.nan, age),
    )


@st.composite
def campaigns(draw: st.DrawFn) -> tuple[Campaign, ...]:
    made = []
    for name in "ab"[: draw(st.integers(0, 2))]:
        promoted = draw(st.lists(st.integers(0, ITEMS - 1), unique=True, max_size=4))
        slots = tuple(draw(st.lists(st.integers(0, 60), max_size=4)))
        ends = draw(st.sampled_from([NOW - 1, NOW + 1]))
        boost, limits = draw(st.sampled_from([0.0, 0.3, 5.0])), st.none() | st.integers(0, 3)
        rows = np.array(promoted, np.int32)
        made.append(Campaign(name, rows, slots, 0.0, ends, boost, draw(limits), draw(limits)))
    return tuple(made)


@st.composite
def slates(draw: st.DrawFn) -> Slate:
    rows = draw(st.lists(st.integers(0, ITEMS - 1), unique=True, max_size=50))
    random = np.random.default_rng(draw(st.integers(0, 20)))
    group, owed = random.integers(-1, 3, ITEMS).astype(np.int32), np.array([1.0, 0.0, 3.0], np.float32)
    context = SlateContext(
        now=NOW,
        genres=random.random((ITEMS, GENRES)) < 0.3,
        campaigns=draw(campaigns()),
        spent={"a": Spent(draw(st.integers(0, 3)), draw(st.integers(0, 2)))},
        seed=draw(st.integers(0, 2**32 - 1)),
        vectors=draw(st.sampled_from([None, random.normal(size=(ITEMS, 8)).astype(np.float32)])),
        removed=random.random(ITEMS) < 0.1,
        facets=draw(st.sampled_from([None, facets(random)])),
        audience=Audience(draw(st.sampled_from([None, 12.0])), draw(st.sampled_from([None, "DE", "elsewhere"]))),
        quota=ExposureQuota(draw(st.sampled_from([0.0, 0.05, 0.4])), group, owed),
        shown=Shown(random.integers(0, ITEMS, 12).astype(np.int32), random.exponential(900.0, 12)),
    )
    score = np.linspace(1, 0, len(rows), dtype=np.float32)
    score[len(rows) - draw(st.integers(0, min(3, len(rows)))) :] = np.nan  # what is not finite sorts last
    return Slate(Candidates.proposed(np.array(rows, np.int32), score), draw(st.integers(1, 30)), context)


def rows_of(slate: Slate) -> list[int]:
    return slate.candidates.item_row.tolist()


def rises_and_falls(before: Slate, after: Slate) -> tuple[int, int]:
    """By how many places anything went up, and anything that is still there went down, at most."""
    at = {row: place for place, row in enumerate(rows_of(before))}
    moves = [place - at[row] for place, row in enumerate(rows_of(after))]
    return -min(moves, default=0), max(moves, default=0)


@pytest.mark.parametrize("rule", ORDERING, ids=repr)
@given(slate=slates())
def test_a_rule_never_loses_invents_or_repeats(rule: Rule, slate: Slate) -> None:
    after = rule.apply(slate)
    assert sorted(rows_of(after)) == sorted(rows_of(slate))
    assert after.limit == slate.limit


@pytest.mark.parametrize("rule", FILTERS, ids=repr)
@given(slate=slates())
def test_a_filter_drops_and_keeps_the_order_of_the_rest(rule: Rule, slate: Slate) -> None:
    after = rows_of(rule.apply(slate))
    kept = set(after)
    assert after == [row for row in rows_of(slate) if row in kept]


@pytest.mark.parametrize("rule", [*ORDERING, *FILTERS], ids=repr)
@given(slate=slates())
def test_a_rule_keeps_scores_with_their_items(rule: Rule, slate: Slate) -> None:
    score = dict(zip(rows_of(slate), slate.candidates.score.tolist(), strict=True))
    after = rule.apply(slate).candidates
    np.testing.assert_equal([score[row] for row in after.item_row.tolist()], after.score.tolist())


@pytest.mark.parametrize("rule", [*ORDERING, *FILTERS], ids=repr)
@given(slate=slates())
def test_a_rule_is_pure(rule: Rule, slate: Slate) -> None:
    before = rows_of(slate)
    first, second = rule.apply(slate), rule.apply(slate)
    assert rows_of(first) == rows_of(second)
    assert first.moved == second.moved
    assert rows_of(slate) == before


@pytest.mark.parametrize("rule", ORDERING, ids=repr)
@given(slate=slates())
def test_a_rule_names_what_it_moved_up_and_nothing_else(rule: Rule, slate: Slate) -> None:
    after = rule.apply(slate)
    place = {row: at for at, row in enumerate(rows_of(slate))}
    assert set(after.moved.values()) <= {rule.name}
    if rows_of(after) != rows_of(slate):
        assert after.moved
    rose = {row for at, row in enumerate(rows_of(after)) if at < place[row]}
    passed = rose - after.moved.keys()
    assert not passed or rule.name == "promotion"  # what makes room for a pin may rise by falling places above it


@pytest.mark.parametrize("rule", [rule for rule in ORDERING if rule.name in {"diversity", "mmr", "dpp"}], ids=repr)
@given(slate=slates())
def test_diversity_reaches_no_further_than_it_says(rule: GenreWindow | Mmr | Dpp, slate: Slate) -> None:
    up, down = rises_and_falls(slate, rule.apply(slate))
    assert up < slate.limit + rule.reach
    assert down <= slate.limit


@pytest.mark.parametrize("rule", [Freshness(), Freshness(lift=9.5)], ids=repr)
@given(slate=slates())
def test_freshness_moves_nothing_further_than_its_lift(rule: Freshness, slate: Slate) -> None:
    assert max(rises_and_falls(slate, rule.apply(slate))) <= rule.lift


@pytest.mark.parametrize("rule", [Memory(), Memory(slates=0.3)], ids=repr)
@given(slate=slates())
def test_memory_pushes_nothing_down_by_more_than_its_slates_and_lifts_nothing_that_it_need_not(
    rule: Memory, slate: Slate
) -> None:
    up, down = rises_and_falls(slate, rule.apply(slate))
    assert down <= rule.slates * slate.limit
    assert up <= len(np.unique(slate.context.shown.item_row))


@pytest.mark.parametrize("rule", [MinimumExposure(), MinimumExposure(first_share=0.0, most_share=1.0)], ids=repr)
@given(slate=slates())
def test_minimum_exposure_pushes_nothing_down_by_more_than_the_places_it_may_give(
    rule: MinimumExposure, slate: Slate
) -> None:
    _, down = rises_and_falls(slate, rule.apply(slate))
    share = slate.context.quota.share if slate.context.quota else 0.0
    assert down <= np.ceil(min(share, rule.most_share) * slate.limit)


@given(slate=slates())
def test_a_creator_cap_pushes_nothing_down_by_more_than_the_slate(slate: Slate) -> None:
    assert rises_and_falls(slate, CreatorCap(most=1).apply(slate))[1] <= slate.limit


@given(slate=slates())
def test_promotion_pushes_nothing_down_by_more_than_it_promotes(slate: Slate) -> None:
    running = [campaign.item_row for campaign in slate.context.campaigns if campaign.active(NOW)]
    promoted = set(np.concatenate(running).tolist()) if running else set()
    after = Promotion().apply(slate)
    place = {row: at for at, row in enumerate(rows_of(slate))}
    others = [at - place[row] for at, row in enumerate(rows_of(after)) if row not in promoted]
    assert max(others, default=0) <= len(promoted & set(rows_of(slate)))


@pytest.mark.parametrize("order", ORDERS)
@given(slate=slates())
def test_what_was_promoted_survives_all_later_rules_in_any_order(order: str, slate: Slate) -> None:
    rules = configured(order)
    at = [rule.name for rule in rules].index("promotion")
    promoted = apply(rules[: at + 1], slate, Deadline.after(60))[0]
    pinned = {place: rows_of(promoted)[place] for place in promoted.pinned}
    after, skipped = apply(rules[at + 1 :], promoted, Deadline.after(60))
    assert skipped == ()
    allowed = BusinessFilters().allowed(slate.context, np.array(list(pinned.values()), np.int32))
    if allowed.all() and len(after.candidates) > max(pinned, default=0):
        assert {place: rows_of(after)[place] for place in after.pinned} == pinned
    assert set(rows_of(after)) >= {row for row, may in zip(pinned.values(), allowed, strict=True) if may}


@pytest.mark.parametrize("order", ORDERS)
@given(slate=slates())
def test_a_slate_is_never_short_while_allowed_candidates_remain(order: str, slate: Slate) -> None:
    allowed = BusinessFilters().allowed(slate.context, slate.candidates.item_row)
    after, _ = apply(configured(order), slate, Deadline.after(60))
    assert sorted(rows_of(after)) == sorted(slate.candidates.item_row[allowed].tolist())
    assert len(after.shown) == min(slate.limit, int(allowed.sum()))


@given(slate=slates())
def test_minimum_exposure_is_delivered_wherever_it_can_be(slate: Slate) -> None:
    quota = slate.context.quota
    assert quota is not None
    whole = Slate(slate.candidates, slate.limit, replace(slate.context, quota=replace(quota, share=0.4)))
    after = MinimumExposure().apply(whole)
    owed = np.isin(quota.group, np.flatnonzero(quota.owed > 0))
    there, shown = int(owed[slate.candidates.item_row].sum()), int(owed[after.shown.item_row].sum())
    assert shown >= min(there, int(0.4 * min(slate.limit, len(slate.candidates))))


def test_rules_there_is_no_time_for_are_told_but_filters_always_run() -> None:
    context = SlateContext(1.0, np.zeros((3, 1), np.bool_), removed=np.array([True, False, False]))
    rows = Candidates.proposed(np.arange(3, dtype=np.int32), np.zeros(3, np.float32))
    after, skipped = apply([GenreWindow(), Promotion(), BusinessFilters()], Slate(rows, 5, context), Deadline.after(-1))
    assert skipped == ("promotion",)
    assert rows_of(after) == [1, 2]
