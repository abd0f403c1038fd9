"""Promotion: campaign items at the slots they were sold for, or lifted by a boost of their scores."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from domain.slate import Campaign, Slate, impressions_left
from reranking.reach import relevance_of


@dataclass(frozen=True, slots=True)
class Promotion:
    """Each active campaign's best-scored candidates move to its slots and stay there, whatever rule comes later.

    The items must be among the candidates: the pipeline adds active campaigns' items before ranking, so they are scored
    like any other, and the seen and excluded ones are gone already. The first campaign to name a slot has it. Those of
    its items that got no slot rise to where their relevance plus ``boost`` belongs; nothing else changes its order, so
    that it goes down by at most the number of items promoted. Relevance is the scores from 0 for the worst to 1 for the
    best, since fused ranks and a model's scores are of different scales. A campaign shows no more items than its budget
    and its cap a user leave. Slots that an earlier rule pinned are not given again.
    """

    name: str = "promotion"

    def apply(self, slate: Slate) -> Slate:
        if not slate.context.campaigns:
            return slate
        left = impressions_left(slate.context.campaigns, slate.context.now, slate.context.spent)
        rows, (wanted, sold) = slate.candidates.item_row, _placements(slate, left)
        if wanted:
            slate = slate.with_pins(wanted, self.name)
        for slot, position in wanted.items():
            slate = slate.promoted_for(sold[slot], rows[[position]])
        for campaign in slate.context.campaigns:
            if campaign.boost > 0 and left[campaign.name] > 0:
                slate = self._boosted(slate, campaign, left[campaign.name])
        return slate

    def _boosted(self, slate: Slate, campaign: Campaign, left: int) -> Slate:
        """The campaign's ``left`` best free candidates where their boosted scores belong in the order there is."""
        free = slate.free
        rows, score = slate.candidates.item_row[free], slate.candidates.score[free]
        at = np.flatnonzero(np.isin(rows, campaign.item_row))[:left]
        if not len(at):
            return slate
        falling = np.minimum.accumulate(np.where(np.isfinite(score), relevance_of(score), -np.inf))
        falling[at] += np.float32(campaign.boost)
        order = np.argsort(-falling, kind="stable")
        up = order[order > np.arange(len(order))]
        return slate.ordered(order, self.name).promoted_for(campaign.name, rows[up]) if len(up) else slate


def _placements(slate: Slate, left: dict[str, int]) -> tuple[dict[int, int], dict[int, str]]:
    """Slot -> position of the candidate to put there, and -> its campaign; what is placed is taken from ``left``."""
    rows, shown = slate.candidates.item_row, min(slate.limit, len(slate.candidates))
    wanted: dict[int, int] = {}
    sold: dict[int, str] = {}
    for campaign in slate.context.campaigns:
        taken = {*wanted, *slate.pinned}
        slots = [slot for slot in dict.fromkeys(campaign.slots) if slot < shown and slot not in taken]
        busy = {*wanted.values(), *slate.pinned}
        positions = np.flatnonzero(np.isin(rows, campaign.item_row)).tolist() if slots and left[campaign.name] else []
        free = [position for position in positions if position not in busy]
        placed = list(zip(slots, free, strict=False))[: left[campaign.name]]
        left[campaign.name] -= len(placed)
        wanted |= dict(placed)
        sold |= dict.fromkeys(dict(placed), campaign.name)
    return wanted, sold
