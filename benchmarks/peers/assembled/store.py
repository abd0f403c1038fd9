"""The Feast repository of the assembled peer: one view of users, one of items, as Feast's quick start has them."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np
import pandas as pd
from feast import Entity, FeatureStore, FeatureView, Field, FileSource, RepoConfig, ValueType
from feast.types import Float32

from domain.arrays import Floats
from domain.catalogue import IdTable
from release.bundle import Bundle

PROJECT = "assembled"
TIME = "event_timestamp"


def names(kind: str, width: int) -> list[str]:
    """A feature a column: Feast's tables are scalars in the documentation."""
    return [f"{kind}_{column}" for column in range(width)]


def open_store(redis_url: str, folder: Path) -> FeatureStore:
    """Feast over the given Redis, everything else under ``folder``."""
    address = urlsplit(redis_url)
    folder.mkdir(parents=True, exist_ok=True)
    return FeatureStore(
        config=RepoConfig(
            project=PROJECT,
            provider="local",
            registry=str(folder / "registry.db"),
            online_store={"type": "redis", "connection_string": f"{address.hostname}:{address.port},db=2"},
            entity_key_serialization_version=3,
        )
    )


def fill(store: FeatureStore, bundle: Bundle, folder: Path) -> None:
    """Both views, registered and written online."""
    users, items = bundle.tables.users, bundle.tables.items
    for kind, ids, features in (("user", users.ids, users.features), ("item", items.ids, items.features)):
        frame = _frame(kind, ids, features)
        path = folder / f"{kind}.parquet"
        frame.to_parquet(path)
        entity = Entity(name=kind, join_keys=[f"{kind}_id"], value_type=ValueType.STRING)
        fields = [Field(name=name, dtype=Float32) for name in names(kind, features.shape[1])]
        source = FileSource(path=str(path), timestamp_field=TIME)
        view = FeatureView(name=f"{kind}s", entities=[entity], schema=fields, source=source, ttl=timedelta(0))
        store.apply([entity, view])
        store.write_to_online_store(f"{kind}s", frame)


def _frame(kind: str, ids: IdTable, features: Floats) -> pd.DataFrame:
    frame = pd.DataFrame(np.asarray(features, np.float32), columns=names(kind, features.shape[1]))
    frame[f"{kind}_id"] = [ids.text(row) for row in range(len(ids))]
    frame[TIME] = datetime.now(UTC)
    return frame
