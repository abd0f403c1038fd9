"""The pipeline as it serves, asked at the moments of a cut: sources, merge, ranker and rules are serving's own."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from domain.arrays import Floats, Mask, Rows
from domain.candidates import Candidates
from domain.catalogue import Items
from domain.deadline import Deadline
from domain.slate import Slate, SlateContext
from domain.stages import Ranker, Rule
from domain.user import UserFeatures
from ranking.logistic import LogisticRanker, LogisticTables
from ranking.strangers import merged_order_stays
from ranking.triton import checked, encode_inputs
from reranking.apply import apply
from reranking.groups import first_quota, grouped, new_items
from retrieval.filters import allowed
from retrieval.merge import merge
from training import dcn_v2, sources
from training.quality import RANKED

LIMIT = 20
EXPOSURE_SHARE = 0.05
FOREVER = sources.FOREVER_SECONDS


@dataclass(frozen=True, eq=False)
class GraphRanker:
    """The exported graph in this process, given what Triton would be given."""

    model: Path
    items: Items
    name: str = "dcn_v2"
    graph: Any = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "graph", dcn_v2.session(self.model))

    async def score(self, user: UserFeatures, candidates: Candidates, deadline: Deadline) -> Floats:
        """``(n,)``, same order, as Triton answers."""
        del deadline
        if not len(candidates):
            return np.empty(0, np.float32)
        (answer,) = self.graph.run(["score"], encode_inputs(user, candidates, self.items))
        return checked(answer, len(candidates))


@dataclass(frozen=True, slots=True, eq=False)
class Order:
    """One ranker's work: per user the ranked candidates and the slate after the rules, best first."""

    ranked: list[Candidates]
    shown: list[Rows]  # (<= LIMIT,) each

    def rows(self) -> list[Rows]:
        return [candidates.item_row for candidates in self.ranked]

    def shown_first(self) -> list[Rows]:
        """The slate, then what was left below it: an order as long as the ranked one."""
        pairs = zip(self.shown, self.rows(), strict=True)
        return [np.concatenate([top, rows[~np.isin(rows, top)]]) for top, rows in pairs]


@dataclass(frozen=True, slots=True, eq=False)
class Served:
    """Everything that one run of the pipeline gave to the judged users."""

    users: list[int]
    liked: list[Rows]
    alone: dict[str, list[Rows]]  # source -> what it would put among the candidates by itself
    merged: list[Rows]
    dcn_v2: Order
    logistic: Order


def serve(
    fitted: sources.Fitted, model: Path, logistic: LogisticTables, rules: Sequence[Rule], users: Sequence[int]
) -> Served:
    """Ask for ``users``; ``model`` is the exported graph with the items as of the cut."""
    found = sources.retrieve_all(fitted, users)
    return Served(
        list(users),
        [fitted.cut.liked(user) for user in users],
        {name: _alone(found, number, fitted.items) for number, name in enumerate(sources.NAMES)},
        [request.candidates.item_row for request in found],
        asyncio.run(_ordered(GraphRanker(model, fitted.items), found, fitted, rules)),
        asyncio.run(_ordered(LogisticRanker(logistic, fitted.items), found, fitted, rules)),
    )


def _alone(found: Sequence[sources.Retrieved], number: int, items: Items) -> list[Rows]:
    keeps = (allowed(items.eligible, request.user.seen) for request in found)
    return [merge([r.found[number]], [0], keep, RANKED).item_row for r, keep in zip(found, keeps, strict=True)]


def slate_context(fitted: sources.Fitted) -> SlateContext:
    """What the rules know in a service that has just begun: no campaign runs, and new items alone are owed places.

    As of the data's end; ``_ordered`` puts each user's own moment in its place. What is new does not hang on the day on
    which it is evaluated.
    """
    items, now = fitted.items, fitted.cut.dataset.ended_at
    quota = first_quota(grouped(items, (), new_items(items)), EXPOSURE_SHARE)
    return SlateContext(now, items.genres, vectors=fitted.user_tower.embedding, facets=items.facets, quota=quota)


async def _ordered(
    ranker: Ranker, found: Sequence[sources.Retrieved], fitted: sources.Fitted, rules: Sequence[Rule]
) -> Order:
    order, context = Order([], []), slate_context(fitted)
    for at, request in enumerate(found):
        forever = Deadline.after(FOREVER)
        ranked = request.candidates
        if not merged_order_stays(request.user):
            ranked = ranked.scored(await ranker.score(request.user, ranked, forever)).top(len(ranked))
        moment = fitted.cut.moment(request.user.row)
        slate, _ = apply(rules, Slate(ranked, LIMIT, replace(context, moment=moment, seed=at)), forever)
        order.ranked.append(ranked)
        order.shown.append(slate.shown.item_row)
    return order


def probabilities(order: Order, liked: Sequence[Rows]) -> tuple[Floats, Mask]:
    """``(all candidates of all users,)``: the ranker's probabilities and what was liked."""
    if not order.ranked:
        return np.empty(0, np.float32), np.empty(0, np.bool_)
    scores = np.concatenate([candidates.score for candidates in order.ranked])
    return scores, np.concatenate([np.isin(c.item_row, rows) for c, rows in zip(order.ranked, liked, strict=True)])
