"""Where two feature contracts differ, in words that name the feature."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from features.contract import Contract

GENRE_SLOTS = "genre slots"


@dataclass(frozen=True, slots=True)
class Meaning:
    """All that gives the numbers of a store their meaning: the contract, and what the dataset calls its genre slots."""

    contract: Mapping[str, Sequence[Mapping[str, Any]]]
    genre_names: tuple[str, ...]

    @classmethod
    def of(cls, contract: Contract, genre_names: Sequence[str]) -> Meaning:
        return cls(contract.document(), tuple(genre_names))

    def document(self) -> dict[str, Any]:
        """In JSON's types; the slots are told as one more group of the contract, so that one comparison serves both."""
        slots = [{"name": f"slot {slot}", "value": name} for slot, name in enumerate(self.genre_names)]
        return {**self.contract, GENRE_SLOTS: slots}


def differences(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> list[str]:
    """What of two contracts' documents is not the same, one line a feature or group; empty where nothing differs.

    A document is a list of features for each group, a feature a mapping with a ``name``, as ``Contract.document``
    makes it. Nothing is raised whatever ``theirs`` holds: it comes from a file or a store.
    """
    groups = [*ours, *(group for group in theirs if group not in ours)]
    return [line for group in groups for line in _of_group(group, _named(ours, group), _named(theirs, group))]


def _named(document: Mapping[str, Any], group: str) -> dict[str, Mapping[str, Any]]:
    parts = document.get(group, ())
    parts = parts if isinstance(parts, Sequence) else ()
    return {str(part["name"]): part for part in parts if isinstance(part, Mapping) and "name" in part}


def _of_group(group: str, ours: Mapping[str, Mapping[str, Any]], theirs: Mapping[str, Mapping[str, Any]]) -> list[str]:
    lines = [f"{group}: {name} is only in ours" for name in ours if name not in theirs]
    lines += [f"{group}: {name} is only in theirs" for name in theirs if name not in ours]
    shared = [name for name in ours if name in theirs]
    lines += [f"{group}: {name}: {said}" for name in shared if (said := _of_feature(ours[name], theirs[name]))]
    if not lines and list(ours) != list(theirs):
        moved = next(name for name, other in zip(ours, theirs, strict=True) if name != other)
        lines.append(f"{group}: another order from {moved} on")
    return lines


def _of_feature(ours: Mapping[str, Any], theirs: Mapping[str, Any]) -> str:
    keys = [*ours, *(key for key in theirs if key not in ours)]
    return ", ".join(
        f"{key} is {ours.get(key)!r} here and {theirs.get(key)!r} there"
        for key in keys
        if ours.get(key) != theirs.get(key)
    )
