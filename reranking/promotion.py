"""Promotion: campaign items at the slots they were sold for."""

from __future__ import annotations

import tomllib
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np

from domain.catalogue import IdTable
from domain.errors import StartError
from domain.slate import Campaign, Slate


@dataclass(frozen=True, slots=True)
class Promotion:
    """Each active campaign's best-scored candidates move to its slots; everything else keeps its order.

    The items must be among the candidates: the pipeline adds active campaigns' items before ranking, so they are scored
    like any other, and the seen and excluded ones are gone already. The first campaign to name a slot has it. This rule
    comes last, so that no other one moves what it placed.
    """

    name: str = "promotion"

    def apply(self, slate: Slate) -> Slate:
        wanted = self._placements(slate)
        if not wanted:
            return slate
        rows = slate.candidates.item_row
        slots = np.array(sorted(wanted))
        positions = np.array([wanted[slot] for slot in slots.tolist()])
        rest = np.delete(np.arange(len(rows)), positions)
        order = np.insert(rest, slots - np.arange(len(slots)), positions)
        return slate.reordered(order, self.name, rows[positions])

    @staticmethod
    def _placements(slate: Slate) -> dict[int, int]:
        """Slot -> position of the candidate to put there."""
        rows = slate.candidates.item_row
        wanted: dict[int, int] = {}
        for campaign in slate.context.campaigns:
            if campaign.active(slate.context.now):
                slots = [slot for slot in campaign.slots if slot < min(slate.limit, len(rows)) and slot not in wanted]
                positions = np.flatnonzero(np.isin(rows, campaign.item_row)).tolist()
                free = [position for position in positions if position not in wanted.values()]
                wanted |= dict(zip(slots, free, strict=False))
        return wanted


def read_campaigns(path: Path, ids: IdTable) -> tuple[Campaign, ...]:
    """The campaigns of a TOML file, for the items that this bundle knows; raises ``StartError`` on a bad file.

    One ``[[campaign]]`` table each: ``name``, ``item_ids``, ``slots`` (0 is the first place), ``starts_at`` and
    ``ends_at`` (TOML date-times with an offset).
    """
    try:
        tables = tomllib.loads(path.read_text())["campaign"]
        return tuple(_campaign(table, ids) for table in tables)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise StartError(f"campaign file {path}: {type(error).__name__}: {error}") from error


def _campaign(table: dict[str, object], ids: IdTable) -> Campaign:
    def moment(key: str) -> float:
        at = table[key]
        if not isinstance(at, datetime) or at.tzinfo is None:
            raise ValueError(f"{key} must be a date-time with an offset")
        return at.timestamp()

    def listed(key: str, kind: type) -> Sequence[object]:
        values = table[key]
        if not isinstance(values, list) or not all(type(value) is kind for value in values):
            raise ValueError(f"{key} must be a list of {kind.__name__}")
        return values

    rows = ids.rows([str(item_id) for item_id in listed("item_ids", str)])
    slots = tuple(int(str(slot)) for slot in listed("slots", int))
    if any(slot < 0 for slot in slots):
        raise ValueError("slots count from 0")
    return Campaign(str(table["name"]), rows[rows >= 0], slots, moment("starts_at"), moment("ends_at"))
