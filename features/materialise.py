"""The batch step: every user's features of a bundle, written through Feast into Parquet and into Redis.

A publication is the whole truth about the batch features of its project: it overwrites what is there, and takes away
the rows of users whom the bundle no longer knows. What other feature views keep about a user is left alone. Feast is
imported on the first call; it takes seconds, and no other part of the service needs it.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Callable, Iterator
from dataclasses import replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, cast

import numpy as np
import redis
from numpy.typing import NDArray

from domain.catalogue import Items, Users
from domain.errors import Unreachable
from features import layout
from features.contract import CONTRACT, Contract

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


def write_user_features(
    bundle: Published,
    redis_url: str,
    home: Path,
    *,
    echo: Callable[[str], object] = print,
    clock: Callable[[], float] = time.time,
) -> int:
    """Write all users of the bundle and return how many; raises ``Unreachable`` and ``StartError``.

    A row's event time is what its features are as of, the bundle's watermark; ``clock`` only stamps when they were
    written.
    """
    users, items = replace(bundle.tables.users, as_of=bundle.watermark), bundle.tables.items
    project = layout.project_name(CONTRACT, items.genre_names)
    written_at = clock()
    try:
        store, folder = open_repository(home, redis_url, project)
        tables = user_tables(users, items, CONTRACT, written_at)
        write_tables(store, folder / f"{round(written_at * 1000)}.parquet", tables)
        removed = remove_absent(redis_url, project, users)
    except redis.RedisError as error:
        raise Unreachable(f"the user features cannot be written to Redis: {error}") from error
    echo(f"user features: {len(users)} users in the online store {project}, {removed} no longer known removed")
    return len(users)


def open_repository(home: Path, redis_url: str, project: str) -> tuple[FeatureStore, Path]:
    """Feast's store of a project and the folder of its Parquet files.

    Importing Feast changes the warning filters of the whole process; here that ends with the block.
    """
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        from features.feast_repo import repository

        return repository.open_store(home, redis_url, project, CONTRACT), repository.offline_folder(home, project)


def user_tables(users: Users, items: Items, contract: Contract, written_at: float) -> Iterator[pa.Table]:
    """The users' rows as the feature view declares them, ``BATCH_USERS`` at a time; at least one table, maybe empty."""
    for start in range(0, max(len(users), 1), BATCH_USERS):
        rows = np.arange(start, min(start + BATCH_USERS, len(users)))
        yield _table(users, items, contract, rows, written_at)


def write_tables(store: FeatureStore, path: Path, tables: Iterator[pa.Table]) -> None:
    """All tables into one Parquet file, renamed into place once it is whole, and each of them into Redis."""
    import pyarrow.parquet as pq

    part = path.with_name(".unfinished")
    first = next(tables)
    with pq.ParquetWriter(part, first.schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table)
            if len(table):
                store.write_to_online_store(layout.VIEW, df=table.to_pandas())
    part.replace(path)


def remove_absent(redis_url: str, project: str, users: Users, contract: Contract = CONTRACT) -> int:
    """Take the batch features of users who are not in the bundle out of Redis; how many users that were.

    Only the fields of the batch view go: what another view keeps of a user newer than the bundle stays.
    """
    fields = layout.view_fields(contract)
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


def _table(users: Users, items: Items, contract: Contract, rows: NDArray[np.intp], written_at: float) -> pa.Table:
    import pyarrow as pa

    features = np.ascontiguousarray(users.features[rows], np.float32)
    columns: dict[str, Any] = {layout.JOIN_KEY: _texts(users.ids.ids[rows])}
    for feature in contract.user.features:
        block = features[:, contract.user.slices[feature.name]]
        columns[feature.name] = block[:, 0] if feature.width == 1 else _lists(block, np.full(len(rows), feature.width))
    columns |= _recents(users, items, rows)
    columns[layout.EVENT_TIME] = _moments(users.as_of, len(rows))
    columns[layout.CREATED_TIME] = _moments(written_at, len(rows))
    return pa.table(columns)


def _recents(users: Users, items: Items, rows: NDArray[np.intp]) -> dict[str, Any]:
    """Each user's last ``RECENT_EVENTS`` events, oldest first, items by their external ids."""
    end = users.indptr[rows + 1]
    lengths = np.minimum(end - users.indptr[rows], layout.RECENT_EVENTS)
    after = np.cumsum(lengths)
    events = np.arange(lengths.sum()) + np.repeat(end - after, lengths)
    return {
        layout.RECENT_ITEM_IDS: _lists(_texts(items.ids.ids[users.item_row[events]]), lengths),
        layout.RECENT_RATINGS: _lists(users.rating[events], lengths),
        layout.RECENT_TIMESTAMPS: _lists(users.timestamp[events], lengths),
    }


def _lists(values: Any, lengths: NDArray[Any]) -> pa.ListArray:
    """``values``, end to end, cut into one list a row."""
    import pyarrow as pa

    flat = np.ravel(values) if isinstance(values, np.ndarray) else values
    return pa.ListArray.from_arrays(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32), flat)


def _texts(ids: NDArray[np.bytes_]) -> pa.Array:
    import pyarrow as pa

    return pa.array(np.asarray(ids), pa.binary()).cast(pa.string())


def _moments(seconds: float, n: int) -> pa.Array:
    import pyarrow as pa

    return pa.array(np.full(n, round(seconds * 1e6)), pa.timestamp("us", tz="UTC"))
