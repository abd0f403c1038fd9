"""Requests of the validation part, retrieved and ranked as the service would, for measuring what re-ranking does.

The rankers are trained on what users liked up to 70 % of their events and asked at that cut; labels are the likes from
there to 80 %. The test part, the last 20 %, is never looked at. Kept as one ``.npz``, because training takes minutes.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Floats, Mask, Rows
from domain.candidates import Candidates
from features.contract import CONTRACT
from training import content, dcn_v2, popularity, rankers, sources
from training.dataset import read
from training.rank_rows import collect, together
from training.split import cut, validation_cut
from training.threads import single_threaded

TRAINED_ON = ((40, 60), (50, 70))


@dataclass(frozen=True, slots=True, eq=False)
class RankedRequests:
    """``r`` users with ``n`` ranked candidates each, best first, and the items as of the cut."""

    item_row: Rows  # (r, n)
    score: Floats  # (r, n), -inf where there is no candidate
    liked: Mask  # (r, n)
    liked_in_all: NDArray[np.int64]  # (r,)
    events: Floats  # (items,): how many events each item had before the cut
    genres: Mask  # (items, G)
    year: Floats  # (items,)
    vectors: Floats  # (items, d): the two-tower model's item embedding

    def candidates(self) -> Iterator[Candidates]:
        """Each request's candidates as the rules get them."""
        for rows, score in zip(self.item_row, self.score, strict=True):
            there = np.isfinite(score)
            yield Candidates.proposed(rows[there], score[there])


def ranked_requests(path: Path, data: Path, echo: Callable[[str], None] = print) -> RankedRequests:
    """Those kept at ``path``, or new ones from the dataset folder ``data``, kept there."""
    if not path.exists():
        made = train(data, echo)
        np.savez(path, **{part.name: getattr(made, part.name) for part in fields(made)})
    with np.load(path) as held:
        return RankedRequests(**{part.name: held[part.name] for part in fields(RankedRequests)})


def train(data: Path, echo: Callable[[str], None], seed: int = 0) -> RankedRequests:
    single_threaded()
    dataset = read(data)
    neighbours, validation = content.fit(dataset), validation_cut(dataset)
    half_life = popularity.best_half_life_days(cut(dataset, *TRAINED_ON[-1]))
    cuts = [*(cut(dataset, *percents) for percents in TRAINED_ON), validation]
    fitted = [sources.fit(known, neighbours, half_life, seed) for known in cuts]
    echo("sources fitted")
    *earlier, asked = [collect(part, number) for number, part in enumerate(fitted)]
    rows = together(earlier)
    features = np.stack([part.items.features for part in fitted])
    users = np.random.default_rng(seed).permutation(np.unique(rows.user_row))
    judged = np.isin(rows.user_row, users[: int(rankers.HELD_OUT_SHARE * len(users))])
    inputs = dcn_v2.measure_inputs(rows, features)
    model, slope, offset = dcn_v2.fit(
        rows.only(~judged), rows.only(judged), inputs, rankers.SHAPE, rankers.SCHEDULE, seed
    )
    logit = dcn_v2.logits(model, asked, inputs)
    echo(f"ranked: NDCG@10 {dcn_v2.ndcg(asked, logit):.4f}")
    order = np.argsort(-logit, axis=1, kind="stable")
    score = np.where(np.isfinite(logit), 1.0 / (1.0 + np.exp(-(slope * logit + offset))), -np.inf)
    events = CONTRACT.item.slices["item_events_total_count"].start
    return RankedRequests(
        np.take_along_axis(asked.item_row, order, 1),
        np.take_along_axis(score, order, 1).astype(np.float32),
        np.take_along_axis(asked.liked & asked.there, order, 1),
        asked.liked_in_all,
        fitted[-1].items.features[:, events],
        dataset.genres,
        dataset.year,
        fitted[-1].user_tower.embedding,
    )
