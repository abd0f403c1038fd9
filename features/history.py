"""Training sets through Feast: each row knows what was known strictly before its second, and nothing of it.

Feast joins a feature row whose event time is at or before the moment asked for, so a row stamped in the very second of
the label would enter it, and with it the label's own event: the classic leak. Two rules close it, each enough alone:

* a row's event time is the last instant that its features know of. A row for a request at ``moment`` knows the seconds
  before it (``definitions.before``), so it is stamped in the microsecond before that second;
* a row is asked for as of the microsecond before the second of its moment, whoever stamped what is there.

What is served obeys the same: a publication stamps its rows with the bundle's watermark.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Floats, Seconds
from domain.catalogue import History
from features import layout
from features.contract import CONTRACT
from features.definitions import ItemFacts, user_features
from features.offline import OfflineTable, batch_rows

if TYPE_CHECKING:
    import pyarrow as pa
    from feast import FeatureStore


def known_until(moments: Seconds) -> NDArray[np.int64]:
    """``(n,)`` the last microsecond before the second of each moment: what a request then may know of."""
    return np.floor(moments).astype(np.int64) * 1_000_000 - 1


def record(
    offline: OfflineTable,
    user_ids: Sequence[str],
    histories: Sequence[History],
    moments: Seconds,
    items: ItemFacts,
    written_at: float,
) -> None:
    """Keep in the offline store what each user's features were at that moment; aligned, ``(n,)``, at least one.

    A history may hold later events: they are cut. The same user and moment may be recorded again, and what was written
    last counts.
    """
    import pyarrow as pa

    rows = [user_features(history, moment, items) for history, moment in zip(histories, moments.tolist(), strict=True)]
    table = batch_rows(CONTRACT, pa.array(user_ids, pa.string()), np.stack(rows), known_until(moments), written_at)
    offline.write(layout.VIEW, [table], written_at)


def training_rows(store: FeatureStore, user_ids: Sequence[str], moments: Seconds) -> Floats:
    """``(n, U)``: each user's stored features as known strictly before the second of the moment, in the asked order.

    ``user_ids`` and ``moments`` are aligned, ``(n,)``, at least one. A user of whom nothing was stored by then, or a
    null, has the contract's defaults.
    """
    asked = _asked(user_ids, moments)
    names = [f"{layout.VIEW}:{feature.name}" for feature in CONTRACT.user.features]
    answer = store.get_historical_features(entity_df=asked, features=names).to_arrow()
    return _matrix(answer, len(user_ids))


def _asked(user_ids: Sequence[str], moments: Seconds) -> Any:
    """Feast's entity table; ``row`` brings the answer back into order."""
    import pandas as pd

    times = pd.to_datetime(known_until(moments), unit="us", utc=True)
    return pd.DataFrame({layout.JOIN_KEY: list(user_ids), layout.EVENT_TIME: times, "row": range(len(user_ids))})


def _matrix(answer: pa.Table, n: int) -> Floats:
    """The answer's columns by name, in the contract's order and the asked order of rows."""
    columns = CONTRACT.user
    table = np.tile(columns.defaults, (n, 1))
    rows = answer["row"].to_numpy()
    for feature in columns.features:
        values = answer[feature.name].to_pylist()
        known = np.array([value is not None for value in values], np.bool_)
        stored = np.array([value for value in values if value is not None], np.float32).reshape(-1, feature.width)
        table[rows[known], columns.slices[feature.name]] = stored
    return table
