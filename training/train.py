"""From a dataset folder to an unpublished bundle.

The rankers learn from requests at earlier moments of every user, for which the sources were fitted on what was known
then. The sources that are served are fitted once more on all events; the rankers are given the items as of then.
"""

from __future__ import annotations

import subprocess
import tempfile
import time
from collections.abc import Callable
from dataclasses import asdict
from pathlib import Path

import faiss
import numpy as np

from domain.arrays import Floats
from domain.catalogue import Users
from features.batch import Embedded, Engine, feature_rows, matrix
from features.contract import CONTRACT
from release.bundle import (
    Bundle,
    DatasetSpec,
    Lineage,
    Manifest,
    ParityTables,
    Tables,
    write,
)
from release.gates import Gates
from retrieval.two_tower import IndexTables
from training import batch_lists, collaborative, dcn_v2, held_out, rankers, sources, two_tower
from training.dataset import Dataset, read
from training.rank_rows import RankRows, collect
from training.reference import reference_tables
from training.split import everything
from training.threads import single_threaded

PARITY_REQUESTS = 8
PARITY_TOLERANCE = 1e-5


def train(
    data: Path, out: Path, *, seed: int = 0, echo: Callable[[str], None] = print, engine: Engine | None = None
) -> Bundle:
    """Train on the dataset folder ``data`` and write the bundle into the new folder ``out``.

    The batch features are computed on ``engine``, in this process unless another is given.
    Raises ``DatasetError`` with every problem of the folder.
    """
    started = time.time()
    single_threaded()
    dataset, gates = read(data), Gates.read(data)
    echo(f"{dataset.settings.name}: {len(dataset.user_ids):,} users, {len(dataset.item_ids):,} items, "
         f"{len(dataset.item_row):,} events")  # fmt: skip
    trained = rankers.fit(dataset, seed, echo)
    served = sources.fit(everything(dataset), trained.content, trained.half_life_days, seed)
    echo("sources fitted on all events")
    requests = collect(served, 0, range(len(dataset.user_ids)))
    with tempfile.TemporaryDirectory() as scratch:
        index, model = Path(scratch, "index.faiss"), Path(scratch, "model.onnx")
        faiss.write_index(served.index, str(index))
        exported = trained.exported(served.items.features)
        dcn_v2.export(exported, requests.only(np.arange(len(requests)) < 2), model)
        score = dcn_v2.scores(model, requests)
        check_parity(trained, served.items.features, requests, score)
        echo("DCN-V2 exported; its answers equal the plain model's")
        measured = held_out.measure(dataset, data, trained, model, requests)
        users = user_table(dataset, served, engine or Embedded())
        tables = Tables(
            items=served.items,
            users=users,
            user_tower=served.user_tower,
            index=IndexTables(served.user_tower.digest()),
            collaborative=served.collaborative,
            content=served.content,
            popularity=served.popularity,
            preference=served.preference,
            logistic=trained.logistic,
            batch_lists=batch_lists.build(requests, score),
            parity=parity_tables(requests, score),
            reference=reference_tables(dataset, users, served.facts),
            item_side=rankers.item_side(trained.inputs, exported),
        )
        bundle = write(out, _manifest(dataset, trained, seed, gates, measured), tables, index, model)
    echo(f"bundle {bundle.version} in {time.time() - started:.0f} s")
    return bundle


def user_table(dataset: Dataset, served: sources.Fitted, engine: Engine) -> Users:
    """Every user with their whole history and their features at their own now; defaults for one without events.

    Under replay that is the second after their last event, otherwise the end of the data.
    """
    replayed = dataset.settings.clock == "replay"
    rows = feature_rows(
        dataset.event_table(), served.facts, lambda last: (last if replayed else dataset.ended_at) + 1.0, engine
    )
    features = np.tile(CONTRACT.user.defaults, (len(dataset.user_ids), 1))
    features[dataset.user_ids.rows(rows["user_id"].to_pylist())] = matrix(rows)
    return Users(
        dataset.user_ids,
        features,
        dataset.indptr,
        dataset.item_row,
        dataset.rating,
        dataset.timestamp,
        as_of=dataset.ended_at,
    )


def check_parity(trained: rankers.Rankers, item_features: Floats, requests: RankRows, score: Floats) -> None:
    """Raise ``RuntimeError`` unless the exported graph answers as the plain model does, within 1e-5."""
    standard = trained.inputs.standard_item(item_features)[None]
    plain = dcn_v2.logits(trained.model, requests, dcn_v2.with_items(trained.inputs, standard))
    expected = 1.0 / (1.0 + np.exp(-(trained.slope * plain + trained.offset)))
    worst = float(np.abs(expected - score)[requests.there].max(initial=0.0))
    if not worst <= PARITY_TOLERANCE:
        raise RuntimeError(f"the exported DCN-V2 differs from the plain model by {worst:.1e}")


def parity_tables(requests: RankRows, score: Floats) -> ParityTables:
    """Some requests, evenly over the users with the most candidates, and what the exported graph answers."""
    lengths = requests.there.sum(axis=1)
    full = np.flatnonzero(lengths == lengths.max())
    at = np.unique(full[np.linspace(0, len(full) - 1, PARITY_REQUESTS).round().astype(int)])
    n = int(lengths.max())
    columns = (requests.item_row, requests.columns, score)
    item_row, encoded, answered = (column[at][:, :n] for column in columns)
    return ParityTables(requests.user[at], requests.codes[at], item_row, encoded, answered)


def _manifest(
    dataset: Dataset, trained: rankers.Rankers, seed: int, gates: Gates, measured: held_out.Measured
) -> Manifest:
    settings = dataset.settings
    return Manifest(
        version=settings.name,
        dataset=DatasetSpec(
            settings.name, settings.clock, dataset.ended_at, settings.positive_stars, dataset.neutral_stars
        ),
        sources=sources.SOURCES,
        lineage=Lineage(
            data_sha256=dataset.sha256,
            commit=commit(),
            created_at=time.time(),
            parameters={
                "seed": seed,
                "dcn_v2": {**asdict(rankers.SHAPE), **asdict(rankers.SCHEDULE)},
                "collaborative": {"lambda": collaborative.LAMBDA, "neighbours": collaborative.TOP_K},
                "two_tower": {"vector": two_tower.VECTOR, "epochs": two_tower.EPOCHS},
                "popularity": {"half_life_days": _finite(trained.half_life_days)},
                "untrained_features": dataset.untrained,
                "gates": gates.as_parameters(),
            },
            metrics={**trained.metrics, "gated": measured},
        ),
    )


def _finite(value: float) -> float | None:
    """JSON has no infinity: None stands for no decay."""
    return value if np.isfinite(value) else None


def commit() -> str:
    """The commit of the code, or ``unknown`` outside of a repository."""
    try:
        command = ["git", "rev-parse", "--verify", "--quiet", "HEAD"]
        here = Path(__file__).parent
        found = subprocess.run(command, cwd=here, capture_output=True, text=True, check=False)  # noqa: S603 - fixed words
    except OSError:
        return "unknown"
    return found.stdout.strip() or "unknown"
