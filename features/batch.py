"""The batch step: every user's events through the one definition, on whatever engine holds the events.

An engine groups events by user and hands one user's events at a time to a function of Arrow tables. The function is the
same for all of them, and it is ``features.definitions``, so a feature that is right here is right on a cluster. Needs
pyarrow; Spark also needs pyspark and Java.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from domain.arrays import Floats
from domain.catalogue import History
from features.contract import CONTRACT
from features.definitions import ItemFacts, user_features

EVENTS = pa.schema(
    [
        ("user_id", pa.string()),
        ("position", pa.int64()),  # the event's place among its user's, oldest first: it settles equal timestamps
        ("item_row", pa.int32()),
        ("rating", pa.float32()),  # null where an event carried none
        ("timestamp", pa.float64()),  # UTC seconds
    ]
)
"""One row an event."""

ROWS = pa.schema(
    [("user_id", pa.string())]
    + [
        (feature.name, pa.float32() if feature.width == 1 else pa.list_(pa.float32()))
        for feature in CONTRACT.user.features
    ]
)
"""One row a user: the contract's user features by name."""

OneUser = Callable[[pa.Table], pa.Table]
Moment = Callable[[float], float]
"""From a user's last event to the moment their features are as of, both UTC seconds."""


class Engine(Protocol):
    """Where the events are grouped."""

    def per_user(self, events: pa.Table, compute: OneUser) -> pa.Table:
        """``compute`` over each user's events (in no particular order), the ``ROWS`` put together in any order."""
        ...


class Embedded:
    """In this process: sorted once, then cut into users. For what fits into memory."""

    def per_user(self, events: pa.Table, compute: OneUser) -> pa.Table:
        ordered = events.sort_by("user_id").combine_chunks()
        ids = ordered["user_id"].dictionary_encode().combine_chunks().indices.to_numpy()
        starts = np.flatnonzero(np.diff(ids, prepend=-1))
        ends = np.append(starts, len(ids))[1:]
        rows = [compute(ordered.slice(start, end - start)) for start, end in zip(starts, ends, strict=True)]
        return pa.concat_tables(rows) if rows else ROWS.empty_table()


@dataclass(frozen=True, slots=True)
class Spark:
    """On Spark 4, in local mode or on a cluster: the session says which."""

    session: Any

    def per_user(self, events: pa.Table, compute: OneUser) -> pa.Table:
        return self.rows(self.session.createDataFrame(events), compute).toArrow().cast(ROWS)

    def rows(self, events: Any, compute: OneUser) -> Any:
        """The same from a Spark frame of ``EVENTS`` to one of ``ROWS``: what a cluster writes where it lies."""
        schema = ", ".join(f"{field.name} {_SPARK_TYPES[field.type]}" for field in ROWS)
        return events.groupBy("user_id").applyInArrow(compute, schema)


@contextlib.contextmanager
def open_engine(name: str) -> Iterator[Engine]:
    """The engine of that name, ``embedded`` or ``spark``; Spark as its own configuration says, else in local mode."""
    if name == "embedded":
        yield Embedded()
        return
    from pyspark.sql import SparkSession

    with SparkSession.builder.appName("streamrec").getOrCreate() as session:
        yield Spark(session)


_SPARK_TYPES = {pa.string(): "string", pa.float32(): "float", pa.list_(pa.float32()): "array<float>"}


def feature_rows(events: pa.Table, items: ItemFacts, moment: Moment, engine: Engine) -> pa.Table:
    """``ROWS`` of every user in ``events``, ordered by user id in bytes."""
    whole = events.select(EVENTS.names).cast(EVENTS)
    return engine.per_user(whole, one_user(items, moment)).sort_by("user_id")


def one_user(items: ItemFacts, moment: Moment) -> OneUser:
    """The batch step for one user, as an engine runs it."""

    def compute(events: pa.Table) -> pa.Table:
        history = _history(events)
        values = user_features(history, moment(float(history.timestamp[-1])), items)
        return _row(events["user_id"][0].as_py(), values)

    return compute


def matrix(rows: pa.Table) -> Floats:
    """``(users, U)`` in the contract's order, from ``ROWS`` by name."""
    columns = [pc.list_flatten(rows[f.name]) if f.width > 1 else rows[f.name] for f in CONTRACT.user.features]
    pieces = [column.to_numpy().reshape(len(rows), -1) for column in columns]
    return np.concatenate(pieces, axis=1, dtype=np.float32)


def _history(events: pa.Table) -> History:
    """One user's events, oldest first, in whatever order the engine brought them."""
    ordered = events.sort_by("position")
    rating = ordered["rating"].cast(pa.float32()).fill_null(float("nan"))
    return History(ordered["item_row"].to_numpy(), rating.to_numpy(), ordered["timestamp"].to_numpy())


def _row(user_id: str, values: Floats) -> pa.Table:
    columns: dict[str, list[object]] = {"user_id": [user_id]}
    for feature in CONTRACT.user.features:
        part = values[CONTRACT.user.slices[feature.name]].tolist()
        columns[feature.name] = [part if feature.width > 1 else part[0]]
    return pa.table(columns, schema=ROWS)
