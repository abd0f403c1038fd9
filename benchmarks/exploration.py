"""What it costs to show nearly every item once a week: a simulated week over the validation part of a dataset.

    python -m benchmarks.exploration [--visits 15000] [--requests FILE.npz]

Method: users of ``benchmarks/ranked_requests.py`` come in random order, each visit a slate of 20 under minimum exposure
alone. The candidates are the user's ranked ones, the last of them making room for ten items to be tried out, as in the
service; these were not ranked, so that their order among themselves is by chance and they come last. The quota is made
anew from all impressions every 100 visits. Quality is against what each user then liked, on the same visits.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.ranked_requests import RankedRequests, ranked_requests
from benchmarks.rules_cost import LIMIT, NEW_BELOW, SHARE, context_of
from domain.arrays import Floats, Rows, drawn
from domain.candidates import Candidates
from domain.slate import ExposureQuota, Slate, SlateContext
from monitoring.exposure import equity, gini, quota_of
from reranking.exposure import MinimumExposure
from reranking.groups import Groups
from training.quality import Quality, quality

EXPLORED, VISITS_A_QUOTA = 10, 100


def week(requests: RankedRequests, groups: Groups, share: float, visits: int) -> tuple[Floats, Quality]:
    """Impressions by item, and the quality of the slates; a ``share`` of 0 is no rule."""
    draw = np.random.default_rng(0)
    lists = list(requests.candidates())
    shown, every = np.zeros(len(requests.events), np.float32), np.ones(len(requests.events), np.bool_)
    ranked, liked, quota = [], [], quota_of(share, shown, groups, every)
    for visit in range(visits):
        user = int(draw.integers(len(lists)))
        if visit % VISITS_A_QUOTA == 0:
            quota = quota_of(share, shown, groups, every)
        slate = _slate(lists[user], quota, visit, requests)
        shown[slate.shown.item_row] += 1
        ranked.append(slate.shown.item_row)
        liked.append(_positives(requests, user))
    return shown, quality(ranked, liked)


def _slate(candidates: Candidates, quota: ExposureQuota, seed: int, requests: RankedRequests) -> Slate:
    tried = np.setdiff1d(drawn(quota.explore, EXPLORED, seed), candidates.item_row).astype(np.int32)
    rows = np.concatenate([candidates.item_row[: len(candidates) - len(tried)], tried])
    score = np.concatenate([candidates.score[: len(candidates) - len(tried)], np.zeros(len(tried), np.float32)])
    context = SlateContext(0.0, requests.genres, seed=seed, quota=quota)
    return MinimumExposure().apply(Slate(Candidates.proposed(rows, score), LIMIT, context))


def _positives(requests: RankedRequests, user: int) -> Rows:
    """What the user liked; rows that no list holds stand for what was not retrieved."""
    found = requests.item_row[user][requests.liked[user]]
    return np.concatenate([found, -1 - np.arange(requests.liked_in_all[user] - len(found))]).astype(np.int32)


def main() -> None:
    asked = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    asked.add_argument("--visits", type=int, default=15_000)
    asked.add_argument("--data", type=Path, default=Path("data/movielens-small"))
    asked.add_argument("--requests", type=Path, help="kept here, or read from here if it is there")
    options = asked.parse_args()
    with tempfile.TemporaryDirectory() as scratch:
        requests = ranked_requests(options.requests or Path(scratch, "requests.npz"), options.data)
    _, quota = context_of(requests)
    names = tuple(str(at) for at in range(int(quota.group.max()) + 1))
    groups, every = Groups(quota.group, names), np.ones(len(requests.events), np.bool_)
    print(f"{options.visits} visits, items with fewer than {NEW_BELOW} events are new\n")
    print("| promised | Hit@10 | NDCG@10 | NDCG@20 | coverage | Gini | worst group's equity |")
    print("|---|---|---|---|---|---|---|")
    for share in (0.0, SHARE, 2 * SHARE):
        shown, judged = week(requests, groups, share, options.visits)
        means = judged.means()
        quality_told = f"{means['hit_at_10']:.3f} | {means['ndcg_at_10']:.4f} | {means['ndcg_at_20']:.4f}"
        spread = f"{(shown > 0).mean():.3f} | {gini(shown):.3f} | {equity(shown, groups, every).min():.2f}"
        print(f"| {share:.2f} | {quality_told} | {spread} |")


if __name__ == "__main__":
    main()
