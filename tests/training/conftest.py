"""Small dataset folders, made on the spot."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

TOML = 'name = "tiny"\nclock = "replay"\n[positive]\nrating = 4.0\n'
Columns = dict[str, Any]
MakeFolder = Callable[..., Path]

ITEMS: Columns = {
    "item_id": ["a", "b", "c"],
    "title": ["Amélie", "七人の侍", None],
    "year": pa.array([2001, 1954, None], pa.int16()),
    "genres": [["Comedy"], ["Action", "Drama"], []],
}
RATINGS: Columns = {
    "user_id": ["1", "1", "2"],
    "item_id": ["a", "b", "c"],
    "rating": [5.0, 2.0, 4.0],
    "timestamp": [100, 200, 150],
}


@pytest.fixture
def make_folder(tmp_path: Path) -> MakeFolder:
    """Writes a dataset folder from columns; a table that is None is left out."""

    def make(
        items: Columns | None = ITEMS, toml: str | None = TOML, name: str = "dataset", **tables: Columns | None
    ) -> Path:
        folder = tmp_path / name
        folder.mkdir()
        if toml is not None:
            (folder / "dataset.toml").write_text(toml, "utf-8")
        written = {"items": items, **(tables or {"ratings": RATINGS})}
        for table, columns in written.items():
            if columns is not None:
                pq.write_table(pa.table(columns), folder / f"{table}.parquet")
        return folder

    return make


@pytest.fixture
def make_random_folder(make_folder: MakeFolder) -> MakeFolder:
    """A dataset in which users of two tastes rate the items of their half of the catalogue."""

    def make(users: int = 24, items: int = 60, events: int = 30, name: str = "random", **changes: Any) -> Path:
        rng = np.random.default_rng(7)
        rated = {"user_id": [], "item_id": [], "rating": [], "timestamp": []}  # type: ignore[var-annotated]
        for user in range(users):
            half = np.arange(items // 2) + (user % 2) * (items // 2)
            rows = rng.choice(half, min(events, len(half)), replace=False)
            rated["user_id"] += [f"u{user}"] * len(rows)
            rated["item_id"] += [f"i{row:03d}" for row in rows]
            rated["rating"] += rng.choice([2.0, 4.0, 5.0], len(rows)).tolist()
            rated["timestamp"] += (1_000_000 + user * 5_000 + np.arange(len(rows)) * 60).tolist()
        catalogue: Columns = {
            "item_id": [f"i{row:03d}" for row in range(items)],
            "title": [f"Story of {'the sea' if row < items // 2 else 'a town'} {row}" for row in range(items)],
            "year": pa.array([1980 + row % 40 if row % 7 else None for row in range(items)], pa.int16()),
            "genres": [["Sea" if row < items // 2 else "Town"] for row in range(items)],
        }
        for column, values in changes.items():
            if values is None:
                del catalogue[column]
            else:
                catalogue[column] = values
        return make_folder(items=catalogue, name=name, ratings=rated)

    return make
