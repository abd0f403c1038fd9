"""Both rankers, trained on requests at several earlier moments of every user."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from domain.arrays import Floats, Mask
from domain.errors import DatasetError
from ranking.logistic import LogisticTables
from release.item_side import ItemSide
from retrieval.neighbours import Neighbours
from training import content, dcn_v2, logistic, popularity, sources
from training.dataset import Dataset
from training.rank_rows import RankRows, collect, together
from training.split import VALIDATION_PERCENT, Cut, beginners_cut, cut

CUTS = ((40, 60), (50, 70), (60, VALIDATION_PERCENT))
"""Per cent of each user's events: known, and asked about. Each asks about as long a stretch as the test does, and none
about the test part itself."""
HELD_OUT_SHARE = 0.15  # of the users: for early stopping and calibration
SHAPE, SCHEDULE = dcn_v2.Shape(), dcn_v2.Schedule()


@dataclass(frozen=True, slots=True, eq=False)
class Rankers:
    """The trained rankers, and what the sources need to be fitted again."""

    content: Neighbours
    half_life_days: float
    rows: RankRows
    inputs: dcn_v2.Inputs
    model: dcn_v2.DcnV2
    slope: float
    offset: float
    logistic: LogisticTables
    metrics: Mapping[str, float]  # on the held-out users at the last cut
    judged: Mask  # (r,): which of ``rows`` those are; none where nobody could be held out

    def exported(self, item_features: Floats) -> dcn_v2.Exported:
        """DCN-V2 with the items' side computed from raw ``item_features`` ``(n, I)``."""
        return dcn_v2.Exported(self.model, self.inputs.standard_item(item_features), self.slope, self.offset)


def item_side(inputs: dcn_v2.Inputs, exported: dcn_v2.Exported) -> ItemSide:
    """What the exported graph's item table is computed by."""
    return ItemSide(inputs.item_mean, inputs.item_scale, exported.item_weight.numpy(), exported.item_bias.numpy())


@dataclass(frozen=True, slots=True, eq=False)
class Asked:
    """What the sources answered at every cut: what the rankers learn from."""

    content: Neighbours
    half_life_days: float
    cuts: tuple[Cut, ...]  # the beginners', then those that were named, in their order
    rows: RankRows
    item_features: Floats  # (cuts, n, I) raw


def fit(dataset: Dataset, seed: int, echo: Callable[[str], None]) -> Rankers:
    """Fit the sources at every cut, ask them, and train both rankers.

    Raises ``DatasetError`` if nobody liked anything that could have been recommended.
    """
    return learn(ask(dataset, CUTS, seed, echo), SHAPE, SCHEDULE, seed, echo)


def ask(dataset: Dataset, cuts: Sequence[tuple[int, int]], seed: int, echo: Callable[[str], None]) -> Asked:
    """Fit the sources at every one of ``cuts`` (per cent known, per cent asked about) and ask them.

    First come beginners as of the last cut: from long histories alone a ranker learns that popularity says little
    beside the sources that know the user, and not what to do where those are silent. Nothing after the last cut's
    stretch is looked at. Raises ``DatasetError`` as ``fit`` does.
    """
    neighbours = content.fit(dataset)
    half_life_days = popularity.best_half_life_days(cut(dataset, *cuts[-1]))
    echo(f"content and popularity: half-life {half_life_days:g} days")
    moments = {"beginners": beginners_cut(dataset, *cuts[-1], seed)}
    moments |= {f"as of {percent} % of each user's events": cut(dataset, percent, until) for percent, until in cuts}
    parts, item_features = [], []
    for number, (name, moment) in enumerate(moments.items()):
        fitted = sources.fit(moment, neighbours, half_life_days, seed)
        parts.append(collect(fitted, number))
        item_features.append(fitted.items.features)
        echo(f"sources, {name}: {_recall_line(parts[-1])}")
    rows = together(parts)
    if not rows.liked.any():
        raise DatasetError(["no user liked a retrieved item after the first half of their events: nothing to rank by"])
    return Asked(neighbours, half_life_days, tuple(moments.values()), rows, np.stack(item_features))


def learn(
    asked: Asked, shape: dcn_v2.Shape, schedule: dcn_v2.Schedule, seed: int, echo: Callable[[str], None]
) -> Rankers:
    """Both rankers from what was asked; some users are held out for early stopping and calibration."""
    rows, features = asked.rows, asked.item_features
    held_out = np.isin(rows.user_row, _held_out_users(rows, seed))
    seen = ~held_out if held_out.any() and rows.liked[~held_out].any() else np.ones(len(rows), np.bool_)
    judged = held_out if held_out.any() else seen
    inputs = dcn_v2.measure_inputs(rows, features)
    model, slope, offset = dcn_v2.fit(rows.only(seen), rows.only(judged), inputs, shape, schedule, seed)
    tables = logistic.fit(rows.only(seen), features, seed)
    last = ~seen & (rows.cut == len(features) - 1)  # nobody where nobody could be held out
    metrics = _metrics(rows.only(last), model, inputs, tables, features)
    told = ", ".join(f"{name} {value:.3f}" for name, value in metrics.items())
    echo(f"rankers on held-out users: {told or 'there are too few to hold any out'}")
    return Rankers(asked.content, asked.half_life_days, rows, inputs, model, slope, offset, tables, metrics, last)


def _held_out_users(rows: RankRows, seed: int) -> np.ndarray[tuple[int], np.dtype[np.int32]]:
    """Drawn from whom the named cuts ask about: who happens to be a beginner does not change who is judged."""
    users = np.unique(rows.user_row[rows.cut > 0])
    return np.random.default_rng(seed).permutation(users)[: int(HELD_OUT_SHARE * len(users))]


def _recall_line(rows: RankRows) -> str:
    if not len(rows):
        return "no requests"
    recall = float((rows.liked.sum(axis=1) / rows.liked_in_all).mean())
    return f"{len(rows)} requests, merged recall {recall:.3f}"


def _metrics(
    rows: RankRows, model: dcn_v2.DcnV2, inputs: dcn_v2.Inputs, tables: LogisticTables, item_features: Floats
) -> dict[str, float]:
    if not len(rows):
        return {}
    return {
        "validation_recall_at_500": float((rows.liked.sum(axis=1) / rows.liked_in_all).mean()),
        "validation_ndcg_at_10_dcn_v2": dcn_v2.ndcg(rows, dcn_v2.logits(model, rows, inputs)),
        "validation_ndcg_at_10_logistic": dcn_v2.ndcg(rows, logistic.scores(tables, rows, item_features)),
    }
