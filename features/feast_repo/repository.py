"""The Feast repository, derived from the feature contract: no feature is written down here a second time.

Importing Feast takes seconds and is the batch side's business: the request path reads through ``features.online``.
This version of Feast has no usage telemetry, and its MLflow and OpenLineage hooks stay off unless configured.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

from feast import (
    Entity,
    FeatureService,
    FeatureStore,
    FeatureView,
    Field,
    FileSource,
    Project,
    PushSource,
    RepoConfig,
    ValueType,
)
from feast.data_format import DeltaFormat, ParquetFormat
from feast.repo_config import RegistryConfig
from feast.types import Array, Float32, Float64, String
from redis.asyncio.connection import SSLConnection, parse_url

from domain.errors import StartError
from features import layout
from features.contract import Contract
from features.offline import OfflineTable

ENGINES = {"parquet": "duckdb", "delta": "features.feast_repo.delta_store.DeltaOfflineStore"}
KEPT_SERVICES = 3  # as many as published bundles are kept on disk


def batch_fields(contract: Contract) -> Iterator[Field]:
    """What the batch step knows of a user: the stored features, in the contract's order."""
    for feature in contract.user.features:
        kind = Float32 if feature.width == 1 else Array(Float32)
        yield Field(name=feature.name, dtype=kind, description=f"{feature.description} ({feature.unit})")


def session_fields() -> Iterator[Field]:
    """What the stream knows: the last events, from which the session's features are computed at the request."""
    yield Field(name=layout.RECENT_ITEM_IDS, dtype=Array(String), description="Items of the last events, oldest first")
    yield Field(name=layout.RECENT_RATINGS, dtype=Array(Float32), description="Their ratings; NaN where there was none")
    yield Field(name=layout.RECENT_TIMESTAMPS, dtype=Array(Float64), description="Their times, UTC seconds")


def definitions(contract: Contract, offline: OfflineTable) -> list[Entity | FeatureView | PushSource]:
    """The user, and the two views of one: ``user_batch`` from the offline store, ``user_session`` pushed.

    The views have no time to live: ages are the contract's to judge, in the reader.
    """
    user = Entity(name=layout.ENTITY, join_keys=[layout.JOIN_KEY], value_type=ValueType.STRING)
    pushed = PushSource(name=layout.PUSH_SOURCE, batch_source=_source(layout.SESSION_VIEW, offline))
    views = (
        (layout.VIEW, batch_fields(contract), _source(layout.VIEW, offline)),
        (layout.SESSION_VIEW, session_fields(), pushed),
    )
    key = Field(name=layout.JOIN_KEY, dtype=String)
    return [
        user,
        pushed,
        *(
            FeatureView(name=name, entities=[user], schema=[key, *fields], source=source, ttl=timedelta(0))
            for name, fields, source in views
        ),
    ]


def _updated(service: FeatureService) -> datetime:
    return service.last_updated_timestamp or datetime.fromtimestamp(0, UTC)


def _source(view: str, offline: OfflineTable) -> FileSource:
    return FileSource(
        name=view,
        path=offline.pattern(view),
        file_format=DeltaFormat() if offline.form == "delta" else ParquetFormat(),
        timestamp_field=layout.EVENT_TIME,
        created_timestamp_column=layout.CREATED_TIME,
    )


def open_store(redis_url: str | None, contract: Contract, offline: OfflineTable) -> FeatureStore:
    """The store of one project, its definitions registered; everything it writes lies under ``home/feast``.

    Without a ``redis_url`` it has no online store: for training sets.
    """
    registry = offline.home.resolve() / "feast" / "registry.db"
    registry.parent.mkdir(parents=True, exist_ok=True)
    config = RepoConfig(
        project=offline.project,
        provider="local",
        registry=RegistryConfig(path=str(registry)),
        offline_store={"type": ENGINES[offline.form]},
        online_store=None if redis_url is None else _online_store(redis_url, contract),
        entity_key_serialization_version=layout.ENTITY_KEY_VERSION,
    )
    store = FeatureStore(config=config)
    store.apply([Project(name=offline.project), *definitions(contract, offline)])
    return store


def register_service(store: FeatureStore, bundle_version: str) -> None:
    """The service that names what the request path reads for this bundle; only the last ``KEPT_SERVICES`` stay."""
    views: list[Any] = [store.get_feature_view(name) for name in (layout.VIEW, layout.SESSION_VIEW)]
    store.apply([FeatureService(name=layout.service_name(bundle_version), features=views)])
    services = sorted(store.list_feature_services(), key=_updated)
    for old in services[:-KEPT_SERVICES]:
        store.delete_feature_service(old.name)


def _online_store(redis_url: str, contract: Contract) -> dict[str, Any]:
    """A publication always wins over what is stored, so Feast's check of the event time is off.

    With it, publishing the same data again, or with a clock set back, would silently change nothing. A row that nobody
    has written for longer than any feature may be old expires in Redis: so do the rows of contracts long gone.
    """
    return {
        "type": "redis",
        "connection_string": connection_string(redis_url),
        "skip_dedup": True,
        "key_ttl_seconds": layout.kept_seconds(contract),
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
