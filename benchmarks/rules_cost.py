"""What each rule costs in quality and does for coverage, on the validation part of a dataset.

    python -m benchmarks.rules_cost [--data data/movielens-small] [--requests FILE.npz]

Method: the ranked requests of ``benchmarks/ranked_requests.py``, one a user, slates of 20; every rule alone, then all
defaults in their order. Coverage is the share of the catalogue that any slate shows, equity the worst group's share of
impressions by its share of the catalogue, groups being each item's rarest genre; the promised 5 % go to the groups
below half of their share and to items with fewer than 3 events. The campaign is 50 items drawn from all, one slot, the
third. With ``memory`` it is the second visit, right after the first slate.

MovieLens has no creators, age ratings, regions or dates of publication. So that their rules have something to do, each
item is drawn one of ``CREATORS`` creators, an age rating and whether the viewer's region has it, and counts as
published on 1 January of its year; requests are made a month after the newest. Draws know nothing of taste: what they
cost is what such a rule costs where its column tells nothing, which is its worst case.

Nearly all of a run is training; with ``--requests`` the next one is without.
"""

from __future__ import annotations

import argparse
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from benchmarks.ranked_requests import RankedRequests, ranked_requests
from domain.arrays import Floats, Rows
from domain.catalogue import Facets
from domain.slate import Audience, Campaign, ExposureQuota, Slate, SlateContext
from domain.stages import Rule
from domain.user import Shown
from reranking.configured import DEFAULT, configured
from reranking.memory import Memory
from training.quality import quality

LIMIT, SHARE, NEW_BELOW, HALF = 20, 0.05, 3, 0.5
CAMPAIGN_ITEMS, CAMPAIGN_SLOT = 50, 2
CREATORS, ADULT_SHARE, UNLICENSED_SHARE, AGE_LIMIT = 500, 0.1, 0.1, 12.0
MONTH, YEAR = 30 * 86_400.0, 365.25 * 86_400.0
FIRST_VISIT = DEFAULT.replace("memory,", "")
ORDERS = (
    "none",
    "filters",
    "memory",
    "promotion",
    "freshness",
    "freshness lift=10 half_life_days=3650",
    "diversity",
    "creators",
    "mmr",
    "mmr relevance_weight=0.6",
    "dpp",
    "dpp relevance_weight=6",
    "exposure",
    FIRST_VISIT.replace("promotion,", ""),
    FIRST_VISIT,
    DEFAULT,
)


@dataclass(frozen=True, slots=True)
class Cost:
    """One line of the table."""

    hit_at_10: float
    ndcg_at_10: float
    ndcg_at_20: float
    coverage: float
    equity: float
    owed: float  # the share of places that groups have which are owed some


def measure(requests: RankedRequests, rules: tuple[Rule, ...], context: SlateContext, quota: ExposureQuota) -> Cost:
    """The slates after ``rules``, against what the users then liked."""
    shown, ranked, liked = [], [], []
    again = any(isinstance(rule, Memory) for rule in rules)
    for at, candidates in enumerate(requests.candidates()):
        asked = replace(context, seed=at, quota=quota)
        slate = _after(rules, Slate(candidates, LIMIT, asked))
        if again:
            just_now = Shown(slate.shown.item_row, np.zeros(len(slate.shown)))
            slate = _after(rules, Slate(candidates, LIMIT, replace(asked, shown=just_now)))
        shown.append(slate.shown.item_row)
        ranked.append(slate.candidates.item_row)
        liked.append(requests.item_row[at][requests.liked[at]])
    missed = [int(n) for n in requests.liked_in_all - requests.liked.sum(axis=1)]
    # positives that were not retrieved count as missed: rows that no order holds stand for them
    positives = [np.concatenate([rows, -1 - np.arange(n)]) for rows, n in zip(liked, missed, strict=True)]
    judged = quality(ranked, [np.asarray(rows, np.int32) for rows in positives])
    counts = np.bincount(np.concatenate(shown), minlength=len(requests.events)).astype(np.float64)
    group, owed = quota.group, np.append(quota.owed, 0.0)
    return Cost(
        float(judged.hit_at_10.mean()),
        float(judged.ndcg_at_10.mean()),
        float(judged.ndcg_at_20.mean()),
        float((counts > 0).mean()),
        float(equity(counts, group).min()),
        float(counts[owed[group] > 0].sum() / counts.sum()),
    )


def _after(rules: tuple[Rule, ...], slate: Slate) -> Slate:
    for rule in rules:
        slate = rule.apply(slate)
    return slate


def equity(counts: NDArray[np.float64], group: NDArray[np.signedinteger]) -> NDArray[np.float64]:
    """``(groups,)``: the share of impressions by the share of the catalogue, 1 is even."""
    inside = group >= 0
    sizes = np.bincount(group[inside])
    of_group = np.bincount(group[inside], weights=counts[inside], minlength=len(sizes))
    return (of_group / of_group.sum()) / np.maximum(sizes / sizes.sum(), 1e-12)


def context_of(requests: RankedRequests) -> tuple[SlateContext, ExposureQuota]:
    """Groups by rarest genre and by being new; those below half of their share without any rule are owed."""
    frequency = np.where(requests.genres, requests.genres.sum(axis=0), np.inf)
    group = np.where(requests.genres.any(axis=1), frequency.argmin(axis=1), requests.genres.shape[1]).astype(np.int32)
    group[requests.events < NEW_BELOW] = requests.genres.shape[1] + 1
    _, group = np.unique(group, return_inverse=True)
    shown: Rows = np.concatenate([candidates.item_row[:LIMIT] for candidates in requests.candidates()])
    fair = equity(np.bincount(shown, minlength=len(group)).astype(np.float64), group)
    owed = np.where(fair < HALF, np.bincount(group) * np.maximum(0.0, 1.0 - fair), 0.0).astype(np.float32)
    drawn = np.random.default_rng(0).permutation(len(group))[:CAMPAIGN_ITEMS].astype(np.int32)
    facets = drawn_facets(requests.year)
    context = SlateContext(
        now=0.0,
        genres=requests.genres,
        campaigns=(Campaign("fifty", drawn, (CAMPAIGN_SLOT,), -1.0, 1.0),),
        moment=float(np.nanmax(facets.published_at)) + MONTH,
        vectors=requests.vectors,
        facets=facets,
        audience=Audience(AGE_LIMIT, "here"),
    )
    return context, ExposureQuota(SHARE, group.astype(np.int32), owed)


def drawn_facets(year: Floats, seed: int = 0) -> Facets:
    """Stand-ins for the columns that MovieLens has not got; dates are 1 January of the year, NaN without one."""
    n, random = len(year), np.random.default_rng(seed)
    adult, elsewhere = random.random(n) < ADULT_SHARE, random.random(n) < UNLICENSED_SHARE
    return Facets(
        creator=random.integers(0, CREATORS, n).astype(np.int32),
        creator_names=tuple(f"creator {at}" for at in range(CREATORS)),
        language=np.full(n, -1, np.int32),
        language_names=(),
        age_rating=np.where(adult, 18.0, 6.0).astype(np.float32),
        rated=True,
        regions=np.stack([~elsewhere, elsewhere], axis=1),
        region_names=("here", "elsewhere"),
        published_at=(year.astype(np.float64) - 1970.0) * YEAR,
    )


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--data", type=Path, default=Path("data/movielens-small"))
    asked.add_argument("--requests", type=Path, help="kept here, or read from here if it is there")
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        requests = ranked_requests(options.requests or Path(scratch, "requests.npz"), options.data)
    context, quota = context_of(requests)
    print(f"{len(requests.item_row)} users, {len(requests.events)} items\n")
    print("| rules | Hit@10 | NDCG@10 | NDCG@20 | coverage | worst group's equity | owed groups' places |")
    print("|---|---|---|---|---|---|---|")
    for order in ORDERS:
        cost = measure(requests, configured(order), context, quota)
        numbers = f"{cost.hit_at_10:.3f} | {cost.ndcg_at_10:.4f} | {cost.ndcg_at_20:.4f} | {cost.coverage:.3f}"
        print(f"| `{order}` | {numbers} | {cost.equity:.2f} | {cost.owed:.3f} |")


if __name__ == "__main__":
    main()
