"""The catalogue renewed: new items stand where their like stand, and nothing else moves but rows."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import faiss
import numpy as np
import onnx
import pytest

from domain.catalogue import IdTable, Items, TextTable
from domain.errors import BundleError
from features.contract import CONTRACT, GENRE_SLOTS
from release.bundle import Bundle
from release.graph import read_table, run
from release.refresh import Catalogue, Move, renew
from retrieval.neighbours import Neighbours
from retrieval.popularity import PopularityTables
from retrieval.preference import PreferenceTables

NEW = ("a-new-first", "item-07-new", "z-new-last")


def with_new_items(bundle: Bundle, *new: str, gone: tuple[str, ...] = ()) -> Catalogue:
    """The bundle's items and others; the new ones are like item-03 and item-04 and nothing else is like anything."""
    old = bundle.tables.items
    ids = IdTable.of([*(old.ids.text(row) for row in range(len(old))), *new])
    n, to = len(ids), ids.rows([old.ids.text(row) for row in range(len(old))])
    features = np.tile(CONTRACT.item.defaults, (n, 1))
    features[to] = old.features
    year = np.full(n, np.nan, np.float32)
    year[to] = old.year
    genres = np.zeros((n, GENRE_SLOTS), np.bool_)
    genres[to] = old.genres
    removed = np.zeros(n, np.bool_)
    removed[to] = old.removed
    removed[ids.rows(list(gone))] = True
    titles = TextTable.of(ids.text(row) for row in range(n))
    items = Items(ids, titles, genres, old.genre_names, year, features, removed)
    rows = ids.rows(list(new))
    alike, liked = _alike(n, rows, ids.rows(["item-03", "item-04"])), PreferenceTables.of(np.ones(n), genres, 3.0)
    return Catalogue(items, alike, _popular(rows, to), liked, "1" * 64, 0.0)


def _alike(n: int, new: np.ndarray, like: np.ndarray) -> Neighbours:
    weights = np.zeros((n, n), np.float32)
    weights[np.ix_(new, like)] = [3.0, 1.0]
    weights[np.ix_(like, new)] = 1.0
    owner, row = np.nonzero(weights)
    indptr = np.concatenate(([0], np.cumsum(np.bincount(owner, minlength=n)))).astype(np.int64)
    return Neighbours(indptr, row.astype(np.int32), weights[owner, row])


def _popular(new: np.ndarray, old: np.ndarray) -> PopularityTables:
    rows = np.concatenate([new, old]).astype(np.int32)
    return PopularityTables(rows, np.linspace(2, 1, len(rows), dtype=np.float32))


@pytest.fixture
def renewed(tiny_bundle: Bundle, tmp_path: Path) -> Bundle:
    return renew(tiny_bundle, with_new_items(tiny_bundle, *NEW, gone=("item-10",)), tmp_path / "renewed")


def test_it_is_a_bundle_of_its_own_that_says_where_it_comes_from(tiny_bundle: Bundle, renewed: Bundle) -> None:
    assert Bundle.load(renewed.path).version == renewed.version != tiny_bundle.version
    assert renewed.manifest.lineage.parameters["refreshed_from"] == tiny_bundle.version
    assert renewed.manifest.lineage.data_sha256 == "1" * 64
    assert len(renewed.tables.items) == len(tiny_bundle.tables.items) + 3


def test_every_row_means_the_item_that_it_meant(tiny_bundle: Bundle, renewed: Bundle) -> None:
    old, new = tiny_bundle.tables, renewed.tables

    def named(items: Items, rows: np.ndarray) -> list[str]:
        return [items.ids.text(row) for row in rows.tolist()]

    for user in range(len(old.users)):
        before, after = old.users.history(user), new.users.history(user)
        assert named(old.items, before.item_row) == named(new.items, after.item_row)
    for row in range(len(old.items)):
        at = new.items.ids.row(old.items.ids.text(row))
        (before_rows, before_weight), (after_rows, after_weight) = old.collaborative.of(row), new.collaborative.of(at)
        assert named(old.items, before_rows) == named(new.items, after_rows)
        np.testing.assert_array_equal(before_weight, after_weight)


def test_known_items_keep_their_vectors_and_scores(tiny_bundle: Bundle, renewed: Bundle) -> None:
    old, new = tiny_bundle.tables, renewed.tables
    to = Move.between(old.items, new.items).to
    np.testing.assert_array_equal(new.user_tower.embedding[to], old.user_tower.embedding)
    np.testing.assert_array_equal(vectors(renewed)[to], vectors(tiny_bundle))
    before, after = (read_table(onnx.load(bundle.model_path)) for bundle in (tiny_bundle, renewed))
    np.testing.assert_allclose(after[to], before, atol=1e-6)
    parity = old.parity
    inputs = {"user": parity.user, "codes": parity.codes, "item_row": to[parity.item_row], "columns": parity.columns}
    score = run(renewed.model_path, {name: np.ascontiguousarray(values) for name, values in inputs.items()})
    np.testing.assert_allclose(score, parity.score, atol=1e-5)


def vectors(bundle: Bundle) -> np.ndarray:
    index = faiss.read_index(str(bundle.index_path))
    return np.asarray(index.reconstruct_n(0, index.ntotal))


def test_a_new_item_stands_where_its_like_stand(renewed: Bundle) -> None:
    ids = renewed.tables.items.ids
    near, far = ids.rows(["item-03", "item-04"]).tolist()
    for table in (vectors(renewed), renewed.tables.user_tower.embedding):
        for name in NEW:
            np.testing.assert_allclose(table[ids.row(name)], 0.75 * table[near] + 0.25 * table[far], rtol=1e-5)


def test_an_item_like_no_other_stands_in_the_middle(tiny_bundle: Bundle, tmp_path: Path) -> None:
    catalogue = with_new_items(tiny_bundle, "stranger")
    n = len(catalogue.items)
    nothing = Neighbours(np.zeros(n + 1, np.int64), np.empty(0, np.int32), np.empty(0, np.float32))
    renewed = renew(tiny_bundle, replace(catalogue, content=nothing), tmp_path / "renewed")
    embedding = renewed.tables.user_tower.embedding
    row = renewed.tables.items.ids.row("stranger")
    np.testing.assert_allclose(embedding[row], tiny_bundle.tables.user_tower.embedding.mean(axis=0), rtol=1e-5)


def test_triton_is_asked_for_new_items_too(renewed: Bundle) -> None:
    asked = {renewed.tables.items.ids.text(row) for row in np.unique(renewed.tables.parity.item_row).tolist()}
    assert set(NEW) <= asked


def test_lists_hold_what_is_new_for_the_user_and_nothing_withdrawn(tiny_bundle: Bundle, renewed: Bundle) -> None:
    items, users, lists = renewed.tables.items, renewed.tables.users, renewed.tables.batch_lists
    withdrawn, new = items.ids.row("item-10"), items.ids.rows(list(NEW))
    speakers = items.ids.rows(["item-03", "item-04"])
    met = 0
    for user in range(len(users)):
        span = slice(int(lists.indptr[user]), int(lists.indptr[user + 1]))
        listed, history = lists.item_row[span], users.history(user)
        liked = history.item_row[history.rating >= 4.0]
        expected = set(new.tolist()) if np.isin(speakers, liked).any() else set()
        assert set(listed.tolist()) & set(new.tolist()) == expected
        assert withdrawn not in listed
        assert len(np.unique(listed)) == len(listed)
        assert (np.diff(lists.score[span]) <= 0).all()
        met += bool(expected)
    assert met
    assert len(lists.indptr) == len(tiny_bundle.tables.users) + 1


def test_the_popular_list_begins_with_what_is_popular_now(renewed: Bundle) -> None:
    top = [renewed.tables.items.ids.text(row) for row in renewed.tables.popularity.item_row[:3].tolist()]
    assert top == list(NEW)


def test_an_inverted_index_keeps_its_cells(tiny_bundle: Bundle, tmp_path: Path) -> None:
    from release.bundle import write

    inverted = faiss.index_factory(8, "IVF4,Flat", faiss.METRIC_INNER_PRODUCT)
    inverted.train(vectors(tiny_bundle))
    inverted.add(vectors(tiny_bundle))
    faiss.extract_index_ivf(inverted).nprobe = 3
    faiss.write_index(inverted, str(tmp_path / "ivf"))
    manifest = replace(tiny_bundle.manifest, version="ivf", files={})
    bundle = write(tmp_path / "ivf-bundle", manifest, tiny_bundle.tables, tmp_path / "ivf", tiny_bundle.model_path)
    renewed = renew(bundle, with_new_items(bundle, *NEW), tmp_path / "renewed")
    index = faiss.read_index(str(renewed.index_path))
    assert index.ntotal == len(renewed.tables.items)
    assert faiss.extract_index_ivf(index).nprobe == 3
    to = Move.between(bundle.tables.items, renewed.tables.items).to
    np.testing.assert_array_equal(vectors(renewed)[to], vectors(bundle))


def test_a_catalogue_that_forgot_an_item_is_refused(tiny_bundle: Bundle, tmp_path: Path) -> None:
    catalogue = with_new_items(tiny_bundle)
    fewer = replace(catalogue.items, ids=IdTable.of(["item-00"]))
    with pytest.raises(BundleError, match="must keep"):
        renew(tiny_bundle, replace(catalogue, items=fewer), tmp_path / "renewed")
