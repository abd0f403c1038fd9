"""The batch step: every user's features of a bundle, written through Feast into Redis and kept in the offline store.

A publication is the whole truth about the batch features of its project: it overwrites what is there, and takes away
the rows of users whom the bundle no longer knows. What the stream keeps about a user, their last events, is left alone.
Feast is imported on the first call; it takes seconds, and no other part of the service needs it.
"""

from __future__ import annotations

import json
import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, cast

import numpy as np
import redis

from domain.catalogue import Items, Users
from domain.errors import PublishError, Unreachable
from features import layout
from features.contract import CONTRACT, Contract
from features.contract_diff import Meaning, differences
from features.offline import OfflineForm, OfflineTable, batch_rows

if TYPE_CHECKING:
    import pyarrow as pa
    from feast import FeatureStore

BATCH_USERS = 5_000  # rows in memory at a time, and in one Redis pipeline
SCAN_KEYS = 1_000


class Tables(Protocol):
    """What is read of a bundle's tables."""

    @property
    def users(self) -> Users: ...
    @property
    def items(self) -> Items: ...


class Published(Protocol):
    """What is read of a bundle; ``release.bundle.Bundle`` is one."""

    @property
    def tables(self) -> Tables: ...
    @property
    def watermark(self) -> float: ...
    @property
    def version(self) -> str: ...


def write_user_features(
    bundle: Published,
    redis_url: str,
    home: Path,
    *,
    offline: OfflineForm = "parquet",
    echo: Callable[[str], object] = print,
    clock: Callable[[], float] = time.time,
) -> int:
    """Write all users of the bundle and return how many; raises ``Unreachable``, ``StartError`` and ``PublishError``.

    A row's event time is what its features are as of, the bundle's watermark; ``clock`` only stamps when they were
    written.
    """
    users, genre_names = replace(bundle.tables.users, as_of=bundle.watermark), bundle.tables.items.genre_names
    table = OfflineTable(home, layout.project_name(CONTRACT, genre_names), offline)
    written_at = clock()
    try:
        agree(redis_url, table.project, Meaning.of(CONTRACT, genre_names))
        store = open_repository(redis_url, table, bundle.version)
        for rows in user_tables(users, CONTRACT, written_at):
            if len(rows):
                store.write_to_online_store(layout.VIEW, df=rows.to_pandas())
        table.write(layout.VIEW, user_tables(users, CONTRACT, written_at), written_at)
        removed = remove_absent(redis_url, table.project, users)
    except redis.RedisError as error:
        raise Unreachable(f"the user features cannot be written to Redis: {error}") from error
    echo(f"user features: {len(users)} users in the online store {table.project}, {removed} no longer known removed")
    return len(users)


def restore_user_features(bundle: Published, redis_url: str, *, echo: Callable[[str], object] = print) -> int:
    """Write all users of a bundle that was published before into a Redis that lost them, and return how many.

    The same bytes, without Feast, whose import takes longer than the rest; what publishing leaves in the offline store
    and the registry is not Redis's to lose. Raises ``Unreachable`` and ``PublishError``.
    """
    users, genre_names = bundle.tables.users, bundle.tables.items.genre_names
    project, kept = layout.project_name(CONTRACT, genre_names), layout.kept_seconds(CONTRACT)
    try:
        agree(redis_url, project, Meaning.of(CONTRACT, genre_names))
        with redis.Redis.from_url(redis_url, protocol=2) as client:
            for start in range(0, len(users), BATCH_USERS):
                with client.pipeline(transaction=False) as pipe:
                    for row in range(start, min(start + BATCH_USERS, len(users))):
                        key = layout.row_key(project, users.ids.text(row))
                        pipe.hset(key, mapping=layout.batch_row(CONTRACT, users.features[row], bundle.watermark))
                        pipe.expire(key, kept)
                    pipe.execute()
        removed = remove_absent(redis_url, project, users)
    except redis.RedisError as error:
        raise Unreachable(f"the user features cannot be written to Redis: {error}") from error
    echo(f"user features: {len(users)} users back in the online store {project}, {removed} no longer known removed")
    return len(users)


def agree(redis_url: str, project: str, meaning: Meaning) -> None:
    """Leave with the features what they mean; raises ``PublishError``, naming each feature, if it is another meaning.

    The project's name is a hash of the meaning, so this is about hashes that collide and stores written by hand.
    """
    key, ours = layout.meaning_key(project), meaning.document()
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        client.set(key, json.dumps(ours), nx=True)
        held = cast("bytes", client.get(key))
    try:
        found = differences(ours, json.loads(held))
    except (ValueError, TypeError, AttributeError) as error:
        raise PublishError(f"what the store {project} means cannot be read: {error}") from error
    if found:
        raise PublishError(f"the store {project} was written under another contract: {'; '.join(found)}")


def open_repository(redis_url: str | None, offline: OfflineTable, bundle_version: str | None = None) -> FeatureStore:
    """Feast's store of a project; online if there is a ``redis_url``, with a service for the bundle if one is named.

    Importing Feast changes the warning filters of the whole process; here that ends with the block.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from features.feast_repo import repository

        store = repository.open_store(redis_url, CONTRACT, offline)
        if bundle_version is not None:
            repository.register_service(store, bundle_version)
        return store


def user_tables(users: Users, contract: Contract, written_at: float) -> Iterator[pa.Table]:
    """The rows of the view ``user_batch``, ``BATCH_USERS`` at a time; at least one table, maybe an empty one."""
    import pyarrow as pa

    for start in range(0, max(len(users), 1), BATCH_USERS):
        rows = slice(start, start + BATCH_USERS)
        ids = pa.array(np.asarray(users.ids.ids[rows]), pa.binary()).cast(pa.string())
        as_of = np.full(len(ids), round(users.as_of * 1e6))
        yield batch_rows(contract, ids, users.features[rows], as_of, written_at)


def remove_absent(redis_url: str, project: str, users: Users, contract: Contract = CONTRACT) -> int:
    """Take the batch features of users who are not in the bundle out of Redis; how many users that were.

    Only the fields of the batch view go: what another view keeps of a user newer than the bundle stays.
    """
    fields = layout.batch_fields(contract)
    removed = 0
    with redis.Redis.from_url(redis_url, protocol=2) as client:
        for keys in _scan(client, layout.row_pattern(project)):
            named = [(key, user) for key in keys if (user := layout.row_user(project, key)) is not None]
            rows = users.ids.rows([user for _, user in named])
            with client.pipeline(transaction=False) as pipe:
                for (key, _), row in zip(named, rows, strict=True):
                    if row < 0:
                        pipe.hdel(key, *fields)
                removed += sum(map(bool, pipe.execute()))
    return removed


def _scan(client: redis.Redis, pattern: bytes) -> Iterator[list[bytes]]:
    cursor = 0
    while True:
        cursor, keys = client.scan(cursor, match=pattern, count=SCAN_KEYS)
        yield cast("list[bytes]", keys)
        if not cursor:
            return
