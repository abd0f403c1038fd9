"""The Feast repository, derived from the feature contract: no feature is written down here a second time.

Importing Feast takes seconds and is the batch side's business: the request path reads through ``features.online``.
This version of Feast has no usage telemetry, and its MLflow and OpenLineage hooks stay off unless configured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from feast import Entity, FeatureService, FeatureStore, FeatureView, Field, FileSource, Project, RepoConfig, ValueType
from feast.repo_config import RegistryConfig
from feast.types import Array, Float32, Float64, String
from redis.asyncio.connection import SSLConnection, parse_url

from domain.errors import StartError
from features import layout
from features.contract import Contract


def user_fields(contract: Contract) -> Iterator[Field]:
    """The batch features in the contract's order, then the recents."""
    for feature in contract.user.features:
        kind = Float32 if feature.width == 1 else Array(Float32)
        yield Field(name=feature.name, dtype=kind, description=f"{feature.description} ({feature.unit})")
    yield Field(name=layout.RECENT_ITEM_IDS, dtype=Array(String), description="Items of the last events, oldest first")
    yield Field(name=layout.RECENT_RATINGS, dtype=Array(Float32), description="Their ratings; NaN where there was none")
    yield Field(name=layout.RECENT_TIMESTAMPS, dtype=Array(Float64), description="Their times, UTC seconds")


def definitions(contract: Contract, offline: Path) -> tuple[Entity, FeatureView, FeatureService]:
    """The user, the batch features of users, and the service that names what the request path reads.

    The view has no time to live: ages are the contract's to judge, in the reader.
    """
    user = Entity(name=layout.ENTITY, join_keys=[layout.JOIN_KEY], value_type=ValueType.STRING)
    source = FileSource(
        name=layout.VIEW,
        path=str(offline),
        timestamp_field=layout.EVENT_TIME,
        created_timestamp_column=layout.CREATED_TIME,
    )
    fields = [Field(name=layout.JOIN_KEY, dtype=String), *user_fields(contract)]
    view = FeatureView(name=layout.VIEW, entities=[user], schema=fields, source=source, ttl=timedelta(0))
    return user, view, FeatureService(name=layout.SERVICE, features=[view])


def open_store(home: Path, redis_url: str, project: str, contract: Contract) -> FeatureStore:
    """The store of one project, its definitions registered; everything it writes lies under ``home/feast``."""
    offline = offline_folder(home, project)
    offline.mkdir(parents=True, exist_ok=True)
    config = RepoConfig(
        project=project,
        provider="local",
        registry=RegistryConfig(path=str(home.resolve() / "feast" / "registry.db")),
        offline_store={"type": "dask"},
        online_store=_online_store(redis_url, contract),
        entity_key_serialization_version=layout.ENTITY_KEY_VERSION,
    )
    store = FeatureStore(config=config)
    store.apply([Project(name=project), *definitions(contract, offline)])
    return store


def offline_folder(home: Path, project: str) -> Path:
    """Where a project's Parquet files lie, one a publication."""
    return home.resolve() / "feast" / "offline" / project / layout.VIEW


def _online_store(redis_url: str, contract: Contract) -> dict[str, Any]:
    """A publication always wins over what is stored, so Feast's check of the event time is off.

    With it, publishing the same data again, or with a clock set back, would silently change nothing. A row that nobody
    has written for longer than any feature may be old expires in Redis: so do the rows of contracts long gone.
    """
    oldest = max(feature.max_age_seconds for feature in contract.user.features)
    return {
        "type": "redis",
        "connection_string": connection_string(redis_url),
        "skip_dedup": True,
        "key_ttl_seconds": int(oldest),
    }


def connection_string(redis_url: str) -> str:
    """A Redis URL in Feast's own notation, ``host:port,name=json,...``; raises ``StartError``."""
    try:
        parts: dict[str, Any] = {"host": "localhost", "port": 6379, **parse_url(redis_url)}
    except ValueError as error:
        raise StartError(f"the Redis address cannot be read: {error}") from error
    if "path" in parts or ":" in parts["host"]:
        raise StartError("Feast writes to Redis over TCP, at a name or an IPv4 address: redis://host:port/0")
    if parts.pop("connection_class", None) is SSLConnection:
        parts["ssl"] = True
    address = f"{parts.pop('host')}:{parts.pop('port')}"
    # Feast splits at commas before it parses the JSON, so a comma in a password has to be spelt out.
    options = [f"{name}={json.dumps(value).replace(',', chr(92) + 'u002c')}" for name, value in parts.items()]
    return ",".join([address, *options])
