"""What the rules are told when a past moment is asked about."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from domain.catalogue import Facets, Items
from evaluation.served import serve
from release.bundle import Bundle
from reranking.freshness import Freshness
from training import content, sources
from training.dataset import read
from training.split import final_cut


def dated(items: Items, row: int, moment: float) -> Items:
    """The items, of which one says when it was published."""
    n, published_at = len(items), np.full(len(items), np.nan)
    published_at[row] = moment
    none, unknown = np.full(n, -1, np.int32), np.full(n, np.nan, np.float32)
    facets = Facets(none, (), none, (), unknown, rated=False, regions=np.zeros((n, 0), np.bool_), region_names=(),
                    published_at=published_at)  # fmt: skip
    return replace(items, facets=facets)


def test_what_is_fresh_is_fresh_at_the_users_own_moment(folder: Path, trained: Bundle) -> None:
    dataset = read(folder)
    fitted = sources.fit(final_cut(dataset), content.fit(dataset), np.inf, 0)
    early, late = 0, 22  # of one taste, hours apart
    asked = (trained.model_path, trained.tables.logistic)
    plain = serve(fitted, *asked, [], [early, late]).dcn_v2.shown
    released = next(row for row in reversed(plain[0].tolist()) if row in plain[1])
    new = replace(fitted, items=dated(fitted.items, released, fitted.cut.moment(early) - 1.0))
    found = serve(new, *asked, [Freshness(lift=100.0, half_life_days=0.01)], [early, late]).dcn_v2.shown
    assert found[0][0] == released != plain[0][0]
    assert found[1].tolist() == plain[1].tolist()  # for whom it is hours old
