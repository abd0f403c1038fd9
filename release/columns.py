"""Frozen dataclasses of columns as a folder: one ``.npy`` an array, one folder a nested table. Never a pickle."""

from __future__ import annotations

import json
from collections.abc import Iterator
from collections.abc import Set as AbstractSet
from dataclasses import fields, is_dataclass
from pathlib import Path
from types import NoneType, UnionType
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import numpy as np
from numpy.typing import NDArray

from domain.errors import BundleError

T = TypeVar("T")


def save(value: object, folder: Path) -> None:
    """One ``.npy`` an array, one folder a nested table, one ``scalars.json`` for the rest; None is left out."""
    folder.mkdir(parents=True, exist_ok=True)
    scalars = {}
    for part in fields(value):  # type: ignore[arg-type]  # only called on dataclasses
        held = getattr(value, part.name)
        if isinstance(held, np.ndarray):
            np.save(folder / f"{part.name}.npy", np.ascontiguousarray(held), allow_pickle=False)
        elif is_dataclass(held):
            save(held, folder / part.name)
        elif held is None:
            continue
        else:
            scalars[part.name] = held
    if scalars:
        (folder / "scalars.json").write_text(json.dumps(scalars))


def load(kind: type[T], folder: Path, vouched: AbstractSet[str], at: str = "") -> T:
    """The counterpart of ``save``: arrays memory-mapped, read-only. Only files that the manifest vouches for."""

    def file(name: str) -> Path:
        if at + name not in vouched:
            raise BundleError(f"{folder.name}: {at}{name} is not in its manifest")
        return folder / at / name

    held: dict[str, Any] = {}
    scalars: dict[str, Any] = {}
    for name, hint, optional in _parts(kind):
        if optional and not any(path.startswith(f"{at}{name}/") for path in vouched):
            continue
        if get_origin(hint) is np.ndarray:
            held[name] = _mapped(file(f"{name}.npy"), get_args(get_args(hint)[1])[0])
        elif is_dataclass(hint):
            held[name] = load(hint, folder, vouched, f"{at}{name}/")  # type: ignore[arg-type]  # a type, no instance
        else:
            scalars = scalars or json.loads(file("scalars.json").read_text())
            held[name] = tuple(scalars[name]) if get_origin(hint) is tuple else scalars[name]
    return kind(**held)


def _mapped(path: Path, kind: type[np.generic]) -> NDArray[Any]:
    """The array in a file, if it holds what its field says, as the compiled loops take it."""
    try:
        # A plain array over the map: ``np.memmap`` is a subclass whose every index and ufunc goes through Python, and
        # whatever is computed from one is one.
        held = np.asarray(np.load(path, mmap_mode="r", allow_pickle=False))
    except ValueError as error:
        raise BundleError(f"{path.name} is not an array ({error})") from error
    if not (issubclass(held.dtype.type, kind) and held.dtype.isnative and held.flags.c_contiguous):
        raise BundleError(f"{path.name} holds {held.dtype}, not {kind.__name__} row by row")
    return held


def _parts(kind: type[Any]) -> Iterator[tuple[str, Any, bool]]:
    """Each field's name and type, and whether it is a table that may be missing: ``Table | None``."""
    hints = get_type_hints(kind)
    for part in fields(kind):
        hint = hints[part.name]
        optional = get_origin(hint) is UnionType
        yield part.name, next(of for of in get_args(hint) if of is not NoneType) if optional else hint, optional
