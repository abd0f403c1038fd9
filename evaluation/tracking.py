"""Every training run in MLflow: parameters, data, commit, metrics, artifacts, and a version in its registry.

The registry's version carries the bundle's version as a tag, and ``tracking.json`` beside the bundle's manifest carries
the run and the registry's version. It is written after the bundle and outside of its hash, as ``publication.json`` is:
two runs on the same data and seed have different ids and equal bundles. Nothing that serves imports this.
"""

from __future__ import annotations

import json
import logging
import os
import warnings
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from release.bundle import MANIFEST, Bundle
from release.gates import Verdict, measured_metrics, refused

TRACKING = "tracking.json"
LONGEST_PARAMETER = 500  # what every store accepts


@dataclass(frozen=True, slots=True)
class Tracked:
    """Where MLflow keeps a bundle's run."""

    uri: str
    run_id: str
    model: str
    version: str


def local_store(home: Path) -> str:
    """SQLite under HOME, for who has no tracking server."""
    folder = home / "mlflow"
    folder.mkdir(parents=True, exist_ok=True)
    return f"sqlite:///{folder.absolute() / 'mlflow.db'}"


def track(bundle: Bundle, verdicts: Sequence[Verdict], home: Path, uri: str | None = None) -> Tracked:
    """Record the training of ``bundle`` in the store at ``uri``, by default under HOME, and write ``tracking.json``."""
    uri, name = uri or local_store(home), bundle.manifest.dataset.name
    with _quiet():
        from mlflow.tracking import MlflowClient

        client = MlflowClient(uri)
        run_id = client.create_run(_experiment(client, name, home), run_name=bundle.version).info.run_id
        _record(client, run_id, bundle, verdicts)
        version = _registered(client, name, run_id, bundle)
        client.set_terminated(run_id)
    tracked = Tracked(uri, run_id, name, version)
    (bundle.path / TRACKING).write_text(json.dumps(asdict(tracked)) + "\n")
    return tracked


def read_tracking(path: Path) -> Tracked | None:
    """Where the bundle at ``path`` is recorded, None where nobody recorded it."""
    file = path / TRACKING
    return Tracked(**json.loads(file.read_text())) if file.exists() else None


@contextmanager
def _quiet() -> Iterator[None]:
    """Nothing is reported to MLflow's makers, and its own deprecated calls are not our warnings."""
    os.environ.setdefault("MLFLOW_DISABLE_TELEMETRY", "true")
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    logging.getLogger("alembic").setLevel(logging.WARNING)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def _experiment(client: Any, name: str, home: Path) -> str:
    found = client.get_experiment_by_name(name)
    if found is not None:
        return str(found.experiment_id)
    artifacts = (home / "mlflow" / "artifacts").absolute()
    return str(client.create_experiment(name, artifact_location=artifacts.as_uri()))


def _record(client: Any, run_id: str, bundle: Bundle, verdicts: Sequence[Verdict]) -> None:
    lineage, manifest = bundle.manifest.lineage, bundle.manifest
    facts = {"data_sha256": lineage.data_sha256, "commit": lineage.commit, "contract_hash": manifest.contract_hash}
    for key, value in {**facts, **flat(lineage.parameters)}.items():
        client.log_param(run_id, key, str(value)[:LONGEST_PARAMETER])
    metrics = {**flat(lineage.metrics), **flat(measured_metrics(manifest))}
    for key, value in metrics.items():
        if isinstance(value, int | float):
            client.log_metric(run_id, key, float(value))
    client.set_tag(run_id, "bundle_version", bundle.version)
    client.set_tag(run_id, "gates", "refused" if refused(verdicts) else "passed")
    client.log_artifact(run_id, str(bundle.path / MANIFEST))
    client.log_dict(run_id, dict(manifest.contract), "feature_schema.json")
    client.log_text(run_id, "".join(f"{asdict(verdict)}\n" for verdict in verdicts), "gates.txt")


def _registered(client: Any, name: str, run_id: str, bundle: Bundle) -> str:
    """The version in the registry; its source is the run's artifacts, its tag the bundle."""
    if not client.search_registered_models(f"name = '{name}'"):
        client.create_registered_model(name)
    source = client.get_run(run_id).info.artifact_uri
    tags = {"bundle_version": bundle.version}
    return str(client.create_model_version(name, source, run_id=run_id, tags=tags).version)


def flat(values: Mapping[str, Any], path: str = "") -> dict[str, Any]:
    """Nested names joined by dots."""
    whole: dict[str, Any] = {}
    for name, value in values.items():
        whole |= flat(value, f"{path}{name}.") if isinstance(value, Mapping) else {path + name: value}
    return whole
