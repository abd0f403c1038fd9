"""Evaluation stands on the same small folders as training, and on one bundle trained on such a folder."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from release.bundle import Bundle
from tests.training.conftest import TOML, make_folder, make_random_folder
from training.train import train

__all__ = ["make_folder", "make_random_folder"]

USERS, ITEMS, EVENTS = 24, 60, 30


def random_folder(folder: Path) -> Path:
    """A dataset in which users of two tastes rate the items of their half of the catalogue."""
    rng = np.random.default_rng(7)
    chosen = [rng.choice(ITEMS // 2, EVENTS, replace=False) + user % 2 * (ITEMS // 2) for user in range(USERS)]
    rated = {
        "user_id": np.repeat([f"u{user}" for user in range(USERS)], EVENTS).tolist(),
        "item_id": [f"i{row:03d}" for rows in chosen for row in rows],
        "rating": rng.choice([2.0, 4.0, 5.0], USERS * EVENTS),
        "timestamp": 1_000_000 + np.arange(USERS * EVENTS) * 60,
    }
    items = {
        "item_id": [f"i{row:03d}" for row in range(ITEMS)],
        "title": [f"Story of {'the sea' if row < ITEMS // 2 else 'a town'} {row}" for row in range(ITEMS)],
        "year": [1980 + row % 40 for row in range(ITEMS)],
        "genres": [["Sea" if row < ITEMS // 2 else "Town"] for row in range(ITEMS)],
    }
    (folder / "dataset.toml").write_text(TOML)
    pq.write_table(pa.table(rated), folder / "ratings.parquet")
    pq.write_table(pa.table(items), folder / "items.parquet")
    return folder


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return random_folder(tmp_path_factory.mktemp("random"))


@pytest.fixture(scope="session")
def trained(folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    """A bundle trained on ``folder``."""
    return train(folder, tmp_path_factory.mktemp("trained") / "bundle", echo=lambda _: None)
