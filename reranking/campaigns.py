"""The campaign file: what is promoted, where, when, and how often at most."""

from __future__ import annotations

import math
import tomllib
from collections.abc import Mapping
from datetime import datetime
from pathlib import Path

from domain.catalogue import IdTable
from domain.errors import StartError
from domain.slate import Campaign

KEYS = {"name", "item_ids", "slots", "boost", "starts_at", "ends_at", "daily_cap", "budget"}


def read_campaigns(path: Path, ids: IdTable) -> tuple[Campaign, ...]:
    """The campaigns of a TOML file, for the items that this bundle knows; raises ``StartError`` on a bad file.

    One ``[[campaign]]`` table each: ``name``, ``item_ids``, ``slots`` (0 is the first place) or ``boost``,
    ``starts_at`` and ``ends_at`` (TOML date-times with an offset), and, where there is a limit to the impressions,
    ``daily_cap`` a user and ``budget`` in all.
    """
    try:
        tables = tomllib.loads(path.read_text())["campaign"]
        campaigns = tuple(_campaign(table, ids) for table in tables)
    except (OSError, KeyError, TypeError, ValueError, AttributeError) as error:
        raise StartError(f"campaign file {path}: {type(error).__name__}: {error}") from error
    if len({campaign.name for campaign in campaigns}) < len(campaigns):
        raise StartError(f"campaign file {path}: two campaigns have one name")
    return campaigns


def _campaign(table: Mapping[str, object], ids: IdTable) -> Campaign:
    if not table.keys() <= KEYS:
        raise ValueError(f"unknown key; known are {', '.join(sorted(KEYS))}")
    rows = ids.rows([str(item_id) for item_id in _list(table, "item_ids", str)])
    slots = tuple(int(str(slot)) for slot in _list(table, "slots", int)) if "slots" in table else ()
    if any(slot < 0 for slot in slots):
        raise ValueError("slots count from 0")
    boost = _boost(table)
    if not slots and not boost:
        raise ValueError("a campaign needs slots or a boost")
    return Campaign(
        str(table["name"]),
        rows[rows >= 0],
        slots,
        _moment(table, "starts_at"),
        _moment(table, "ends_at"),
        boost,
        _count(table, "daily_cap"),
        _count(table, "budget"),
    )


def _moment(table: Mapping[str, object], key: str) -> float:
    at = table[key]
    if not isinstance(at, datetime) or at.tzinfo is None:
        raise ValueError(f"{key} must be a date-time with an offset")
    return at.timestamp()


def _list(table: Mapping[str, object], key: str, kind: type) -> list[object]:
    values = table[key]
    if not isinstance(values, list) or not all(type(value) is kind for value in values):
        raise ValueError(f"{key} must be a list of {kind.__name__}")
    return values


def _boost(table: Mapping[str, object]) -> float:
    boost = table.get("boost", 0.0)
    if isinstance(boost, bool) or not isinstance(boost, int | float) or not 0 <= boost < math.inf:
        raise ValueError("boost must be a number of at least 0")
    return float(boost)


def _count(table: Mapping[str, object], key: str) -> int | None:
    value = table.get(key)
    if value is None:
        return None
    if type(value) is not int or value < 0:
        raise ValueError(f"{key} must be a whole number of impressions")
    return value
