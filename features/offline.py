"""The offline store: every batch row that was ever published, as Parquet or as Delta Lake, and nothing about Feast.

    HOME/feast/offline/<project>/<view>/<written at>.parquet            one file a publication
    HOME/feast/delta/<project>/<view>/day=2016-10-16/... _delta_log/    one commit a publication

A table is whole or not there: the Parquet file is renamed into place, the Delta commit is atomic.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Floats
from features import layout
from features.contract import Contract

if TYPE_CHECKING:
    import pyarrow as pa

OfflineForm = Literal["parquet", "delta"]
DAY = "day"  # the Delta table's partition column, a date in UTC


@dataclass(frozen=True, slots=True)
class OfflineTable:
    """Where and how one project's rows are kept."""

    home: Path
    project: str
    form: OfflineForm = "parquet"

    def folder(self, view: str) -> Path:
        name = "offline" if self.form == "parquet" else "delta"
        return self.home.resolve() / "feast" / name / self.project / view

    def pattern(self, view: str) -> str:
        """What Feast reads."""
        return str(self.folder(view) / "*.parquet") if self.form == "parquet" else str(self.folder(view))

    def write(self, view: str, tables: Iterable[pa.Table], written_at: float) -> None:
        """Add these rows, at least one table, of one schema. ``written_at`` names the file, in UTC seconds."""
        self.folder(view).mkdir(parents=True, exist_ok=True)
        if self.form == "parquet":
            _write_parquet(self.folder(view) / f"{round(written_at * 1000)}.parquet", iter(tables))
        else:
            _write_delta(self.folder(view), iter(tables))


def batch_rows(
    contract: Contract, user_ids: pa.Array, features: Floats, as_of: NDArray[np.int64], written_at: float
) -> pa.Table:
    """Rows as the view ``user_batch`` declares them: ``(n,)`` ids, ``(n, U)`` features, ``(n,)`` UTC microseconds."""
    import pyarrow as pa

    def moments(micros: Any) -> pa.Array:
        return pa.array(micros, pa.timestamp("us", tz="UTC"))

    n, table = len(user_ids), np.ascontiguousarray(features, np.float32)
    columns: dict[str, Any] = {layout.JOIN_KEY: user_ids}
    for feature in contract.user.features:
        block = table[:, contract.user.slices[feature.name]]
        columns[feature.name] = block[:, 0] if feature.width == 1 else _lists(block)
    columns[layout.EVENT_TIME] = moments(as_of)
    columns[layout.CREATED_TIME] = moments(np.full(n, round(written_at * 1e6)))
    return pa.table(columns)


def _lists(block: Floats) -> pa.ListArray:
    """One list a row of ``block`` ``(n, width)``."""
    import pyarrow as pa

    n, width = block.shape
    return pa.ListArray.from_arrays(np.arange(0, (n + 1) * width, width, dtype=np.int32), np.ravel(block))


def _write_parquet(path: Path, tables: Iterator[pa.Table]) -> None:
    import pyarrow.parquet as pq

    part = path.with_name(".unfinished")
    first = next(tables)
    with pq.ParquetWriter(part, first.schema) as writer:
        for table in chain([first], tables):
            writer.write_table(table)
    part.replace(path)


def _write_delta(folder: Path, tables: Iterator[pa.Table]) -> None:
    """One commit for all tables, read as they are made."""
    import pyarrow as pa
    from deltalake import write_deltalake

    first = _with_day(next(tables))
    batches = (batch for table in chain([first], map(_with_day, tables)) for batch in table.to_batches())
    rows = pa.RecordBatchReader.from_batches(first.schema, batches)
    write_deltalake(folder, rows, mode="append", partition_by=[DAY])


def _with_day(table: pa.Table) -> pa.Table:
    import pyarrow as pa

    return table.append_column(DAY, table[layout.EVENT_TIME].cast(pa.date32()))
