"""The rules that are compiled, against what they are by definition: a few plain lines each, on slates with pins."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace
from random import Random

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from domain.candidates import Candidates
from domain.slate import ExposureQuota, Slate
from reranking.creators import CreatorCap
from reranking.diversity import GenreWindow
from reranking.exposure import MinimumExposure
from reranking.memory import Memory
from reranking.mmr import Mmr
from reranking.reach import Reach
from tests.contract.test_rules import slates


@st.composite
def pinned_slates(draw: st.DrawFn) -> Slate:
    """Of up to 60 candidates, with pins at a few of the places, and a few groups of many that are owed something."""
    context, random = draw(slates()).context, np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    n, limit = int(random.integers(0, 61)), int(random.integers(1, 31))
    group, owed = random.integers(-1, 12, 60).astype(np.int32), np.zeros(12, np.float32)
    owed[[2, 5, 11]] = 1.0, 0.25, 3.0
    quota = ExposureQuota(draw(st.sampled_from([0.05, 0.4, 1.0])), group, owed)
    candidates = Candidates.proposed(
        random.permutation(60)[:n].astype(np.int32), np.linspace(1, 0, n, dtype=np.float32)
    )
    pins = int(random.integers(0, min(4, limit, n) + 1))
    places, positions = random.permutation(min(limit, n))[:pins].tolist(), random.permutation(n)[:pins].tolist()
    slate = Slate(candidates, limit, replace(context, quota=quota))
    return slate.with_pins(dict(zip(places, positions, strict=True)), "promotion")


pinned = pinned_slates()


def rows_of(slate: Slate) -> list[int]:
    return slate.candidates.item_row.tolist()


def free_rows(slate: Slate) -> list[int]:
    return [row for place, row in enumerate(rows_of(slate)) if place not in slate.pinned]


def shows(after: Slate, before: Slate, free: list[int]) -> None:
    """``after`` has the rows ``free`` in this order at the free places, and the pins of ``before`` where they were."""
    rest = iter(free)
    expected = [row if at in before.pinned else next(rest) for at, row in enumerate(rows_of(before))]
    assert rows_of(after) == expected


@pytest.mark.parametrize("rule", [Memory(), Memory(slates=0.3, half_life_minutes=30.0), Memory(slates=0.0)], ids=repr)
@given(slate=pinned)
def test_memory_sorts_by_the_place_that_each_item_falls_to(rule: Memory, slate: Slate) -> None:
    lately = slate.context.shown
    known = (0.5 ** (lately.age_seconds / (60.0 * rule.half_life_minutes))).astype(np.float32)
    most: dict[int, np.float32] = {}
    for row, still in zip(lately.item_row.tolist(), known, strict=True):
        most[row] = max(most.get(row, still), still)
    rows, deepest = free_rows(slate), np.float32(rule.slates * slate.limit)
    falls_to = [at + float(deepest * most.get(row, np.float32(0.0))) for at, row in enumerate(rows)]
    order = sorted(range(len(rows)), key=falls_to.__getitem__)
    shows(rule.apply(slate), slate, [rows[at] for at in order])


@pytest.mark.parametrize(
    "rule", [GenreWindow(), GenreWindow(2, 1, 1, 5), GenreWindow(1, 1, 1), GenreWindow(30, 2, 1)], ids=repr
)
@given(slate=pinned)
def test_each_place_goes_to_the_first_that_keeps_the_window(rule: GenreWindow, slate: Slate) -> None:
    facets, places, free = slate.context.facets, slate.open_places, free_rows(slate)
    pool = free[: places + rule.reach]
    common = 2 * slate.context.genres[pool].sum(axis=0) > len(pool)
    worn = {row: set(np.flatnonzero(slate.context.genres[row] & ~common).tolist()) for row in pool}
    creator = {row: -1 if facets is None else int(facets.creator[row]) for row in pool}
    chosen: list[int] = []
    for _ in range(places):
        recent = chosen[max(0, len(chosen) - rule.window + 1) :]
        genres = Counter(genre for row in recent for genre in worn[row])
        creators = Counter(creator[row] for row in recent if creator[row] >= 0)
        left = [row for row in pool if row not in chosen]
        fits = [
            row
            for row in left
            if all(genres[genre] < rule.most for genre in worn[row]) and creators[creator[row]] < rule.most_of_creator
        ]
        chosen.append((fits or left)[0])
    shows(rule.apply(slate), slate, chosen + [row for row in free if row not in chosen])


@pytest.mark.parametrize("rule", [CreatorCap(), CreatorCap(most=1)], ids=repr)
@given(slate=pinned)
def test_the_first_under_the_cap_have_the_places_and_then_the_first_others(rule: CreatorCap, slate: Slate) -> None:
    facets, free = slate.context.facets, free_rows(slate)
    if facets is None:
        return
    count = Counter(int(facets.creator[rows_of(slate)[place]]) for place in slate.pinned if place < slate.limit)
    under = []
    for row in free:
        code = int(facets.creator[row])
        if code < 0 or count[code] < rule.most:
            under.append(row)
        count[code] += 1
    shown = set((under + [row for row in free if row not in under])[: slate.open_places])
    shows(rule.apply(slate), slate, sorted(free, key=lambda row: row not in shown))


@pytest.mark.parametrize("rule", [Mmr(), Mmr(relevance_weight=0.0), Mmr(relevance_weight=0.2, reach=3)], ids=repr)
@given(slate=pinned)
def test_each_place_goes_to_the_largest_marginal_relevance(rule: Mmr, slate: Slate) -> None:
    pool, free = Reach.of(slate, rule.reach), free_rows(slate)
    if slate.context.vectors is None:
        return
    gain = rule.relevance_weight * pool.relevance
    alike = (1.0 - rule.relevance_weight) * pool.likeness(slate.context.vectors)
    worst, chosen = np.zeros(len(pool), np.float32), list[int]()
    for _ in range(pool.places):
        chosen.append(int((gain - worst).argmax()))
        gain[chosen[-1]] = -np.inf
        worst = np.maximum(worst, alike[chosen[-1]])
    first = [free[at] for at in chosen]
    shows(rule.apply(slate), slate, first + [row for row in free if row not in first])


@pytest.mark.parametrize("rule", [MinimumExposure(), MinimumExposure(first_share=0.0, most_share=1.0)], ids=repr)
@given(slate=pinned)
def test_groups_are_drawn_one_after_the_other_by_what_they_are_owed(rule: MinimumExposure, slate: Slate) -> None:
    quota, places, free = slate.context.quota, slate.open_places, free_rows(slate)
    assert quota is not None
    group = {row: int(quota.group[row]) for row in rows_of(slate)}
    owed = {row for row, code in group.items() if code >= 0 and quota.owed[code] > 0}
    draw, shown = Random(slate.context.seed), rows_of(slate)[: slate.limit]
    promised = int(min(quota.share, rule.most_share) * len(shown) + draw.random())
    replaceable, reserve = [row for row in free[:places] if row not in owed], free[places:]
    found: list[int] = []
    for _ in range(min(promised - len(owed & set(shown)), len(replaceable))):
        left = [row for row in reserve if row in owed and row not in found]
        groups = sorted({group[row] for row in left})
        if groups:
            weight = np.cumsum(quota.owed[groups], dtype=np.float64)
            drawn = groups[int(np.searchsorted(weight, draw.random() * weight[-1], "right"))]
            found.append(next(row for row in left if group[row] == drawn))
    found.sort(key=free.index)
    out = replaceable[len(replaceable) - len(found) :]
    first = [row for row in free[:places] if row not in out]
    start = min(int(rule.first_share * places), places - len(found))
    for nth, row in enumerate(found, 1):
        first.insert(start + nth * (places - start) // (len(found) + 1), row)
    after = rule.apply(slate)
    shows(after, slate, first + out + [row for row in reserve if row not in found])
    assert dict(after.moved) == {**slate.moved, **dict.fromkeys(found, "exposure")}


@given(slate=pinned, keep=st.integers(0, 2**32 - 1))
def test_what_is_kept_keeps_its_order_and_pins_their_places(slate: Slate, keep: int) -> None:
    mask = np.random.default_rng(keep).random(len(slate.candidates)) < 0.6
    after = slate.kept(mask)
    assert set(rows_of(after)) == set(slate.candidates.item_row[mask].tolist())
    pins = [place for place in slate.pinned if mask[place]]
    assert [rows_of(after)[place] for place in after.pinned] == [rows_of(slate)[place] for place in pins]
    assert all(now <= was for now, was in zip(after.pinned, pins, strict=True))
    assert free_rows(after) == [row for row in free_rows(slate) if row in rows_of(after)]
