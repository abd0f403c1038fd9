"""The whole evaluation on a small folder: what is judged, by what, and what is told of it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from app.commands.evaluating import Asked, evaluate_and_report
from app.settings import Settings
from domain.errors import BundleError, DatasetError
from evaluation import protocol, report
from evaluation.protocol import DCN, DCN_SHOWN, MERGED, Evaluation
from evaluation.targets import read_absolute, targets
from release.bundle import Bundle
from reranking.configured import DEFAULT, configured
from tests.training.conftest import MakeFolder
from training.dataset import read
from training.split import final_cut


def quiet(_: str) -> None:
    return


def test_the_rehearsal_never_sees_the_test_part(folder: Path) -> None:
    whole = read(folder)
    rehearsed, test = protocol.part_of(whole, "validation"), final_cut(whole)
    for user in range(len(whole.user_ids)):
        assert rehearsed.history(user).item_row.tolist() == test.history(user).item_row.tolist()
    assert protocol.part_of(whole, "test") is whole


@pytest.fixture(scope="module")
def evaluated(folder: Path) -> Evaluation:
    return protocol.evaluate(folder, configured(DEFAULT), part="validation", seeds=(0, 1), echo=quiet)


def test_every_model_is_judged_on_the_same_users(evaluated: Evaluation) -> None:
    lengths = {len(found.hit_at_10) for run in evaluated.runs for found in run.models.values()}
    assert lengths | {len(part.quality.hit_at_10) for part in evaluated.baselines} == {evaluated.users}
    first = evaluated.runs[0]
    assert {DCN, DCN_SHOWN, MERGED, "source content", "logistic, as ranked"} <= first.models.keys()
    assert first.models[MERGED].recall_at_500.mean() == 1.0  # fewer unseen items than candidates
    np.testing.assert_array_equal(first.models[MERGED].recall_at_500, first.models[DCN_SHOWN].recall_at_500)


def test_shares_and_probabilities_are_such(evaluated: Evaluation) -> None:
    for run in evaluated.runs:
        assert 0 < run.shown.coverage <= 1
        assert 0 <= run.exposure_equity <= 1
        assert sum(group.users for group in run.user_groups["activity"]) == evaluated.users
        for numbers in run.rankers.values():
            assert 0 <= numbers.auc <= 1
            assert numbers.log_loss > 0


def test_the_report_says_of_every_target_whether_it_is_met(evaluated: Evaluation, tmp_path: Path) -> None:
    judged = targets(evaluated, {"ndcg_at_10": 2.0, "recall_at_500": 0.5})
    by_name = {target.name: target.met for target in judged}
    assert by_name["ndcg_at_10 on this dataset"] is False
    assert by_name["recall_at_500 on this dataset"] is True
    written = report.write(evaluated, judged, ["a note"], tmp_path / "out")
    text = written.read_text()
    assert "Other users' later events are visible to every model alike" in text
    assert text.count("**not met**") == sum(not target.met for target in judged)
    for picture in ("ranking.png", "recall.png", "calibration.png", "exposure.png"):
        assert f"({picture})" in text
        assert (written.parent / picture).read_bytes().startswith(b"\x89PNG")
    least = np.mean([run.user_groups["activity"][0].hit_at_10 for run in evaluated.runs])
    assert f"| {DCN_SHOWN} | {least:.3f} | " in text.partition("Hit@10 by activity")[2]
    document: dict[str, Any] = json.loads((written.parent / report.DOCUMENT).read_text())
    assert document["seeds"].keys() == {"0", "1"}
    assert document["targets"][0]["met"] in {True, False}


def test_a_target_that_is_not_known_is_told(tmp_path: Path) -> None:
    (tmp_path / "gates.toml").write_text("[targets]\nndgc = 1\n")
    with pytest.raises(DatasetError):
        read_absolute(tmp_path)


def test_of_a_bundle_its_recipe_is_judged_and_its_rankers_are_compared(
    folder: Path, trained: Bundle, tmp_path: Path
) -> None:
    settings = Settings.from_environment({"STREAMREC_HOME": str(tmp_path / "home")})
    found = evaluate_and_report(Asked(folder, bundle=trained.path), settings, quiet)
    assert any("what is judged is its recipe" in note for note in found.notes)
    assert any("is the one that was judged, number by number" in note for note in found.notes)
    assert found.report.parent == trained.path.with_name(f"{trained.path.name}-evaluation")


def test_a_bundle_of_other_data_is_not_spoken_of(
    make_random_folder: MakeFolder, trained: Bundle, tmp_path: Path
) -> None:
    other = make_random_folder(users=12, name="other")
    settings = Settings.from_environment({"STREAMREC_HOME": str(tmp_path / "home")})
    with pytest.raises(BundleError, match="not trained on this dataset"):
        evaluate_and_report(Asked(other, bundle=trained.path), settings, quiet)
