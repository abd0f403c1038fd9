"""Made-up bundles of any size, without training: what speed and memory are measured on where no real data is so large.

Items lie in clusters, and so do their vectors; a user has a home cluster, draws four events of five there, and within
a cluster items are drawn by Zipf's law. So an inverted file finds what exact search finds, lists hold what the user
would like, and popularity is as skewed as it is in life. Nobody should judge recommendations by it.
"""

from __future__ import annotations

import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import faiss
import numpy as np
from numpy.typing import NDArray

from domain.arrays import Floats, Rows
from domain.candidates import Candidates
from domain.catalogue import History, IdTable, Items, TextTable, Users
from domain.request import Context
from domain.user import Freshness, UserFeatures
from fallbacks.batch_lists import BatchListTables
from features.contract import CONTRACT, DAY, GENRE_SLOTS, HOUR
from features.definitions import ItemFacts, context_codes, item_features, request_features, user_features
from features.encode import candidate_columns, encode_candidates, user_row
from ranking.logistic import LogisticTables
from release.bundle import Bundle, DatasetSpec, Lineage, Manifest, ParityTables, SourceSpec, Tables, write
from retrieval.neighbours import Neighbours
from retrieval.popularity import PopularityTables
from retrieval.preference import PreferenceTables
from retrieval.two_tower import IndexTables, UserTower
from training import reference_graph, two_tower
from training.popularity import DEPTH
from training.reference import replayed_tables
from training.threads import single_threaded

SOURCES = (
    SourceSpec("two_tower", depth=300, quota=200),
    SourceSpec("collaborative", depth=300, quota=200),
    SourceSpec("content", depth=100, quota=50),
    SourceSpec("popularity", depth=1500, quota=50),
    SourceSpec("preference", depth=500, quota=20),
)
PREFERENCE_STRENGTH = 5.0
NAMES = tuple(spec.name for spec in SOURCES)
CLUSTER_ITEMS = 500
EVENTS = 20  # of a user, on average
HOME_SHARE = 0.8
STARTED = 1_700_000_000.0
POSITIVE_STARS = 4.0
COLLABORATIVE, CONTENT, LISTED = 30, 20, 30  # neighbours an item, items a precomputed list
VECTOR = two_tower.VECTOR
NOISE = 0.6  # of an item's vector beside 0.8 of its cluster's centre
RECALL_DEPTH, RECALL_WANTED, QUERIES = 300, 0.97, 200  # a little over the 0.95 that is promised, on other queries
TRAINED_A_LIST = 64
PARITY_REQUESTS, CANDIDATES = 8, 500

Echo = Callable[[str], None]


@dataclass(frozen=True, slots=True, eq=False)
class Clusters:
    """Cluster ``c`` is the rows from ``start[c]`` to ``start[c + 1]``, the most popular first."""

    start: NDArray[np.int64]  # (clusters + 1,)

    @classmethod
    def of(cls, items: int) -> Clusters:
        count = max(1, items // CLUSTER_ITEMS)
        return cls(np.linspace(0, items, count + 1).astype(np.int64))

    def __len__(self) -> int:
        return len(self.start) - 1

    @property
    def of_item(self) -> NDArray[np.int64]:
        """``(items,)``."""
        return np.repeat(np.arange(len(self)), np.diff(self.start))

    def drawn(self, n: int, rng: np.random.Generator) -> NDArray[np.int64]:
        """``n`` clusters by Zipf's law."""
        return _zipf(np.full(n, len(self)), rng)

    def items(self, clusters: NDArray[np.int64], rng: np.random.Generator) -> Rows:
        """An item of each of these clusters, by Zipf's law."""
        size = self.start[clusters + 1] - self.start[clusters]
        return (self.start[clusters] + _zipf(size, rng)).astype(np.int32)


def _zipf(size: NDArray[np.int64], rng: np.random.Generator) -> NDArray[np.int64]:
    """A rank below each ``size``, rank ``r`` about in proportion to ``1 / (r + 1)``."""
    drawn = (size + 1.0) ** rng.random(len(size))
    return np.minimum(drawn.astype(np.int64), size) - 1


def synthetic(items: int, users: int, out: Path, seed: int = 0, echo: Echo = print) -> Bundle:
    """Write a bundle of ``items`` and ``users`` into the new folder ``out``."""
    if min(items, users) < 1:
        raise ValueError("a bundle needs an item and a user")
    started = time.time()
    single_threaded()
    rng, clusters = np.random.default_rng(seed), Clusters.of(items)
    home = clusters.drawn(users, rng)
    events = _events(clusters, home, rng)
    table = _items(clusters, events, rng)
    facts = ItemFacts(table.year, table.genres, _counts(table), POSITIVE_STARS)
    echo(f"{items:,} items in {len(clusters):,} clusters, {len(events.item_row):,} events")
    with tempfile.TemporaryDirectory(dir=out.parent) as scratch:
        index, model = Path(scratch, "index.faiss"), Path(scratch, "model.onnx")
        vectors = _vectors(clusters, rng)
        recall = _write_index(index, vectors, clusters, rng)
        echo(f"item index: recall@{RECALL_DEPTH} {recall:.3f} against exact search")
        people = _users(events, facts, echo)
        side, parity = reference_graph.write_graph(model, table.features, _requests(table, people, facts, rng), seed)
        echo("DCN-V2: the reference graph, untrained")
        tower = _tower(vectors)
        tables = Tables(
            items=table,
            users=people,
            user_tower=tower,
            index=IndexTables(tower.digest()),
            collaborative=_neighbours(clusters, COLLABORATIVE, rng),
            content=_neighbours(clusters, CONTENT, rng),
            popularity=_popularity(table),
            preference=PreferenceTables.of(_counts(table), table.genres, PREFERENCE_STRENGTH),
            logistic=_logistic(),
            batch_lists=_lists(clusters, home),
            parity=parity,
            reference=replayed_tables(people, facts),
            item_side=side,
        )
        bundle = write(out, _manifest(items, users, seed, recall, people.as_of), tables, index, model)
    echo(f"bundle {bundle.version} in {time.time() - started:.0f} s")
    return bundle


def with_reference_graph(like: Path, out: Path, seed: int = 0, echo: Echo = print) -> Bundle:
    """The bundle ``like`` with the untrained reference graph for a ranker, in the new folder ``out``."""
    bundle = Bundle.load(like)
    manifest = replace(bundle.manifest, version=f"{bundle.version.rsplit('-', 1)[0]}-reference-graph")
    with tempfile.TemporaryDirectory() as scratch:
        model = Path(scratch, "model.onnx")
        side, parity = reference_graph.write_graph(model, bundle.tables.items.features, bundle.tables.parity, seed)
        tables = replace(bundle.tables, item_side=side, parity=parity)
        made = write(out, manifest, tables, bundle.index_path, model)
    echo(f"bundle {made.version}: {bundle.version} ranked by the reference graph")
    return made


@dataclass(frozen=True, slots=True, eq=False)
class Events:
    """Everybody's events, as CSR over users, each user's an hour apart."""

    indptr: NDArray[np.int64]
    item_row: Rows
    rating: Floats
    timestamp: NDArray[np.float64]


def _events(clusters: Clusters, home: NDArray[np.int64], rng: np.random.Generator) -> Events:
    lengths = 1 + rng.poisson(EVENTS - 1, len(home))
    indptr = np.concatenate(([0], np.cumsum(lengths))).astype(np.int64)
    total = int(indptr[-1])
    at_home = rng.random(total) < HOME_SHARE
    where = np.where(at_home, np.repeat(home, lengths), clusters.drawn(total, rng))
    rating = np.where(at_home, rng.integers(3, 6, total), rng.integers(1, 6, total)).astype(np.float32)
    begun = STARTED + rng.random(len(home)) * 360 * DAY
    position = np.arange(total) - np.repeat(indptr[:-1], lengths)
    return Events(indptr, clusters.items(where, rng), rating, np.repeat(begun, lengths).round() + position * HOUR)


def _items(clusters: Clusters, events: Events, rng: np.random.Generator) -> Items:
    n, cluster = int(clusters.start[-1]), clusters.of_item
    genres = np.zeros((n, GENRE_SLOTS), np.bool_)
    genres[np.arange(n), cluster % GENRE_SLOTS] = True
    genres[np.arange(n), (cluster // GENRE_SLOTS) % GENRE_SLOTS] = True
    year = rng.integers(1960, 2024, n).astype(np.float32)
    order = np.argsort(events.timestamp, kind="stable")
    log = History(events.item_row[order], events.rating[order], events.timestamp[order])
    width = len(str(n))
    return Items(
        ids=IdTable.of(f"i{row:0{width}d}" for row in range(n)),
        titles=TextTable.of(f"Item {row} of cluster {at}" for row, at in enumerate(cluster.tolist())),
        genres=genres,
        genre_names=tuple(f"Genre {slot + 1:02d}" for slot in range(GENRE_SLOTS)),
        year=year,
        features=item_features(log, POSITIVE_STARS, year, genres, float(log.timestamp[-1]) + 1.0),
        removed=np.zeros(n, np.bool_),
    )


def _counts(items: Items) -> Floats:
    return items.features[:, CONTRACT.item.slices["item_events_total_count"].start]


def _users(events: Events, facts: ItemFacts, echo: Echo) -> Users:
    """Every user's features by the one definition, a second after their last event."""
    n = len(events.indptr) - 1
    features = np.empty((n, CONTRACT.user.width), np.float32)
    width = len(str(n))
    ids = IdTable.of(f"u{row:0{width}d}" for row in range(n))
    users = Users(ids, features, events.indptr, events.item_row, events.rating, events.timestamp, 0.0)
    for row in range(n):
        history = users.history(row)
        features[row] = user_features(history, float(history.timestamp[-1]) + 1.0, facts)
        if row and row % 250_000 == 0:
            echo(f"features of {row:,} users")
    return replace(users, as_of=float(events.timestamp.max()))


def _vectors(clusters: Clusters, rng: np.random.Generator) -> Floats:
    """``(items, VECTOR)``, unit length, around the centres of their clusters."""
    centres = _unit(rng.normal(size=(len(clusters), VECTOR)).astype(np.float32))
    noise = _unit(rng.standard_normal(size=(int(clusters.start[-1]), VECTOR), dtype=np.float32))
    return _unit(np.float32(np.sqrt(1 - NOISE**2)) * centres[clusters.of_item] + np.float32(NOISE) * noise)


def _unit(vectors: Floats) -> Floats:
    return vectors / np.linalg.norm(vectors, axis=1, keepdims=True)


def _write_index(path: Path, vectors: Floats, clusters: Clusters, rng: np.random.Generator) -> float:
    """The item index, probing as many lists as recall takes; its recall on queries that it was not tuned by."""
    tuning, judging = (_unit(_queries(vectors, clusters, rng)) for _ in range(2))
    if len(vectors) < two_tower.FLAT_INDEX_ITEMS:
        index = two_tower.build_index(vectors)
    else:
        index = _inverted(vectors, rng)
        lists = faiss.extract_index_ivf(index)
        while recall_of(index, vectors, tuning) < RECALL_WANTED and lists.nprobe < lists.nlist:
            lists.nprobe = min(2 * lists.nprobe, lists.nlist)
    faiss.write_index(index, str(path))
    return recall_of(index, vectors, judging)


def _queries(vectors: Floats, clusters: Clusters, rng: np.random.Generator) -> Floats:
    """What users' vectors are like: the mean of a few items of a cluster and one of another."""
    home = clusters.drawn(QUERIES, rng)
    rows = np.stack([*(clusters.items(home, rng) for _ in range(8)), clusters.items(clusters.drawn(QUERIES, rng), rng)])
    mean: Floats = vectors[rows].mean(axis=0)
    return mean


def _inverted(vectors: Floats, rng: np.random.Generator) -> faiss.Index:
    lists = int(2 * np.sqrt(len(vectors)))
    index = faiss.index_factory(vectors.shape[1], f"IVF{lists},Flat", faiss.METRIC_INNER_PRODUCT)
    index.train(vectors[rng.choice(len(vectors), min(len(vectors), TRAINED_A_LIST * lists), replace=False)])
    index.add(vectors)
    return index


def recall_of(index: faiss.Index, vectors: Floats, queries: Floats, k: int = RECALL_DEPTH) -> float:
    """The share of the ``k`` nearest by exact search that the index finds among its ``k``."""
    k = min(k, len(vectors))
    _, exact = faiss.knn(queries, vectors, k, metric=faiss.METRIC_INNER_PRODUCT)
    _, found = index.search(queries, k)
    return float(np.mean([np.isin(a, b).mean() for a, b in zip(exact, found, strict=True)]))


def _tower(vectors: Floats) -> UserTower:
    """The user's vector is the mean of what they liked: the hidden layer holds it and its negative, past the ReLU."""
    width, eye = CONTRACT.numeric.width, np.eye(VECTOR, dtype=np.float32)
    return UserTower(
        embedding=vectors,
        mean=np.zeros(width, np.float32),
        scale=np.ones(width, np.float32),
        hidden_weight=np.hstack([np.vstack([eye, -eye]), np.zeros((2 * VECTOR, width), np.float32)]),
        hidden_bias=np.zeros(2 * VECTOR, np.float32),
        out_weight=np.hstack([eye, -eye]),
        out_bias=np.zeros(VECTOR, np.float32),
    )


def _neighbours(clusters: Clusters, k: int, rng: np.random.Generator) -> Neighbours:
    """``k`` others of the same cluster, the popular ones more often."""
    owner = np.repeat(clusters.of_item, k)
    rows = clusters.items(owner, rng)
    n = int(clusters.start[-1])
    weight = rng.random(n * k, dtype=np.float32) * np.float32(0.1)
    return Neighbours(np.arange(n + 1, dtype=np.int64) * k, rows, weight)


def _popularity(items: Items) -> PopularityTables:
    counts = _counts(items)
    order = np.argsort(-counts, kind="stable")[:DEPTH]
    return PopularityTables(order.astype(np.int32), counts[order] + np.float32(1.0))


def _lists(clusters: Clusters, home: NDArray[np.int64]) -> BatchListTables:
    """The popular items of each user's home cluster."""
    length = min(LISTED, int(np.diff(clusters.start).min()))
    rows = (clusters.start[home][:, None] + np.arange(length)).astype(np.int32)
    score = np.tile(np.linspace(1.0, 0.1, length, dtype=np.float32), len(home))
    return BatchListTables(np.arange(len(home) + 1, dtype=np.int64) * length, rows.ravel(), score)


def _logistic() -> LogisticTables:
    """Ranks by how early the sources named an item."""
    columns = candidate_columns(NAMES)
    width = len(columns) + CONTRACT.item.width
    weight = np.zeros(width, np.float32)
    weight[[at for at, name in enumerate(columns) if name.endswith("reciprocal_rank")]] = 1.0
    return LogisticTables(np.zeros(width, np.float32), np.ones(width, np.float32), weight, np.full(1, -2, np.float32))


def _requests(items: Items, users: Users, facts: ItemFacts, rng: np.random.Generator) -> ParityTables:
    """Requests as the serving code encodes them, for candidates drawn at random; not scored yet."""
    n = min(CANDIDATES, len(items))
    encoded = [
        _request(items, users, int(rng.integers(len(users))), facts, rng.permutation(len(items))[:n], rng)
        for _ in range(PARITY_REQUESTS)
    ]
    user, codes, item_row, columns = (np.stack(part) for part in zip(*encoded, strict=True))
    return ParityTables(user, codes, item_row, columns, np.zeros(item_row.shape, np.float32))


def _request(
    items: Items, users: Users, row: int, facts: ItemFacts, chosen: NDArray[np.int64], rng: np.random.Generator
) -> tuple[Floats, NDArray[np.int32], Rows, Floats]:
    history = users.history(row)
    moment = float(history.timestamp[-1]) + float(rng.integers(1, 100)) * HOUR
    numeric = np.concatenate([users.features[row], request_features(history, moment, facts)])
    known = UserFeatures(row, numeric, context_codes(Context(), moment), history, users.as_of, Freshness.FRESH)
    rank = np.argsort(rng.random((len(NAMES), len(chosen))), axis=1).T.astype(np.float32)
    score = (1.0 / (1.0 + rank)).astype(np.float32)
    missed = rng.random(score.shape) < 0.5
    score[missed], rank[missed] = np.nan, np.nan
    candidates = Candidates(chosen.astype(np.int32), np.zeros(len(chosen), np.float32), score, rank)
    columns = encode_candidates(known, candidates, items.features, items.genres)
    return user_row(known), known.codes, candidates.item_row, columns


def _manifest(items: int, users: int, seed: int, recall: float, ended_at: float) -> Manifest:
    made = {"items": items, "users": users, "seed": seed}
    lineage = Lineage("0" * 64, "unknown", time.time(), made, {f"two_tower_recall_at_{RECALL_DEPTH}": recall})
    return Manifest("synthetic", DatasetSpec("synthetic", "replay", ended_at, POSITIVE_STARS, 3.7), SOURCES, lineage)
