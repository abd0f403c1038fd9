"""Who is served well, and who is shown: by groups of users and of items.

Users: the disparity is the largest mean Hit@10 of a group less the smallest, over groups of at least ``LEAST_USERS``
(the difference form of equal opportunity: Hardt et al., NeurIPS 2016). Who liked more later is hit more easily, so
beside it stands the same with one positive a user, the chance that one of them drawn at random is among the first ten.

Items: a group's exposure is what its items get in the first ten places, a place counting ``1 / log2(1 + place)``; its
merit is its share of what the same users liked, each user counting alike. Exposure should follow merit (Singh and
Joachims, KDD 2018). The equity of a set of groups is the overlap of both distributions, the sum of the smaller share: 1
when exposure is proportional, 0 when only what nobody likes is shown; it weighs a group by its size, so that small ones
do not decide by luck. Beside it stands the smallest exposure over merit of a single group, among those whose merit
stands on at least ``LEAST_POSITIVES`` positives. An item of several genres belongs to each in equal parts.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow.parquet as pq

from domain.arrays import Rows
from training.dataset import Dataset
from training.folder import ITEMS, USERS
from training.quality import Numbers
from training.split import Cut

LEAST_USERS = 20
LEAST_POSITIVES = 50
MOST_GROUPS = 20  # a column with more values (a name, a postcode) makes no groups
PLACES = 10
UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True, eq=False)
class Groups:
    """``weight[i, g]`` is how far row ``i`` belongs to ``names[g]``: rows sum to one."""

    names: tuple[str, ...]
    weight: Numbers  # (rows, G)

    def only(self, rows: Sequence[int]) -> Groups:
        """The same groups of fewer rows."""
        return Groups(self.names, self.weight[rows])

    def means(self, values: Numbers) -> Numbers:
        """``(G,)``: the mean of ``values`` ``(rows,)`` in each group; NaN in an empty one."""
        with np.errstate(invalid="ignore"):
            found: Numbers = values @ self.weight / self.weight.sum(axis=0)
        return found

    def times(self, other: Groups) -> Groups:
        """The intersections, one cell a pair of groups."""
        cells = self.weight[:, :, None] * other.weight[:, None, :]
        names = tuple(f"{one} x {two}" for one in self.names for two in other.names)
        return Groups(names, cells.reshape(len(cells), -1))


@dataclass(frozen=True, slots=True)
class UserGroup:
    name: str
    users: int
    hit_at_10: float
    hit_of_one: float  # with one positive a user, drawn at random


@dataclass(frozen=True, slots=True)
class ItemGroup:
    name: str
    positives: float  # of the judged users, what the merit stands on
    merit_share: float
    exposure_share: float

    @property
    def over_merit(self) -> float:
        return self.exposure_share / self.merit_share if self.merit_share else float("nan")

    @property
    def judged(self) -> bool:
        return self.positives >= LEAST_POSITIVES


def of_values(values: Sequence[str | None]) -> Groups:
    """One group a distinct value; what has none is ``unknown``."""
    told = [value or UNKNOWN for value in values]
    names = tuple(sorted(set(told)))
    weight = np.zeros((len(told), len(names)))
    weight[np.arange(len(told)), [names.index(value) for value in told]] = 1.0
    return Groups(names, weight)


def user_groups(folder: Path, cut: Cut) -> dict[str, Groups]:
    """Terciles of activity before the cut, and every column of users.parquet with few values."""
    order = np.argsort(np.argsort(cut.length, kind="stable"), kind="stable")
    tercile = order * 3 // max(len(order), 1)
    groups = {"activity": of_values([("1 least", "2 middle", "3 most")[part] for part in tercile.tolist()])}
    for column, values in _columns(folder / USERS, "user_id").items():
        by_id = [values.get(cut.dataset.user_ids.text(row)) for row in range(len(cut.length))]
        if 1 < len(set(by_id)) <= MOST_GROUPS:
            groups[column] = of_values(by_id)
    return groups


def item_groups(folder: Path, dataset: Dataset) -> dict[str, Groups]:
    """Creator and language where the items have both, otherwise decade and genre; and their intersection."""
    ids = [dataset.item_ids.text(row) for row in range(len(dataset.item_ids))]
    columns = _columns(folder / ITEMS, "item_id")
    if {"creator_id", "language"} <= columns.keys():
        creator = _largest([columns["creator_id"].get(item) for item in ids])
        axes = {"creator": creator, "language": _largest([columns["language"].get(item) for item in ids])}
    else:
        axes = {"decade": of_values([_decade(year) for year in dataset.year.tolist()]), "genre": _genres(dataset)}
    (one, first), (two, second) = axes.items()
    return {**axes, f"{one} x {two}": first.times(second)}


def _columns(path: Path, key: str) -> dict[str, Mapping[str, str | None]]:
    """Column -> id -> value, for the columns of texts, whole numbers and flags."""
    if not path.exists():
        return {}
    table = pq.read_table(path)
    kinds = ("string", "large_string", "bool", "int", "uint")
    named = [field.name for field in table.schema if str(field.type).startswith(kinds) and field.name != key]
    ids = table[key].to_pylist()
    texts = {name: [None if v is None else str(v) for v in table[name].to_pylist()] for name in named}
    return {name: dict(zip(ids, values, strict=True)) for name, values in texts.items()}


def _largest(values: Sequence[str | None]) -> Groups:
    """The most frequent values, the rest together: a creator of two items is no group."""
    names, counts = np.unique([value for value in values if value] or [""], return_counts=True)
    kept = set(names[np.argsort(-counts, kind="stable")][: MOST_GROUPS - 1].tolist())
    return of_values([value if value is None or value in kept else "others" for value in values])


def _decade(year: float) -> str | None:
    return None if np.isnan(year) else f"{int(year) // 10 * 10}s"


def _genres(dataset: Dataset) -> Groups:
    flags = dataset.genres[:, : len(dataset.genre_names)].astype(np.float64)
    weight = np.column_stack([flags, flags.sum(axis=1) == 0])
    return Groups((*dataset.genre_names, UNKNOWN), weight / weight.sum(axis=1, keepdims=True))


def by_user_group(
    groups: Groups, users: Sequence[int], shown: Sequence[Rows], liked: Sequence[Rows]
) -> list[UserGroup]:
    """Each group with its judged users; ``shown[i]`` is the order given to ``users[i]``."""
    found = [np.isin(positives, order[:PLACES]) for order, positives in zip(shown, liked, strict=True)]
    hit = np.array([part.any() for part in found], np.float64)
    of_one = np.array([part.mean() for part in found])
    rows = []
    for name, belongs in zip(groups.names, groups.weight[list(users)].T.astype(bool), strict=True):
        if belongs.any():
            rows.append(UserGroup(name, int(belongs.sum()), float(hit[belongs].mean()), float(of_one[belongs].mean())))
    return rows


def disparity(groups: Sequence[UserGroup]) -> float:
    """Largest less smallest Hit@10; 0 where fewer than two groups are large enough."""
    return _gap([group.hit_at_10 for group in groups if group.users >= LEAST_USERS])


def disparity_of_one(groups: Sequence[UserGroup]) -> float:
    """The same with one positive a user."""
    return _gap([group.hit_of_one for group in groups if group.users >= LEAST_USERS])


def _gap(values: Sequence[float]) -> float:
    return max(values) - min(values) if len(values) > 1 else 0.0


def by_item_group(groups: Groups, shown: Sequence[Rows], liked: Sequence[Rows]) -> list[ItemGroup]:
    """Each group that was liked or shown at all."""
    G = len(groups.names)
    exposure, merit, positives = np.zeros(G), np.zeros(G), np.zeros(G)
    for order, rows in zip(shown, liked, strict=True):
        top = groups.weight[order[:PLACES]]
        exposure += (1.0 / np.log2(np.arange(2, len(top) + 2))) @ top
        merit += groups.weight[rows].mean(axis=0)
        positives += groups.weight[rows].sum(axis=0)
    exposure, merit = _shares(exposure), _shares(merit)
    rows_of = zip(groups.names, positives.tolist(), merit.tolist(), exposure.tolist(), strict=True)
    return [ItemGroup(*row) for row in rows_of if row[2] or row[3]]


def _shares(values: Numbers) -> Numbers:
    return values / values.sum() if values.sum() else values


def equity(groups: Sequence[ItemGroup]) -> float:
    """The overlap of exposure and merit; 0 where nothing was shown or liked."""
    return float(sum(min(group.exposure_share, group.merit_share) for group in groups))


def least_served(groups: Sequence[ItemGroup]) -> ItemGroup | None:
    """The judged group with the smallest exposure over merit; None where no group is large enough."""
    return min((group for group in groups if group.judged), key=lambda group: group.over_merit, default=None)
