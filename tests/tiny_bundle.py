"""A bundle small enough to be made in every test run, with the shapes of a real one and random numbers inside.

Everything is consistent: it is written and verified by ``release.bundle.write``. The ranker is a small ONNX graph with
the tensor names and shapes of DCN-V2, and its parity scores come from ONNX Runtime.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx import TensorProto, helper, numpy_helper

from domain.arrays import Floats, Rows
from domain.catalogue import History, IdTable, Items, TextTable, Users
from fallbacks.batch_lists import BatchListTables
from features.contract import CONTRACT, GENRE_SLOTS
from features.counts import Bins
from features.definitions import ItemFacts, item_features, user_features
from features.encode import candidate_columns
from ranking.logistic import LogisticTables
from release.bundle import (
    Bundle,
    DatasetSpec,
    Lineage,
    Manifest,
    ParityTables,
    ReferenceTables,
    SourceSpec,
    Tables,
    write,
)
from release.gates import AT_LEAST, AT_MOST
from release.graph import TABLE
from release.item_side import ItemSide
from retrieval.neighbours import Neighbours
from retrieval.popularity import PopularityTables
from retrieval.preference import PreferenceTables
from retrieval.two_tower import IndexTables, UserTower

ITEMS = 50
USERS = 10
EVENTS = 8  # a user
VECTOR = 8
HIDDEN = 6
STARTED = 1_400_000_000.0
SOURCES = (
    SourceSpec("two_tower", 30, 5),
    SourceSpec("collaborative", 30, 5),
    SourceSpec("content", 30, 5),
    SourceSpec("popularity", 30, 5),
    SourceSpec("preference", 30, 5),
)
COLUMNS = candidate_columns([source.name for source in SOURCES])
NO_GATES = {
    **{model: dict.fromkeys({**AT_LEAST.get(model, {}), **AT_MOST.get(model, {})}) for model in (*AT_LEAST, *AT_MOST)},
    "history": {"tolerance_ratio": None},
}  # its numbers are random
GENRE_NAMES = ("Action", "Comedy", "Drama", "Thriller", *[""] * (GENRE_SLOTS - 4))


def make(folder: Path, seed: int = 0, tables: Mapping[str, object] | None = None) -> Bundle:
    """A new, unpublished bundle in ``folder``; ``tables`` replaces some of its tables by name.

    Items are ``item-00`` ..., users ``user-0`` ... with ``EVENTS`` events each. Another ``seed`` gives other numbers.
    """
    random = np.random.default_rng(seed)
    scratch = folder.parent / f"{folder.name}.parts"
    scratch.mkdir(parents=True)
    events = _events(random)
    items = _items(random, events)
    side = _item_side(random)
    model = scratch / "model.onnx"
    write_model(model, random, side.rows(items.features, np.empty((ITEMS, 0), np.float32)))
    index = scratch / "index.faiss"
    vectors = random.normal(size=(ITEMS, VECTOR)).astype(np.float32)
    flat = faiss.IndexFlatIP(VECTOR)
    flat.add(vectors / np.linalg.norm(vectors, axis=1, keepdims=True))
    faiss.write_index(flat, str(index))
    made = replace(_tables(random, model, events, items, side), **dict(tables or {}))  # type: ignore[arg-type]  # named by the test
    return write(folder, _manifest(seed), made, index, model)


def write_model(path: Path, random: np.random.Generator, table: Floats) -> None:
    """``score = sigmoid(the item's row + mean of columns x weight + (mean of user + mean of codes) / 10)``."""
    held = {
        TABLE: table,
        "weight": random.normal(size=(len(COLUMNS), 1)).astype(np.float32) / len(COLUMNS),
        "tenth": np.float32(0.1),
        "last": np.array([-1], np.int64),
    }
    nodes = [
        helper.make_node("Gather", [TABLE, "item_row"], ["gathered"]),
        helper.make_node("Squeeze", ["gathered", "last"], ["of_item"]),
        helper.make_node("MatMul", ["columns", "weight"], ["weighted"]),
        helper.make_node("Squeeze", ["weighted", "last"], ["of_columns"]),
        helper.make_node("ReduceMean", ["user"], ["of_user"], axes=[1], keepdims=1),
        helper.make_node("Cast", ["codes"], ["codes_float"], to=TensorProto.FLOAT),
        helper.make_node("ReduceMean", ["codes_float"], ["of_codes"], axes=[1], keepdims=1),
        helper.make_node("Add", ["of_user", "of_codes"], ["of_request"]),
        helper.make_node("Mul", ["of_request", "tenth"], ["request_term"]),
        helper.make_node("Add", ["of_item", "of_columns"], ["item_term"]),
        helper.make_node("Add", ["item_term", "request_term"], ["logit"]),
        helper.make_node("Sigmoid", ["logit"], ["score"]),
    ]
    inputs = [
        helper.make_tensor_value_info("user", TensorProto.FLOAT, ["B", CONTRACT.numeric.width]),
        helper.make_tensor_value_info("codes", TensorProto.INT32, ["B", len(CONTRACT.context)]),
        helper.make_tensor_value_info("item_row", TensorProto.INT32, ["B", "n"]),
        helper.make_tensor_value_info("columns", TensorProto.FLOAT, ["B", "n", len(COLUMNS)]),
    ]
    outputs = [helper.make_tensor_value_info("score", TensorProto.FLOAT, ["B", "n"])]
    initializers = [numpy_helper.from_array(np.asarray(value), name) for name, value in held.items()]
    graph = helper.make_graph(nodes, "tiny_ranker", inputs, outputs, initializers)
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    onnx.checker.check_model(model)
    onnx.save(model, path)


def run_model(path: Path, inputs: Mapping[str, NDArray[np.generic]]) -> Floats:
    """``(B, n)``: what ONNX Runtime says, the reference for every server."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    (score,) = session.run(["score"], dict(inputs))
    return np.asarray(score, np.float32)


def _manifest(seed: int) -> Manifest:
    dataset = DatasetSpec("tiny", "replay", STARTED + USERS * EVENTS * 3600.0, 4.0, 3.5)
    lineage = Lineage("0" * 64, "", time.time(), {"seed": seed, "gates": NO_GATES}, {})
    return Manifest(f"tiny-{seed}", dataset, SOURCES, lineage)


def _tables(random: np.random.Generator, model: Path, events: list[History], items: Items, side: ItemSide) -> Tables:
    tower = _user_tower(random)
    return Tables(
        items=items,
        users=_users(events, items),
        user_tower=tower,
        index=IndexTables(tower.digest()),
        collaborative=_neighbours(random),
        content=_neighbours(random),
        popularity=_popularity(items),
        preference=_preference(items),
        logistic=_logistic(random),
        batch_lists=_batch_lists(random),
        parity=_parity(random, model),
        reference=_reference(random),
        item_side=side,
    )


def _item_side(random: np.random.Generator) -> ItemSide:
    """A row of the table is one number, the item's bias."""
    width = CONTRACT.item.width
    weight = (random.normal(size=(width, 1)) / np.sqrt(width)).astype(np.float32)
    return ItemSide(np.zeros(width, np.float32), np.ones(width, np.float32), weight, np.zeros(1, np.float32))


def _events(random: np.random.Generator) -> list[History]:
    """One history a user, an hour between two events."""
    moments = STARTED + 3600.0 * np.arange(EVENTS)
    stars = np.array([1.0, 3.0, 4.0, 5.0], np.float32)
    return [
        History(
            random.permutation(ITEMS)[:EVENTS].astype(np.int32),
            random.choice(stars, EVENTS),
            (moments + user * EVENTS * 3600.0).astype(np.float64),
        )
        for user in range(USERS)
    ]


def _items(random: np.random.Generator, events: list[History]) -> Items:
    genres = np.zeros((ITEMS, GENRE_SLOTS), np.bool_)
    genres[:, :4] = random.random((ITEMS, 4)) < 0.4
    year = random.integers(1950, 2014, ITEMS).astype(np.float32)
    year[::10] = np.nan
    everything = History(
        np.concatenate([history.item_row for history in events]),
        np.concatenate([history.rating for history in events]),
        np.concatenate([history.timestamp for history in events]),
    )
    return Items(
        ids=IdTable.of(f"item-{row:02d}" for row in range(ITEMS)),
        titles=TextTable.of(f"Title {row:02d} (é)" for row in range(ITEMS)),
        genres=genres,
        genre_names=GENRE_NAMES,
        year=year,
        features=item_features(everything, 4.0, year, genres, float(everything.timestamp[-1]) + 1.0),
        removed=np.arange(ITEMS) == ITEMS - 1,
    )


def _users(events: list[History], items: Items) -> Users:
    total = np.bincount(np.concatenate([history.item_row for history in events]), minlength=len(items))
    facts = ItemFacts(items.year, items.genres, total.astype(np.float32), 4.0)
    as_of = float(events[-1].timestamp[-1]) + 1.0
    return Users(
        ids=IdTable.of(f"user-{row}" for row in range(USERS)),
        features=np.stack([user_features(history, as_of, facts) for history in events]).astype(np.float32),
        indptr=np.arange(USERS + 1, dtype=np.int64) * EVENTS,
        item_row=np.concatenate([history.item_row for history in events]),
        rating=np.concatenate([history.rating for history in events]),
        timestamp=np.concatenate([history.timestamp for history in events]),
        as_of=as_of,
    )


def _user_tower(random: np.random.Generator) -> UserTower:
    width = CONTRACT.numeric.width

    def normal(*shape: int) -> Floats:
        return random.normal(size=shape).astype(np.float32)

    return UserTower(
        embedding=normal(ITEMS, VECTOR),
        mean=np.zeros(width, np.float32),
        scale=np.ones(width, np.float32),
        hidden_weight=normal(HIDDEN, VECTOR + width),
        hidden_bias=normal(HIDDEN),
        out_weight=normal(VECTOR, HIDDEN),
        out_bias=normal(VECTOR),
    )


def _neighbours(random: np.random.Generator) -> Neighbours:
    """Twelve neighbours an item, none of them itself."""
    rows = np.stack([(row + 1 + random.permutation(ITEMS - 1)[:12]) % ITEMS for row in range(ITEMS)])
    weight = random.random((ITEMS, 12)).astype(np.float32)
    return Neighbours(np.arange(ITEMS + 1, dtype=np.int64) * 12, rows.astype(np.int32).ravel(), weight.ravel())


def _popularity(items: Items) -> PopularityTables:
    count = items.features[:, CONTRACT.item.slices["item_events_total_count"].start]
    order: Rows = np.argsort(-count, kind="stable").astype(np.int32)
    return PopularityTables(order, (count[order] + 1.0).astype(np.float32))


def _preference(items: Items) -> PreferenceTables:
    """Every item liked once."""
    return PreferenceTables.of(np.ones(ITEMS), items.genres, 3.0)


def _logistic(random: np.random.Generator) -> LogisticTables:
    width = len(COLUMNS) + CONTRACT.item.width
    weight = (random.normal(size=width) / width).astype(np.float32)
    return LogisticTables(np.zeros(width, np.float32), np.ones(width, np.float32), weight, np.zeros(1, np.float32))


def _batch_lists(random: np.random.Generator) -> BatchListTables:
    rows = np.concatenate([random.permutation(ITEMS)[:25] for _ in range(USERS)]).astype(np.int32)
    score = np.tile(np.linspace(1.0, 0.1, 25, dtype=np.float32), USERS)
    return BatchListTables(np.arange(USERS + 1, dtype=np.int64) * 25, rows, score)


def _parity(random: np.random.Generator, model: Path, p: int = 3, n: int = 20) -> ParityTables:
    user = random.normal(size=(p, CONTRACT.numeric.width)).astype(np.float32)
    codes = random.integers(0, 4, (p, len(CONTRACT.context))).astype(np.int32)
    item_row = np.stack([random.permutation(ITEMS)[:n] for _ in range(p)]).astype(np.int32)
    columns = random.random((p, n, len(COLUMNS))).astype(np.float32)
    score = run_model(model, {"user": user, "codes": codes, "item_row": item_row, "columns": columns})
    return ParityTables(user, codes, item_row, columns, score)


def _reference(random: np.random.Generator) -> ReferenceTables:
    edges = np.sort(random.random((CONTRACT.numeric.width, 9)), axis=1).astype(np.float32)
    nothing = Bins(edges, np.array([1800.0])).none()
    return ReferenceTables(
        edges,
        np.array([1800.0]),
        np.tile(random.multinomial(100, np.full(10, 0.1), CONTRACT.numeric.width), (2, 1, 1)),
        random.integers(0, 50, (2, len(CONTRACT.numeric.features))),
        random.integers(1, 50, (len(nothing.phases), len(nothing.codes))),
    )
