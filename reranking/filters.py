"""What may not be shown at all: removed items, items above the viewer's age, items not licensed where they are."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import partial

import numpy as np

from domain.arrays import Mask, Rows
from domain.catalogue import Facets
from domain.slate import Audience, Slate, SlateContext
from domain.stages import May, Rule, anything


def filters_among(rules: Iterable[Rule]) -> BusinessFilters | None:
    """The filters as they are configured, None where they are not."""
    return next((rule for rule in rules if isinstance(rule, BusinessFilters)), None)


def permitted(context: SlateContext, rules: Iterable[Rule] = ()) -> May:
    """What the audience may see where no rule goes: by the filters among ``rules``, else by the default's."""
    if context.facets is None or context.audience == Audience():
        return anything
    return partial((filters_among(rules) or BusinessFilters()).allowed, context)


@dataclass(frozen=True, slots=True)
class BusinessFilters:
    """Drops candidates, pinned ones too; the reserve moves up. Never relaxed, and never left out for want of time.

    With an age limit, an item without an age rating is dropped unless ``admit_unrated``; a dataset that rates nothing
    is not filtered by age. A region that the dataset does not know has what may be shown everywhere.
    """

    admit_unrated: bool = False
    name: str = "filters"

    def apply(self, slate: Slate) -> Slate:
        allowed = self.allowed(slate.context, slate.candidates.item_row)
        return slate if np.count_nonzero(allowed) == len(allowed) else slate.kept(allowed)

    def allowed(self, context: SlateContext, rows: Rows) -> Mask:
        """``(n,)``: which of the ``rows`` may be shown to this audience."""
        facets, audience = context.facets, context.audience
        allowed: Mask = np.ones(len(rows), np.bool_) if context.removed is None else ~context.removed[rows]
        if facets is not None and facets.rated and audience.max_age_rating is not None:
            allowed &= self._of_age(facets, audience.max_age_rating, rows)
        if facets is not None and audience.region is not None:
            allowed &= self._licensed(facets, audience.region, rows)
        return allowed

    def _of_age(self, facets: Facets, limit: float, rows: Rows) -> Mask:
        rating = facets.age_rating[rows]
        return (rating <= limit) | (np.isnan(rating) & self.admit_unrated)

    @staticmethod
    def _licensed(facets: Facets, region: str, rows: Rows) -> Mask:
        licensed = facets.regions[rows]
        everywhere = np.logical_not(licensed.any(axis=1))
        if region not in facets.region_names:
            return everywhere
        return everywhere | licensed[:, facets.region_names.index(region)]
