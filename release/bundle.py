"""The bundle: everything that must match, in one folder with one manifest.

    manifest.json            what this is, where it came from, and the sha256 of every other file
    items/ users/ ...        one ``.npy`` a column, memory-mapped, so that workers share the pages; never a pickle
    two_tower/index.faiss    the item index
    dcn_v2/model.onnx        the ranker, with the item features inside

``Bundle.load`` hashes every file before any parser sees it, and checks that code, manifest and columns agree. A bundle
is never changed once written; publishing adds ``publication.json`` beside the manifest.
"""

from __future__ import annotations

import hashlib
import json
import shutil
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any, TypeVar

import faiss
import numpy as np
from numpy.typing import NDArray

from domain.arrays import Floats, Rows, Seconds
from domain.catalogue import Items, Users
from domain.clock import Clock, LiveClock, ReplayClock
from domain.errors import BundleError
from fallbacks.batch_lists import BatchListTables
from features.contract import CONTRACT
from features.contract_diff import differences
from features.encode import candidate_columns
from ranking.logistic import LogisticTables
from release import columns
from release.item_side import ItemSide
from release.soundness import problems
from retrieval.neighbours import Neighbours
from retrieval.popularity import PopularityTables
from retrieval.preference import PreferenceTables
from retrieval.two_tower import IndexTables, UserTower

MANIFEST = "manifest.json"
PUBLICATION = "publication.json"
INDEX = "two_tower/index.faiss"
MODEL = "dcn_v2/model.onnx"
FORMAT = 2

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class SourceSpec:
    """How deep a source proposes, and how many of its best are sure of a place among the ranked."""

    name: str
    depth: int
    quota: int


@dataclass(frozen=True, slots=True)
class DatasetSpec:
    """What serving has to know of the data that trained the bundle."""

    name: str
    clock: str  # "live" or "replay"
    ended_at: float  # UTC seconds of the last event
    positive_stars: float  # a rating of this and more is positive
    neutral_stars: float  # the mean rating


@dataclass(frozen=True, slots=True)
class Lineage:
    """Where a bundle came from."""

    data_sha256: str
    commit: str
    created_at: float  # UTC seconds
    parameters: Mapping[str, Any]
    metrics: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Manifest:
    """The manifest, without the file table while the bundle is being written."""

    version: str
    dataset: DatasetSpec
    sources: tuple[SourceSpec, ...]  # in the order of the ranker's columns
    lineage: Lineage
    contract_hash: str = CONTRACT.hash
    contract: Mapping[str, Any] = field(default_factory=CONTRACT.document)  # what the hash is of, to name what differs
    columns: tuple[str, ...] = ()  # the candidate columns the rankers were trained on
    format: int = FORMAT
    files: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)  # path -> sha256, bytes


@dataclass(frozen=True, slots=True, eq=False)
class ParityTables:
    """``p`` requests with the scores that DCN-V2 gave them in training; publishing asks Triton for the same."""

    user: Floats  # (p, U) as encoded
    codes: NDArray[np.int32]  # (p, K)
    item_row: Rows  # (p, n)
    columns: Floats  # (p, n, C)
    score: Floats  # (p, n)


@dataclass(frozen=True, slots=True, eq=False)
class ReferenceTables:
    """How the features look at the moments of requests, by what moves with time alone; see ``features.counts``.

    ``S`` ages, ``T`` phases. Columns are in the order of ``CONTRACT.numeric``, codes in that of ``CONTRACT.context``.
    """

    edges: Floats  # (U, b)
    ages: Seconds  # (S - 1,)
    counts: NDArray[np.int64]  # (S, U, b + 1)
    defaults: NDArray[np.int64]  # (S, F)
    codes: NDArray[np.int64]  # (T, C)


@dataclass(frozen=True, slots=True, eq=False)
class Tables:
    """Every column of the bundle."""

    items: Items
    users: Users
    user_tower: UserTower
    index: IndexTables
    collaborative: Neighbours
    content: Neighbours
    popularity: PopularityTables
    preference: PreferenceTables
    logistic: LogisticTables
    batch_lists: BatchListTables
    parity: ParityTables
    reference: ReferenceTables
    item_side: ItemSide


@dataclass(frozen=True, slots=True)
class Publication:
    """When a bundle was published and as which version of the model in Triton."""

    number: int
    published_at: float  # UTC seconds
    accepted_because: str | None = None  # the reason given for publishing what the gates refused


@dataclass(frozen=True, slots=True, eq=False)
class Bundle:
    """A verified bundle. ``publication`` is None until it is published."""

    path: Path
    manifest: Manifest
    tables: Tables
    publication: Publication | None

    @classmethod
    def load(cls, path: Path, *, model: bool = True) -> Bundle:
        """Verify and open the bundle at ``path``; raises ``BundleError``, saying what does not match.

        Without ``model`` the ranker's graph is not looked at: a worker leaves it to Triton, and of a large catalogue it
        is a third of all there is to hash.
        """
        path = path.resolve()
        manifest = read_manifest(path)
        for name, expected in manifest.files.items():
            if model or name != MODEL:
                verify(_inside(path, name), expected["sha256"])
        if manifest.contract_hash != CONTRACT.hash:
            different = differences(CONTRACT.document(), manifest.contract)
            raise BundleError(
                f"{path.name} was made under another feature contract; train a new bundle. What differs (ours is this "
                f"code's): {'; '.join(different) or 'only the hash'}"
            )
        expected_columns = candidate_columns([source.name for source in manifest.sources])
        if manifest.columns != expected_columns:
            raise BundleError(f"{path.name}: its rankers expect other candidate columns than this code makes")
        tables = columns.load(Tables, path, frozenset(manifest.files))
        if unsound := problems(tables):
            raise BundleError(f"{path.name}: {'; '.join(unsound)}")
        _check_index(path, tables)
        if not np.array_equal(tables.index.tower_digest, tables.user_tower.digest()):
            raise BundleError(f"{path.name}: its index was made with another user tower; train both together")
        return cls(path, manifest, tables, read_publication(path))

    @property
    def version(self) -> str:
        return self.manifest.version

    @property
    def index_path(self) -> Path:
        return self.path / INDEX

    @property
    def model_path(self) -> Path:
        return self.path / MODEL

    @property
    def clock(self) -> Clock:
        """The time that belongs to this bundle's data."""
        if self.manifest.dataset.clock == "live":
            return LiveClock()
        published = self.publication.published_at if self.publication else self.manifest.lineage.created_at
        return ReplayClock(published, self.manifest.dataset.ended_at)

    @property
    def watermark(self) -> float:
        """What the user features are as of when they are written now, UTC seconds on the data's clock.

        A live log goes on after the bundle was made, so its features stay as of then. A replayed one is complete:
        nothing is missing up to this moment.
        """
        complete = self.publication is not None and self.manifest.dataset.clock == "replay"
        return self.clock.now(None) if complete else self.tables.users.as_of


def write(folder: Path, manifest: Manifest, tables: Tables, index: Path, model: Path) -> Bundle:
    """Write a bundle into a new ``folder`` and load it back; ``index`` and ``model`` are copied in.

    The version becomes ``<version>-<digest of all files>``, so that equal versions mean equal contents.
    """
    folder.mkdir(parents=True)
    columns.save(tables, folder)
    for source, name in ((index, INDEX), (model, MODEL)):
        (folder / name).parent.mkdir(exist_ok=True)
        shutil.copyfile(source, folder / name)
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    files = {name: {"sha256": sha256(folder / name), "bytes": (folder / name).stat().st_size} for name in names}
    digest = hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()[:10]
    whole = {
        **asdict(manifest),
        "version": f"{manifest.version}-{digest}",
        "columns": candidate_columns([source.name for source in manifest.sources]),
        "files": files,
    }
    (folder / MANIFEST).write_text(json.dumps(whole, indent=1) + "\n")
    return Bundle.load(folder)


def replace_tables(bundle: Bundle, folder: Path, **tables: Any) -> Bundle:
    """A new bundle in ``folder``: the same models with some ``Tables`` exchanged."""
    manifest = replace(bundle.manifest, version=bundle.version.rsplit("-", 1)[0])
    return write(folder, manifest, replace(bundle.tables, **tables), bundle.index_path, bundle.model_path)


def read_manifest(path: Path) -> Manifest:
    """The manifest alone, unverified; raises ``BundleError``."""
    try:
        raw = json.loads((path / MANIFEST).read_text())
        if raw["format"] != FORMAT:
            raise BundleError(f"{path.name}: bundle format {raw['format']}, this code reads {FORMAT}")
        nested = {
            "dataset": DatasetSpec(**raw["dataset"]),
            "sources": tuple(SourceSpec(**source) for source in raw["sources"]),
            "lineage": Lineage(**raw["lineage"]),
            "columns": tuple(raw["columns"]),
            "contract": dict(raw["contract"]),
            "files": {
                name: {"sha256": str(file["sha256"]), "bytes": int(file["bytes"])}
                for name, file in raw["files"].items()
            },
        }
        return Manifest(**{**raw, **nested})
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BundleError(f"{path}: no readable manifest ({error})") from error


def read_publication(path: Path) -> Publication | None:
    """When and as what the bundle was published, or None; raises ``BundleError``."""
    try:
        return Publication(**json.loads((path / PUBLICATION).read_text()))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError) as error:
        raise BundleError(f"{path.name}: {PUBLICATION} cannot be read ({error})") from error


def sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def verify(path: Path, expected: str) -> None:
    """Raise ``BundleError`` unless the file is there and unchanged."""
    try:
        actual = sha256(path)
    except OSError as error:
        raise BundleError(f"{path.name} is missing from the bundle") from error
    if actual != expected:
        raise BundleError(f"{path.name} has changed since the bundle was written (sha256 differs)")


def _inside(folder: Path, name: str) -> Path:
    path = (folder / name).resolve()
    if not path.is_relative_to(folder):
        raise BundleError(f"{folder.name}: its manifest names a file outside the bundle")
    return path


def _check_index(path: Path, tables: Tables) -> None:
    """The index must hold this bundle's items, as vectors that the user tower's can be compared with."""
    try:
        index = faiss.read_index(str(path / INDEX), faiss.IO_FLAG_MMAP)
    except RuntimeError as error:
        raise BundleError(f"{path.name}: {INDEX} is not an index that FAISS can read") from error
    wanted = (len(tables.items), len(tables.user_tower.out_bias))
    if (index.ntotal, index.d) != wanted:
        raise BundleError(f"{path.name}: its index holds {index.ntotal} x {index.d}, not {wanted[0]} x {wanted[1]}")
