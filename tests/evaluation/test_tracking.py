"""Training is recorded in MLflow, and the record is no part of the bundle's hash."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
from mlflow.tracking import MlflowClient

from app.commands.evaluating import gate_and_track, told
from app.settings import Settings
from evaluation.tracking import local_store, read_tracking
from release.bundle import Bundle
from release.gates import judge
from training.train import train

ROOT = Path(__file__).resolve().parents[2]


def quiet(_: str) -> None:
    return


def settings_of(home: Path) -> Settings:
    return Settings.from_environment({"STREAMREC_HOME": str(home)})


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One store for all: to make its tables takes seconds."""
    return tmp_path_factory.mktemp("home")


def test_registry_and_bundle_point_at_each_other(trained: Bundle, home: Path) -> None:
    said: list[str] = []
    verdicts = gate_and_track(trained, settings_of(home), said.append)
    tracked = read_tracking(trained.path)
    assert tracked is not None
    client = MlflowClient(local_store(home))
    version = client.get_model_version(tracked.model, tracked.version)
    assert version.tags["bundle_version"] == trained.version
    assert version.run_id == tracked.run_id
    run = client.get_run(tracked.run_id).data
    lineage = trained.manifest.lineage
    assert run.params["data_sha256"] == lineage.data_sha256
    assert run.params["commit"] == lineage.commit
    assert run.metrics["gated.dcn_v2.ndcg_at_10"] == lineage.metrics["gated"]["dcn_v2"]["ndcg_at_10"]
    artifacts = {part.path for part in client.list_artifacts(tracked.run_id)}
    assert {"manifest.json", "feature_schema.json", "gates.txt"} <= artifacts
    assert any("dcn_v2.latency_p95_ms" in line for line in said)
    assert "--accept-because" in told(verdicts, trained.path)  # so few users are held out that fairness refuses


def test_the_same_data_and_seed_give_the_same_files_and_another_run(
    folder: Path, trained: Bundle, home: Path, tmp_path: Path
) -> None:
    again = train(folder, tmp_path / "again", echo=quiet)
    for bundle in (trained, again):
        gate_and_track(bundle, settings_of(home), quiet)
    assert trained.manifest.files == again.manifest.files
    assert trained.version == again.version
    one, two = read_tracking(trained.path), read_tracking(again.path)
    assert one is not None
    assert two is not None
    assert int(two.version) == int(one.version) + 1
    assert one.run_id != two.run_id
    assert Bundle.load(trained.path).version == trained.version


def test_training_measures_what_the_gates_ask(trained: Bundle) -> None:
    verdicts = judge(trained.manifest)
    assert "not measured" not in {verdict.found for verdict in verdicts}
    gated = trained.manifest.lineage.metrics["gated"]
    assert 0 <= gated["dcn_v2"]["calibration_error"] <= 1
    assert gated["dcn_v2"]["latency_p95_ms"] > 0


def test_nothing_that_serves_imports_it() -> None:
    roots = "{module.split('.')[0] for module in sys.modules}"
    script = "import sys, app.main, app.commands.publishing; "
    script += f"sys.exit(bool({roots} & {{'mlflow', 'evaluation', 'matplotlib'}}))"
    assert subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=False).returncode == 0
