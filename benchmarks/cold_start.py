"""What a user gets after their first 0, 1, 3, 5 and 10 events: ``python -m benchmarks.cold_start [--data DIR]``.

A fifth of the users takes no part in fitting the sources or in teaching the rankers. Each of them comes with their
first k events and nothing else, through the sources, the merge and the rankers as they are served, so without any event
the order of the merge stays; what they liked among their next events, up to 60 %, is what should be found. The rankers
learn from the other users' windows that end there.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.selection import WINDOWS, Judged, interval, judge, ranked
from domain.arrays import Floats
from ranking.strangers import merged_order_stays
from retrieval.filters import allowed
from retrieval.merge import merge
from training import dcn_v2, logistic, rankers, sources
from training.dataset import Dataset, read
from training.rank_rows import RankRows, collect
from training.split import Cut, lengths
from training.threads import single_threaded

FIRST = (0, 1, 3, 5, 10)
HELD_OUT_SHARE = 0.2
KNOWN_PERCENT = 60
CANDIDATES = 500


def first_events(dataset: Dataset, new: np.ndarray[tuple[int], np.dtype[np.intp]], k: int) -> Cut:
    """``new`` users known by their first ``k`` events, the others by 60 %; asked about what follows up to 60 %."""
    until = lengths(dataset, KNOWN_PERCENT)
    known = until.copy()
    known[new] = np.minimum(k, until[new])
    return Cut(dataset, known, until)


def report(dataset: Dataset) -> None:
    """The table, one line a number of events."""
    rng = np.random.default_rng(0)
    new = np.sort(rng.permutation(len(dataset.user_ids))[: int(HELD_OUT_SHARE * len(dataset.user_ids))])
    windows = rankers.ask(dataset, WINDOWS, 0, lambda _: None)
    others = replace(windows, rows=windows.rows.only(~np.isin(windows.rows.user_row, new)))
    trained = rankers.learn(others, rankers.SHAPE, rankers.SCHEDULE, 0, lambda _: None)
    fitted = sources.fit(first_events(dataset, new, 0), windows.content, windows.half_life_days, 0)
    print(
        "| events | users | popularity | preference | logistic | DCN-V2 "
        "| preference less popularity | DCN-V2 less popularity | least candidates |"
    )
    print("|---" * 9 + "|")
    for k in FIRST:
        asked = replace(fitted, cut=first_events(dataset, new, k))
        users = [int(user) for user in new if len(asked.cut.liked(int(user)))]
        rows = collect(asked, 0, users)
        of_now = dcn_v2.with_items(trained.inputs, trained.inputs.standard_item(asked.items.features)[None])
        served = _served(asked, rows, dcn_v2.logits(trained.model, rows, of_now))
        simple = _served(asked, rows, logistic.scores(trained.logistic, rows, asked.items.features[None]))
        popular, preferred = (_alone(asked, users, name) for name in ("popularity", "preference"))
        intervals = [interval(model.ndcg - popular.ndcg) for model in (preferred, served)]
        differences = " | ".join(f"{low:+.4f} to {high:+.4f}" for low, high in intervals)
        numbers = " | ".join(f"{model.ndcg.mean():.4f}" for model in (popular, preferred, simple, served))
        least = int(rows.there.sum(axis=1).min())
        print(f"| {k} | {len(users)} | {numbers} | {differences} | {least} |", flush=True)


def _served(asked: sources.Fitted, rows: RankRows, score: Floats) -> Judged:
    """The candidates in the order of a ranker's ``score`` ``(r, n)``, those of strangers as they were merged."""
    users = sources.users_at(asked, rows.user_row.tolist())
    stays = np.array([merged_order_stays(user) for user in users])
    as_merged = -np.arange(score.shape[1], dtype=np.float32)
    return ranked(rows, np.where(rows.there & stays[:, None], as_merged, score), asked)


def _alone(asked: sources.Fitted, users: list[int], name: str) -> Judged:
    """One source; popularity's order where the source has nothing to go by."""
    at, popular = sources.NAMES.index(name), sources.NAMES.index("popularity")
    orders = []
    for request in sources.retrieve_all(asked, users):
        found = request.found[at] if len(request.found[at]) else request.found[popular]
        keep = allowed(asked.items.eligible, request.user.seen)
        orders.append(merge([found], [0], keep, CANDIDATES).item_row)
    return judge(orders, [asked.cut.liked(user) for user in users])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--data", type=Path, default=Path("data/movielens-small"))
    single_threaded()
    report(read(parser.parse_args().data))


if __name__ == "__main__":
    main()
