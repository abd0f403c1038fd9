"""The five sources fitted on a cut, and the candidates they give at its moments, by the code that serves."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from dataclasses import dataclass

import faiss
import numpy as np

from domain.candidates import Candidates
from domain.catalogue import History, Items
from domain.deadline import Deadline
from domain.request import Context, Request
from domain.stages import Source
from domain.user import Freshness, UserFeatures
from features.definitions import ItemFacts, context_codes, item_features
from release.bundle import SourceSpec
from retrieval.collaborative import Collaborative
from retrieval.content import Content
from retrieval.filters import allowed
from retrieval.merge import merge
from retrieval.neighbours import Neighbours
from retrieval.popularity import Popularity, PopularityTables
from retrieval.preference import Preference, PreferenceTables
from retrieval.two_tower import TwoTower, UserTower
from training import collaborative, popularity, preference, two_tower
from training.split import Cut
from training.stored import numeric_at

SOURCES = (
    SourceSpec("two_tower", depth=1000, quota=400),
    SourceSpec("collaborative", depth=1000, quota=400),
    SourceSpec("content", depth=400, quota=10),
    SourceSpec("popularity", depth=3000, quota=50),
    SourceSpec("preference", depth=400, quota=10),
)
"""Chosen by the merged recall on validation. The quotas sum to more than the candidates on purpose: two sources that
agree share their places, and where they do not, the fused rank decides among those who hold a quota."""
NAMES = tuple(spec.name for spec in SOURCES)
CANDIDATES = 500
FOREVER_SECONDS = 3600.0


@dataclass(frozen=True, slots=True, eq=False)
class Fitted:
    """Everything that depends on the events before a cut and is needed to retrieve."""

    cut: Cut
    items: Items
    facts: ItemFacts
    user_tower: UserTower
    index: faiss.Index
    collaborative: Neighbours
    content: Neighbours
    popularity: PopularityTables
    preference: PreferenceTables


def fit(cut: Cut, content: Neighbours, half_life_days: float, seed: int) -> Fitted:
    """All sources, fitted on the events before the cut; ``content`` depends on none."""
    items, facts = item_table(cut), item_facts(cut)
    tower, vectors = two_tower.fit(cut, items.features, facts, seed)
    return Fitted(
        cut,
        items,
        facts,
        tower,
        two_tower.build_index(vectors),
        collaborative.fit(cut),
        content,
        popularity.fit(cut, half_life_days),
        preference.fit(cut),
    )


def item_table(cut: Cut) -> Items:
    """The items with their features as of the last event before the cut."""
    dataset, known = cut.dataset, cut.known
    order = np.argsort(dataset.timestamp[known], kind="stable")
    events = History(dataset.item_row[known], dataset.rating[known], dataset.timestamp[known])
    events = History(events.item_row[order], events.rating[order], events.timestamp[order])
    moment = dataset.ended_at + 1.0 if events.last_event is None else events.last_event + 1.0
    features = item_features(events, dataset.settings.positive_stars, dataset.year, dataset.genres, moment)
    removed = np.zeros(len(dataset.item_ids), np.bool_)
    names = dataset.genre_names
    return Items(
        dataset.item_ids, dataset.titles, dataset.genres, names, dataset.year, features, removed, dataset.facets
    )


def item_facts(cut: Cut) -> ItemFacts:
    """What the user features need of the items, as of the cut."""
    dataset = cut.dataset
    events = np.bincount(dataset.item_row[cut.known], minlength=len(dataset.item_ids)).astype(np.float32)
    return ItemFacts(dataset.year, dataset.genres, events, dataset.settings.positive_stars)


def users_at(fitted: Fitted, users: Sequence[int]) -> list[UserFeatures]:
    """What serving would know of these users at the cut's moments.

    The history is all that lies before the cut; the numbers are of strictly earlier seconds than the moment.
    """
    cut = fitted.cut
    histories, moments = [cut.history(user) for user in users], np.array([cut.moment(user) for user in users])
    numeric = numeric_at(cut.dataset, users, histories, moments, fitted.facts)
    return [
        UserFeatures(user, row, context_codes(Context(), moment), history, cut.dataset.ended_at, Freshness.FRESH)
        for user, row, history, moment in zip(users, numeric, histories, moments.tolist(), strict=True)
    ]


def serving_sources(fitted: Fitted) -> list[Source]:
    """The serving sources over these fits, in the order of the columns."""
    settings = fitted.cut.dataset.settings
    depth = {spec.name: spec.depth for spec in SOURCES}
    return [
        TwoTower(fitted.user_tower, fitted.index, settings.positive_stars, depth["two_tower"]),
        Collaborative(fitted.collaborative, settings.positive_stars, depth["collaborative"]),
        Content(fitted.content, settings.positive_stars, depth["content"]),
        Popularity(fitted.popularity, depth["popularity"]),
        Preference(fitted.preference, fitted.items.genres, settings.positive_stars, depth["preference"]),
    ]


@dataclass(frozen=True, slots=True, eq=False)
class Retrieved:
    """One request: who asked, what each source proposed (allowed or not), and the merged candidates."""

    user: UserFeatures
    found: list[Candidates]
    candidates: Candidates


def retrieve_all(fitted: Fitted, users: Sequence[int]) -> list[Retrieved]:
    """Retrieval and merge for these users at the cut's moments."""
    known = users_at(fitted, users)

    async def ask() -> list[Retrieved]:
        sources = serving_sources(fitted)
        return [await _retrieve(fitted, sources, user) for user in known]

    return asyncio.run(ask())


async def _retrieve(fitted: Fitted, sources: Sequence[Source], known: UserFeatures) -> Retrieved:
    async def read() -> UserFeatures:
        return known

    dataset = fitted.cut.dataset
    user = known.row
    request = Request(dataset.user_ids.text(user), user, 100, Context(), fitted.cut.moment(user))
    task = asyncio.create_task(read())
    found = [await source.retrieve(request, task, Deadline.after(FOREVER_SECONDS)) for source in sources]
    keep = allowed(fitted.items.eligible, known.seen)
    merged = merge(found, [spec.quota for spec in SOURCES], keep, CANDIDATES)
    return Retrieved(known, found, merged)
