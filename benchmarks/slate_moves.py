"""Whether five freshly watched films of a genre move the slate towards it: ``python -m benchmarks.slate_moves BUNDLE``.

The twenty users with the shortest histories and every genre with at least 100 films, each pair by itself: the first
twenty by DCN-V2 before and after the five most popular films of the genre that the user has not met, played in the last
five minutes. Sources, merge, features and graph are those that serve; the rules, which look at one slate and not at a
user, are left out.
"""

from __future__ import annotations

import argparse
import asyncio
from collections.abc import Sequence
from pathlib import Path

import faiss
import numpy as np

from domain.arrays import Rows
from domain.catalogue import History
from domain.deadline import Deadline
from domain.request import Context, Request
from domain.stages import Source
from domain.user import Freshness, UserFeatures
from evaluation.served import LIMIT, GraphRanker
from features.contract import CONTRACT
from features.definitions import ItemFacts, context_codes, request_features
from release.bundle import Bundle
from retrieval.collaborative import Collaborative
from retrieval.content import Content
from retrieval.filters import allowed
from retrieval.merge import merge
from retrieval.popularity import Popularity
from retrieval.preference import Preference
from retrieval.two_tower import TwoTower
from training import sources
from training.threads import single_threaded

USERS, FILMS, ENOUGH = 20, 5, 100
MINUTE = 60.0
FOREVER = sources.FOREVER_SECONDS
COUNT = CONTRACT.item.slices["item_events_total_count"].start


def of_bundle(bundle: Bundle) -> list[Source]:
    """The serving sources over a bundle, in the order of the columns."""
    tables, stars = bundle.tables, bundle.manifest.dataset.positive_stars
    depth = {spec.name: spec.depth for spec in bundle.manifest.sources}
    return [
        TwoTower(tables.user_tower, faiss.read_index(str(bundle.index_path)), stars, depth["two_tower"]),
        Collaborative(tables.collaborative, stars, depth["collaborative"]),
        Content(tables.content, stars, depth["content"]),
        Popularity(tables.popularity, depth["popularity"]),
        Preference(tables.preference, tables.items.genres, stars, depth["preference"]),
    ]


def known(bundle: Bundle, user: int, history: History, moment: float) -> UserFeatures:
    """The stored features of the bundle, and what the request makes of the history."""
    items, stars = bundle.tables.items, bundle.manifest.dataset.positive_stars
    facts = ItemFacts(items.year, items.genres, items.features[:, COUNT], stars)
    numeric = np.concatenate([bundle.tables.users.features[user], request_features(history, moment, facts)])
    return UserFeatures(user, numeric, context_codes(Context(), moment), history, moment, Freshness.FRESH)


async def slate(bundle: Bundle, asked: Sequence[Source], ranker: GraphRanker, user: UserFeatures, at: float) -> Rows:
    """The first twenty as DCN-V2 orders the candidates."""

    async def read() -> UserFeatures:
        return user

    request = Request(bundle.tables.users.ids.text(user.row), user.row, LIMIT, Context(), at)
    task, forever = asyncio.create_task(read()), Deadline.after(FOREVER)
    found = [await source.retrieve(request, task, forever) for source in asked]
    keep = allowed(bundle.tables.items.eligible, user.seen)
    candidates = merge(found, [spec.quota for spec in bundle.manifest.sources], keep, sources.CANDIDATES)
    score = await ranker.score(user, candidates, forever)
    return candidates.scored(score).top(LIMIT).item_row


def watched(bundle: Bundle, genre: int, history: History, moment: float) -> History:
    """The history and five more films of the genre, a minute apart, the last a minute ago."""
    items = bundle.tables.items
    able = items.genres[:, genre].copy()
    able[history.item_row] = False
    films = np.argsort(np.where(able, -items.features[:, COUNT], 0.0), kind="stable")[:FILMS].astype(np.int32)
    times = moment - MINUTE * np.arange(FILMS, 0, -1)
    return History(
        np.concatenate([history.item_row, films]),
        np.concatenate([history.rating, np.full(FILMS, np.nan, np.float32)]),
        np.concatenate([history.timestamp, times]),
    )


async def report(bundle: Bundle) -> None:
    """The table: a genre's mean share of the slates before and after, over the users."""
    items, users = bundle.tables.items, bundle.tables.users
    asked, ranker = of_bundle(bundle), GraphRanker(bundle.model_path, items)
    moment = float(users.timestamp.max()) + 1000 * MINUTE
    quiet = np.argsort(np.diff(users.indptr), kind="stable")[:USERS].tolist()
    enough = zip(items.genre_names, items.genres.sum(axis=0).tolist(), strict=False)
    genres = {name: slot for slot, (name, films) in enumerate(enough) if films >= ENOUGH}
    moves = np.zeros((len(genres), USERS))
    print("| genre | share before | after | users moved towards it |\n" + "|---" * 4 + "|")
    for at, (name, slot) in enumerate(genres.items()):
        shares = np.zeros((USERS, 2))
        for row, user in enumerate(quiet):
            before = users.history(user)
            for when, history in enumerate((before, watched(bundle, slot, before, moment))):
                rows = await slate(bundle, asked, ranker, known(bundle, user, history, moment), moment)
                shares[row, when] = items.genres[rows, slot].mean()
        moves[at] = shares[:, 1] - shares[:, 0]
        before_mean, after_mean = shares.mean(axis=0)
        print(f"| {name} | {before_mean:.3f} | {after_mean:.3f} | {(moves[at] > 0).mean():.0%} |", flush=True)
    each = moves.mean(axis=0)
    error = each.std(ddof=1) / np.sqrt(USERS)
    print(f"\nmean move {moves.mean():+.4f} of a slate, standard error over users {error:.4f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("bundle", type=Path)
    single_threaded()
    asyncio.run(report(Bundle.load(parser.parse_args().bundle)))


if __name__ == "__main__":
    main()
