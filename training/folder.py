"""The files of a dataset folder: opened, with their columns and types checked, and nothing else.

dataset.toml       name, clock ("live" or "replay"), and under [positive] ``rating`` (stars) or ``events`` (words)
items.parquet      item_id, title, and any of genres (list of text), year, creator_id, language, age_rating (years),
                   regions (list of text; none: everywhere), published_at
ratings.parquet    user_id, item_id, timestamp, rating          or
events.parquet     user_id, item_id, timestamp, event
users.parquet      user_id; optional, for users who have done nothing yet
"""

from __future__ import annotations

import tomllib
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from domain.arrays import Seconds

SETTINGS = "dataset.toml"
ITEMS, USERS, RATINGS, EVENTS = (f"{table}.parquet" for table in ("items", "users", "ratings", "events"))
CLOCKS = ("live", "replay")
FACETS = {
    "creator_id": "text",
    "language": "text",
    "age_rating": "number",
    "regions": "list",
    "published_at": "time",
}
"""Optional columns of the items, and their kinds: what re-ranking may go by."""
KINDS = {
    "text": "text",
    "number": "a number",
    "time": "a timestamp or a number of UTC seconds",
    "list": "a list of text",
}

Tables: TypeAlias = dict[str, pa.Table]
"""File name -> table, for the files that are there and in order."""


@dataclass(frozen=True, slots=True)
class Settings:
    """The content of ``dataset.toml``."""

    name: str
    clock: str
    positive_stars: float  # a rating of this and more is positive
    positive_events: tuple[str, ...]


@dataclass(slots=True)
class Report:
    """What ``validate`` found. Problems forbid training; warnings do not."""

    folder: str
    problems: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)
    untrained: list[str] = field(default_factory=list)  # contract features without a column to learn from

    @property
    def usable(self) -> bool:
        return not self.problems

    def __str__(self) -> str:
        """The report as a person reads it."""
        counted = ", ".join(f"{count:,} {what}" for what, count in self.counts.items())
        lines = [f"{self.folder}: {counted}"] if counted else [self.folder]
        lines += [f"  problem: {problem}" for problem in self.problems]
        lines += [f"  warning: {warning}" for warning in self.warnings]
        lines += [f"  untrained (always the contract's default): {', '.join(self.untrained)}"] if self.untrained else []
        return "\n".join([*lines, "  usable" if self.usable else "  not usable"])


def read_settings(folder: Path, report: Report) -> Settings | None:
    """``dataset.toml``, or None with the reason among the problems."""
    try:
        raw = tomllib.loads((folder / SETTINGS).read_text("utf-8"))
    except FileNotFoundError:
        report.problems.append(f"{SETTINGS} is missing: it must say name, clock and what counts as positive")
        return None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        report.problems.append(f"{SETTINGS} cannot be read: {error}")
        return None
    found = _settings_problems(raw)
    if found:
        report.problems += found
        return None
    positive = raw["positive"]
    return Settings(raw["name"], raw["clock"], float(positive.get("rating", 4.0)), tuple(positive.get("events", ())))


def _settings_problems(raw: dict[str, Any]) -> list[str]:
    problems = []
    if not isinstance(raw.get("name"), str) or not raw["name"]:
        problems.append(f"{SETTINGS}: name is missing or not a text")
    if raw.get("clock") not in CLOCKS:
        problems.append(f"{SETTINGS}: clock must be one of {', '.join(CLOCKS)}")
    positive = raw.get("positive")
    if not isinstance(positive, dict) or not ({"rating", "events"} & positive.keys()):
        return [*problems, f"{SETTINGS}: [positive] must give rating (stars) or events (a list of words)"]
    stars, words = positive.get("rating", 4.0), positive.get("events", [])
    if isinstance(stars, bool) or not isinstance(stars, int | float) or not 0 <= stars <= 5:
        problems.append(f"{SETTINGS}: positive.rating must be a number from 0 to 5")
    if not isinstance(words, list) or not all(isinstance(word, str) for word in words):
        problems.append(f"{SETTINGS}: positive.events must be a list of texts")
    return problems


def open_tables(folder: Path, report: Report) -> Tables:
    """The Parquet files that can be opened and have the columns they must; the rest are told as problems."""
    if not (folder / RATINGS).exists() and not (folder / EVENTS).exists():
        report.problems.append(f"neither {RATINGS} nor {EVENTS} is there")
    log = RATINGS if (folder / RATINGS).exists() else EVENTS
    opened = {name: _open(folder / name, needed, report) for name, needed in _needed(folder, log).items()}
    return {name: table for name, table in opened.items() if table is not None}


def _needed(folder: Path, log: str) -> dict[str, dict[str, str]]:
    """The columns each file must have, and their kinds."""
    last = {"rating": "number"} if log == RATINGS else {"event": "text"}
    needed = {ITEMS: {"item_id": "text", "title": "text"}}
    if (folder / log).exists():
        needed[log] = {"user_id": "text", "item_id": "text", "timestamp": "time", **last}
    if (folder / USERS).exists():
        needed[USERS] = {"user_id": "text"}
    return needed


def _open(path: Path, needed: dict[str, str], report: Report) -> pa.Table | None:
    try:
        table = pq.read_table(path)
    except FileNotFoundError:
        report.problems.append(f"{path.name} is missing")
        return None
    except (pa.ArrowInvalid, OSError) as error:
        report.problems.append(f"{path.name} is not a readable Parquet file: {error}")
        return None
    optional = {"genres": "list", "year": "number", **FACETS} if path.name == ITEMS else {}
    nothing = [name for name in optional if name in table.column_names and pa.types.is_null(table[name].type)]
    table = table.drop_columns(nothing)  # a column without a single value has no type either
    before = len(report.problems)
    for column, kind in {**needed, **optional}.items():
        if column in table.column_names:
            if not _is(kind, table.schema.field(column).type):
                found = table.schema.field(column).type
                report.problems.append(f"{path.name}: column {column} must be {KINDS[kind]}, it is {found}")
        elif column in needed:
            report.problems.append(f"{path.name}: column {column} is missing")
    return table if len(report.problems) == before else None


def _is(kind: str, found: pa.DataType) -> bool:
    if kind == "text":
        return bool(pa.types.is_string(found) or pa.types.is_large_string(found))
    if kind == "list":
        return bool(pa.types.is_list(found) or pa.types.is_large_list(found)) and _is("text", found.value_type)
    number = bool(pa.types.is_integer(found) or pa.types.is_floating(found))
    return number or (kind == "time" and bool(pa.types.is_timestamp(found)))


def log_of(tables: Tables) -> pa.Table | None:
    return tables.get(RATINGS, tables.get(EVENTS))


def texts(column: pa.ChunkedArray) -> list[str]:
    texts: list[str] = column.to_pylist()
    return texts


def seconds_of(column: pa.ChunkedArray) -> Seconds:
    """UTC seconds from a timestamp column of any unit, or from numbers that are seconds already."""
    if pa.types.is_timestamp(column.type):
        return np.asarray(column.cast(pa.timestamp("us", column.type.tz)).cast(pa.int64()).to_numpy() / 1e6)
    return np.asarray(column.cast(pa.float64()).to_numpy())


def genres_by_frequency(items: pa.Table) -> list[str]:
    """The genres from the most frequent, at equal frequency by name."""
    flat = pc.list_flatten(items["genres"]).drop_null()
    counts = {entry["values"]: entry["counts"] for entry in pc.value_counts(flat).to_pylist()}
    return sorted(counts, key=lambda name: (-counts[name], name))
