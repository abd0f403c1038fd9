"""A bundle's catalogue layer renewed without training: new items, new counts, items withdrawn, the same models.

What is learned stays: the user tower, DCN-V2's weights, the logistic regression, what items say of each other in
collaborative retrieval. What depends on the catalogue is computed anew. An item that no model has met stands where its
nearest items by content stand: each of its learned vectors is their weighted mean. Rows move, because the item table is
ordered by id; everything that holds rows moves with them.
"""

from __future__ import annotations

import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import faiss
import numpy as np
import onnx
from numpy.typing import NDArray

from domain.arrays import Floats, Mask, Rows
from domain.catalogue import History, Items, Users
from domain.errors import BundleError
from fallbacks.batch_lists import BatchListTables
from features.definitions import positive
from release.bundle import Bundle, ParityTables, Tables, write
from release.gates import JUDGED
from release.graph import put_table, read_table, run
from retrieval.neighbours import Neighbours
from retrieval.popularity import PopularityTables
from retrieval.preference import PreferenceTables
from retrieval.two_tower import IndexTables

NEW_PLACE = 5
"""In a precomputed list every so many places hold a new item, while there are any that the user's likes speak for."""
NEW_A_LIST = 20


@dataclass(frozen=True, slots=True, eq=False)
class Catalogue:
    """The items of now. Every item of the bundle is among them, those no longer offered as removed."""

    items: Items
    content: Neighbours
    popularity: PopularityTables
    preference: PreferenceTables
    data_sha256: str
    as_of: float  # UTC seconds of the last event that was counted


@dataclass(frozen=True, slots=True, eq=False)
class Move:
    """Where the bundle's items are now: ``to`` ``(old,)`` ascending; ``known`` ``(n,)`` which rows are theirs."""

    to: Rows
    known: Mask

    @classmethod
    def between(cls, old: Items, new: Items) -> Move:
        """Raises ``BundleError`` if an item of ``old`` is not among the new."""
        to = new.ids.rows([old.ids.text(row) for row in range(len(old))])
        if (to < 0).any():
            raise BundleError("a catalogue must keep the items of the bundle, as removed where they are")
        known = np.zeros(len(new), np.bool_)
        known[to] = True
        return cls(to, known)

    @property
    def new(self) -> Rows:
        """The rows of the items that no model has met."""
        return np.flatnonzero(~self.known).astype(np.int32)

    def neighbours(self, old: Neighbours) -> Neighbours:
        """The same neighbours under the new rows; a new item has none. Rows only spread, so their order stays."""
        return Neighbours(self._indptr(old.indptr), self.to[old.item_row], old.weight)

    def _indptr(self, old: NDArray[np.int64]) -> NDArray[np.int64]:
        lengths = np.zeros(len(self.known), np.int64)
        lengths[self.to] = np.diff(old)
        return np.concatenate(([0], np.cumsum(lengths)))

    def grown(self, old: Floats, content: Neighbours) -> Floats:
        """``(n, d)`` learned vectors: those of known items as they were, of new ones the mean of their like."""
        grown = np.zeros((len(self.known), old.shape[1]), np.float32)
        grown[self.to] = old
        usual = old.mean(axis=0)
        for row in self.new.tolist():
            near, weight = content.of(row)
            met = self.known[near]
            grown[row] = np.average(grown[near[met]], axis=0, weights=weight[met]) if met.any() else usual
        return grown


def renew(bundle: Bundle, catalogue: Catalogue, folder: Path) -> Bundle:
    """The bundle over the items of ``catalogue``, written into the new ``folder``."""
    move, old = Move.between(bundle.tables.items, catalogue.items), bundle.tables
    with tempfile.TemporaryDirectory() as scratch:
        index, model = Path(scratch, "index.faiss"), Path(scratch, "model.onnx")
        _renew_index(bundle, catalogue, move, index)
        _renew_model(bundle, catalogue, move, model)
        users = replace(old.users, item_row=move.to[old.users.item_row])
        tower = replace(old.user_tower, embedding=move.grown(old.user_tower.embedding, catalogue.content))
        tables = Tables(
            items=catalogue.items,
            users=users,
            user_tower=tower,
            index=IndexTables(tower.digest()),
            collaborative=move.neighbours(old.collaborative),
            content=catalogue.content,
            popularity=catalogue.popularity,
            preference=catalogue.preference,
            logistic=old.logistic,
            batch_lists=_lists(bundle, users, catalogue, move),
            parity=_parity(old.parity, move, model),
            reference=old.reference,
            item_side=old.item_side,
        )
        lineage = bundle.manifest.lineage
        parameters = {**lineage.parameters, **_judged(bundle), "refreshed_from": bundle.version}
        parameters["catalogue_as_of"] = catalogue.as_of
        manifest = replace(
            bundle.manifest,
            version=bundle.version.rsplit("-", 1)[0],
            lineage=replace(lineage, data_sha256=catalogue.data_sha256, parameters=parameters),
        )
        return write(folder, manifest, tables, index, model)


def _judged(bundle: Bundle) -> dict[str, object]:
    """What was decided about the models when they were published; nothing where they never were, so gates ask anew."""
    published = bundle.publication
    return {} if published is None else {JUDGED: {"accepted_because": published.accepted_because}}


def _renew_index(bundle: Bundle, catalogue: Catalogue, move: Move, path: Path) -> None:
    """The same kind of index, with the same cells where it has any, over the vectors of now."""
    index = faiss.read_index(str(bundle.index_path))
    vectors = np.asarray(index.reconstruct_n(0, index.ntotal), np.float32)
    index.reset()
    index.add(move.grown(vectors, catalogue.content))
    faiss.write_index(index, str(path))


def _renew_model(bundle: Bundle, catalogue: Catalogue, move: Move, path: Path) -> None:
    """The graph with another item table, computed by the item side as the export did."""
    model, side = onnx.load(bundle.model_path), bundle.tables.item_side
    embedding = move.grown(side.embedding(read_table(model)), catalogue.content)
    put_table(model, side.rows(catalogue.items.features, embedding))
    onnx.save(model, path)


def _parity(old: ParityTables, move: Move, model: Path) -> ParityTables:
    """The same requests, some of them for new items, with what the new graph answers."""
    item_row = move.to[old.item_row]
    new = move.new[: item_row.shape[1] // 2]
    item_row[:, : len(new)] = new
    inputs = {"user": old.user, "codes": old.codes, "item_row": item_row, "columns": old.columns}
    score = run(model, {name: np.ascontiguousarray(values) for name, values in inputs.items()})
    return replace(old, item_row=item_row, score=score)


def _lists(bundle: Bundle, users: Users, catalogue: Catalogue, move: Move) -> BatchListTables:
    """Each user's list without what is withdrawn, with new items that are like what the user likes among it."""
    old = bundle.tables.batch_lists
    owner = np.repeat(np.arange(len(users)), np.diff(old.indptr))
    rows = move.to[old.item_row]
    kept = catalogue.items.eligible[rows]
    place = np.arange(len(rows)) - old.indptr[owner].astype(np.float64)
    new_owner, new_row, nth = _new_for_users(users, catalogue, move, bundle.manifest.dataset.positive_stars)
    listed = np.diff(old.indptr)[new_owner] > 0
    new_owner, new_row, nth = new_owner[listed], new_row[listed], nth[listed]
    new_place = nth * (NEW_PLACE - 1) + NEW_PLACE - 1.5  # between two places of the list as it was
    owners = np.concatenate([owner[kept], new_owner])
    places = np.concatenate([place[kept], new_place])
    scores = np.concatenate([old.score[kept], np.full(len(new_row), np.inf, np.float32)])
    order = np.lexsort((places, owners))
    indptr = np.concatenate(([0], np.cumsum(np.bincount(owners, minlength=len(users)))))
    merged = np.concatenate([rows[kept], new_row])[order].astype(np.int32)
    return BatchListTables(indptr.astype(np.int64), merged, _descending(scores[order], owners[order]))


def _descending(score: Floats, owner: NDArray[np.intp]) -> Floats:
    """A new item has the score of the item before it in the same list; at the head of one, zero."""
    at = np.where(np.isfinite(score), np.arange(len(score)), -1)
    before = np.maximum.accumulate(at) if len(at) else at
    same = (before >= 0) & (owner[before] == owner)
    return np.where(same, score[before], 0.0).astype(np.float32)


def _new_for_users(
    users: Users, catalogue: Catalogue, move: Move, positive_stars: float
) -> tuple[NDArray[np.intp], Rows, NDArray[np.int64]]:
    """Owner, row and place (0 is the best) of the new items that users' likes speak for by content, best first.

    Only the entries of the content table that lead to new items are looked at, for all users in one pass.
    """
    leads = ~move.known[catalogue.content.item_row] & catalogue.items.eligible[catalogue.content.item_row]
    speaker = np.repeat(np.arange(len(catalogue.content)), np.diff(catalogue.content.indptr))[leads]
    target, weight = catalogue.content.item_row[leads], catalogue.content.weight[leads]
    start = np.searchsorted(speaker, np.arange(len(catalogue.content) + 1))
    likes = positive(_all_events(users), positive_stars)
    owner = np.repeat(np.arange(len(users)), np.diff(users.indptr))[likes]
    item = users.item_row[likes]
    count = start[item + 1] - start[item]
    entry = np.repeat(start[item] - np.concatenate(([0], np.cumsum(count)[:-1])), count) + np.arange(count.sum())
    pair, at = np.unique(np.repeat(owner, count) * len(catalogue.items) + target[entry], return_inverse=True)
    score = np.bincount(at, weight[entry], minlength=len(pair))
    owner, row = pair // len(catalogue.items), pair % len(catalogue.items)
    order = np.lexsort((-score, owner))
    owner, row = owner[order], row[order]
    first = np.searchsorted(owner, owner)
    place = np.arange(len(owner)) - first
    best = place < NEW_A_LIST
    return owner[best], row[best].astype(np.int32), place[best]


def _all_events(users: Users) -> History:
    return History(users.item_row, users.rating, users.timestamp)
