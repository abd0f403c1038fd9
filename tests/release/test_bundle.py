import json
import shutil
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.catalogue import Facets
from domain.clock import ReplayClock
from domain.errors import BundleError
from release.bundle import MANIFEST, PUBLICATION, Bundle, replace_tables
from tests import tiny_bundle as tiny


@pytest.fixture
def folder(tiny_bundle: Bundle, tmp_path: Path) -> Path:
    """A copy that a test may spoil."""
    return shutil.copytree(tiny_bundle.path, tmp_path / "bundle")


def edit(path: Path, **changes: object) -> None:
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def test_what_was_written_is_what_is_loaded(tiny_bundle: Bundle, folder: Path) -> None:
    loaded = Bundle.load(folder)
    assert loaded.version == tiny_bundle.version
    assert loaded.tables.items.titles.text(3) == "Title 03 (é)"
    assert loaded.tables.items.genre_names == tiny.GENRE_NAMES
    assert np.array_equal(loaded.tables.users.features, tiny_bundle.tables.users.features)


def test_optional_columns_of_the_items_come_back_and_may_be_missing(tmp_path: Path, tiny_bundle: Bundle) -> None:
    items = tiny_bundle.tables.items
    assert items.facets is None
    n = len(items)
    codes, ages = np.arange(n, dtype=np.int32), np.full(n, 12, np.float32)
    facets = Facets(codes, ("x",) * n, codes, (), ages, True, np.ones((n, 1), np.bool_), ("DE",), np.zeros(n))
    made = tiny.make(tmp_path / "faceted", tables={"items": replace(items, facets=facets)})
    loaded = Bundle.load(made.path).tables.items.facets
    assert loaded is not None
    assert loaded.region_names == ("DE",)
    assert loaded.rated
    assert np.array_equal(loaded.age_rating, ages)


def test_columns_are_memory_mapped_and_cannot_be_written(folder: Path) -> None:
    weight = Bundle.load(folder).tables.collaborative.weight
    assert type(weight) is np.ndarray  # a plain one, over the map
    assert isinstance(weight.base, np.memmap)
    with pytest.raises(ValueError, match="read-only"):
        weight[0] = 1.0


def test_one_flipped_byte_anywhere_is_refused(folder: Path) -> None:
    for name in json.loads((folder / MANIFEST).read_text())["files"]:
        path = folder / name
        whole = path.read_bytes()
        path.write_bytes(whole[:-1] + bytes([whole[-1] ^ 1]))
        with pytest.raises(BundleError, match="has changed"):
            Bundle.load(folder)
        path.write_bytes(whole)
    Bundle.load(folder)


def test_an_index_beside_the_tower_of_another_version_is_refused(tiny_bundle: Bundle, tmp_path: Path) -> None:
    other = tiny.make(tmp_path / "other", seed=1)
    with pytest.raises(BundleError, match="its index was made with another user tower"):
        replace_tables(tiny_bundle, tmp_path / "mixed", user_tower=other.tables.user_tower)
    both = {"user_tower": other.tables.user_tower, "index": other.tables.index}
    assert replace_tables(tiny_bundle, tmp_path / "whole", **both).version != tiny_bundle.version


def test_a_missing_file_is_named(folder: Path) -> None:
    (folder / "popularity" / "score.npy").unlink()
    with pytest.raises(BundleError, match=r"score\.npy is missing"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({"contract_hash": "0" * 16}, "feature contract"),
        ({"columns": ["two_tower_score"]}, "candidate columns"),
        ({"format": 99}, "format 99"),
        ({"files": None}, "manifest"),
        ({"dataset": {}}, "manifest"),
    ],
)
def test_a_bundle_made_under_other_terms_is_refused(folder: Path, change: dict[str, object], told: str) -> None:
    edit(folder / MANIFEST, **change)
    with pytest.raises(BundleError, match=told):
        Bundle.load(folder)


def test_a_manifest_cannot_name_files_outside_its_folder(folder: Path) -> None:
    edit(folder / MANIFEST, files={"../../etc/passwd": {"sha256": "0", "bytes": 1}})
    with pytest.raises(BundleError, match="outside"):
        Bundle.load(folder)


def test_a_table_that_no_manifest_vouches_for_is_not_read(folder: Path) -> None:
    manifest = json.loads((folder / MANIFEST).read_text())
    del manifest["files"]["items/year.npy"]
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"year\.npy"):
        Bundle.load(folder)


def test_tables_of_different_lengths_are_refused(tiny_bundle: Bundle, tmp_path: Path) -> None:
    short = replace(tiny_bundle.tables.user_tower, embedding=tiny_bundle.tables.user_tower.embedding[:-1])
    with pytest.raises(BundleError, match=r"user_tower\.embedding is 49, not 50"):
        tiny.make(tmp_path / "short", tables={"user_tower": short})


def test_a_pickle_is_never_read(folder: Path) -> None:
    path = folder / "items" / "year.npy"
    np.save(path, np.array([{"a": 1}], object), allow_pickle=True)
    from release.bundle import sha256

    manifest = json.loads((folder / MANIFEST).read_text())
    manifest["files"]["items/year.npy"]["sha256"] = sha256(path)
    (folder / MANIFEST).write_text(json.dumps(manifest))
    with pytest.raises(BundleError, match=r"year\.npy"):
        Bundle.load(folder)


def test_equal_contents_have_equal_versions_and_others_do_not(tiny_bundle: Bundle, tmp_path: Path) -> None:
    assert tiny.make(tmp_path / "same").version == tiny_bundle.version
    assert tiny.make(tmp_path / "other", seed=1).version != tiny_bundle.version


def test_a_replayed_bundle_goes_on_from_its_publication(folder: Path) -> None:
    (folder / PUBLICATION).write_text('{"number": 7, "published_at": 1000.0}')
    bundle = Bundle.load(folder)
    assert bundle.publication is not None
    assert bundle.publication.number == 7
    assert bundle.clock == ReplayClock(1000.0, bundle.manifest.dataset.ended_at)


def test_an_unreadable_publication_is_refused(folder: Path) -> None:
    (folder / PUBLICATION).write_text("{}")
    with pytest.raises(BundleError, match="publication"):
        Bundle.load(folder)


def test_features_of_a_replayed_bundle_are_complete_up_to_now(tiny_bundle: Bundle, folder: Path) -> None:
    assert tiny_bundle.watermark == tiny_bundle.tables.users.as_of
    (folder / PUBLICATION).write_text('{"number": 7, "published_at": 1000.0}')
    published = Bundle.load(folder)
    assert published.watermark > published.manifest.dataset.ended_at + 1e9


def test_another_contract_is_refused_by_the_name_of_the_feature(folder: Path) -> None:
    contract = json.loads((folder / MANIFEST).read_text())["contract"]
    contract["session"][1]["unit"] = "minutes"
    edit(folder / MANIFEST, contract_hash="0" * 16, contract=contract)
    with pytest.raises(BundleError, match="session_length_seconds: unit is 'seconds' here and 'minutes' there"):
        Bundle.load(folder)


@pytest.mark.parametrize(
    ("part", "column", "spoil", "told"),
    [
        ("collaborative", "item_row", lambda rows: rows + 50, "collaborative names items that are not there"),
        ("content", "item_row", lambda rows: rows - 50, "content names items that are not there"),
        ("users", "item_row", lambda rows: rows + 50, r"users\.history names items that are not there"),
        ("batch_lists", "item_row", lambda rows: rows + 50, "batch_lists names items that are not there"),
        ("popularity", "item_row", lambda rows: rows + 50, "popularity names items that are not there"),
        ("preference", "item_row", lambda rows: rows + 50, "preference names items that are not there"),
        ("content", "indptr", lambda indptr: indptr[::-1].copy(), "content: its spans do not cover its columns"),
        ("collaborative", "weight", lambda weight: weight[:-1], "collaborative: its spans do not cover its columns"),
        ("users", "rating", lambda rating: rating[:-1], r"users\.history: its spans do not cover its columns"),
        ("preference", "given_genre", lambda given: given[:-1], r"preference\.given_genre is"),
        ("items", "genres", lambda genres: genres[:, :-1], r"items\.genres is"),
        ("users", "item_row", lambda rows: rows.astype(np.int64), r"item_row\.npy holds int64, not int32"),
        ("items", "year", lambda year: year.astype(">f4"), r"year\.npy holds >f4"),
    ],
)
def test_tables_that_do_not_fit_are_refused_before_anything_is_computed_with_them(
    tiny_bundle: Bundle, tmp_path: Path, part: str, column: str, spoil: Callable[[Any], Any], told: str
) -> None:
    table = getattr(tiny_bundle.tables, part)
    spoiled = replace(table, **{column: spoil(getattr(table, column))})
    with pytest.raises(BundleError, match=told):
        tiny.make(tmp_path / "spoiled", tables={part: spoiled})
