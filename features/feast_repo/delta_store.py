"""Feast's offline engine on DuckDB, with Delta tables read by the ``deltalake`` package.

Feast's own engine has DuckDB read them, which loads a DuckDB extension from the internet at the first query; and its
engine on Dask does not know Delta at all. Everything else is Feast's. Feast finds both classes here by their names.
"""

from __future__ import annotations

from typing import Any

import ibis
from deltalake import DeltaTable
from feast.infra.offline_stores.duckdb import DuckDBOfflineStore, DuckDBOfflineStoreConfig
from feast.infra.offline_stores.ibis import get_historical_features_ibis
from feast.infra.offline_stores.offline_store import RetrievalJob


class DeltaOfflineStoreConfig(DuckDBOfflineStoreConfig):
    """Feast reads the store's configuration into this."""

    type: str = "features.feast_repo.delta_store.DeltaOfflineStore"


class DeltaOfflineStore(DuckDBOfflineStore):
    """For point-in-time joins; the batch step writes the tables itself, one commit a publication."""

    @staticmethod
    def get_historical_features(**asked: Any) -> RetrievalJob:  # type: ignore[override]  # Feast passes names only
        """Feast's own join on the current version of each table; the arguments are Feast's."""
        return get_historical_features_ibis(**asked, data_source_reader=_table, data_source_writer=_refuse)


def _table(source: Any, repo_path: str) -> ibis.Table:
    del repo_path  # our paths are absolute
    return ibis.memtable(DeltaTable(source.path).to_pyarrow_dataset())


def _refuse(*_: Any) -> None:
    raise NotImplementedError("training sets are not written back through Feast")
