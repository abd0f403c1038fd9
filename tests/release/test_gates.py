"""Gates pass what reaches every limit, and look back further than the champion."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from domain.errors import DatasetError
from release import gates
from release.bundle import Bundle, Manifest
from release.gates import Gates, Past, judge, refused

GOOD: dict[str, dict[str, float]] = {
    "retrieval": {"recall_at_500": 0.7},
    "dcn_v2": {"hit_at_10": 0.5, "ndcg_at_10": 0.13, "calibration_error": 0.004, "latency_p95_ms": 3.0},
    "logistic": {"ndcg_at_10": 0.12},
    "fairness": {"hit_disparity": 0.05, "exposure_equity": 0.8},
}


def manifest(
    bundle: Bundle, measured: dict[str, dict[str, float]], configured: dict[str, Any] | None = None
) -> Manifest:
    lineage = replace(bundle.manifest.lineage, metrics={"gated": measured}, parameters={"gates": configured or {}})
    return replace(bundle.manifest, lineage=lineage)


def but(model: str, metric: str, value: float) -> dict[str, dict[str, float]]:
    return {**GOOD, model: {**GOOD[model], metric: value}}


def past(ndcg: float, version: str = "v") -> Past:
    return Past(version, "tiny", but("dcn_v2", "ndcg_at_10", ndcg))


def test_a_good_bundle_passes_every_gate(tiny_bundle: Bundle) -> None:
    verdicts = judge(manifest(tiny_bundle, GOOD))
    assert not refused(verdicts)
    assert {"bundle.size_mb", "bundle.contract", "dcn_v2.latency_p95_ms"} <= {verdict.gate for verdict in verdicts}


@pytest.mark.parametrize(
    ("model", "metric", "value"),
    [
        ("retrieval", "recall_at_500", 0.49),
        ("dcn_v2", "hit_at_10", 0.17),
        ("dcn_v2", "ndcg_at_10", 0.099),
        ("dcn_v2", "ndcg_at_10", float("nan")),
        ("dcn_v2", "calibration_error", 0.021),
        ("dcn_v2", "latency_p95_ms", 51.0),
        ("logistic", "ndcg_at_10", 0.01),
        ("fairness", "hit_disparity", 0.11),
        ("fairness", "exposure_equity", 0.59),
    ],
)
def test_each_gate_refuses_by_its_name(tiny_bundle: Bundle, model: str, metric: str, value: float) -> None:
    (verdict,) = refused(judge(manifest(tiny_bundle, but(model, metric, value))))
    assert verdict.gate == f"{model}.{metric}"


def test_what_was_not_measured_does_not_pass(tiny_bundle: Bundle) -> None:
    without = {model: table for model, table in GOOD.items() if model != "fairness"}
    assert {verdict.found for verdict in refused(judge(manifest(tiny_bundle, without)))} == {"not measured"}


def test_size_and_contract_are_read_off_the_manifest(tiny_bundle: Bundle) -> None:
    large = replace(manifest(tiny_bundle, GOOD), files={"x": {"sha256": "", "bytes": 600_000_000}})
    other = replace(manifest(tiny_bundle, GOOD), contract_hash="another")
    assert [verdict.gate for verdict in refused(judge(large))] == ["bundle.size_mb"]
    assert [verdict.gate for verdict in refused(judge(other))] == ["bundle.contract"]


def test_a_chain_of_small_declines_is_refused_although_each_is_small(tiny_bundle: Bundle) -> None:
    history: list[Past] = []
    quality, published = 0.15, []
    while not refused(judge(manifest(tiny_bundle, but("dcn_v2", "ndcg_at_10", quality)), history)):
        published.append(quality)
        history.append(past(quality))
        quality *= 0.98  # two per cent below the champion, which alone would pass every time
    assert len(published) == 3
    assert quality > 0.1  # it is the history that refused, not the threshold
    (verdict,) = refused(judge(manifest(tiny_bundle, but("dcn_v2", "ndcg_at_10", quality)), history))
    assert verdict.gate == "history: dcn_v2.ndcg_at_10"
    assert not refused(judge(manifest(tiny_bundle, but("dcn_v2", "ndcg_at_10", quality)), history[-1:]))


def test_a_pinned_publication_is_the_one_compared_with(tiny_bundle: Bundle) -> None:
    history = [past(0.2, "lucky"), past(0.13, "sound")]
    pinned = manifest(tiny_bundle, GOOD, {"history": {"pinned": "sound"}})
    assert refused(judge(manifest(tiny_bundle, GOOD), history))
    assert not refused(judge(pinned, history))
    assert [verdict.gate for verdict in refused(judge(pinned, history[:1]))] == ["history"]


def test_publications_of_another_dataset_say_nothing(tiny_bundle: Bundle) -> None:
    elsewhere = replace(past(0.9), dataset="other")
    assert not refused(judge(manifest(tiny_bundle, GOOD), [elsewhere]))


def test_gates_are_configured_in_the_dataset_folder(tmp_path: Path, tiny_bundle: Bundle) -> None:
    (tmp_path / gates.FILE).write_text("[dcn_v2]\nndcg_at_10 = 0.2\ncalibration_error = false\n[targets]\nx = 1\n")
    configured = Gates.read(tmp_path)
    assert Gates.of(configured.as_parameters()) == configured
    verdicts = judge(manifest(tiny_bundle, GOOD, configured.as_parameters()))
    assert [verdict.gate for verdict in refused(verdicts)] == ["dcn_v2.ndcg_at_10"]
    assert "dcn_v2.calibration_error" not in {verdict.gate for verdict in verdicts}


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("[dcn_v2]\nndgc = 1", "there is no gate dcn_v2.ndgc"),
        ("[other]\nx = 1", "there is no gate other.x"),
        ('[dcn_v2]\nndcg_at_10 = "high"', "a limit is a number"),
        ("[history]\nbest = 1", "history has no best"),
        ("dcn_v2 = 1", "dcn_v2"),
        ("[", "gates.toml"),
    ],
)
def test_a_wrong_configuration_is_told_in_plain_words(tmp_path: Path, text: str, told: str) -> None:
    (tmp_path / gates.FILE).write_text(text)
    with pytest.raises(DatasetError) as caught:
        Gates.read(tmp_path)
    assert told in caught.value.problems[0]


def test_the_history_remembers_what_was_published(tmp_path: Path, tiny_bundle: Bundle) -> None:
    assert gates.read_history(tmp_path) == []
    gates.remember(manifest(tiny_bundle, GOOD), tmp_path)
    gates.remember(manifest(tiny_bundle, but("dcn_v2", "ndcg_at_10", 0.2)), tmp_path)
    first, second = gates.read_history(tmp_path)
    assert (first.version, first.dataset) == (tiny_bundle.version, "tiny")
    assert second.metrics["dcn_v2"]["ndcg_at_10"] == 0.2


def test_a_refreshed_catalogue_is_asked_for_size_and_contract_alone(tiny_bundle: Bundle) -> None:
    whole = manifest(tiny_bundle, but("dcn_v2", "ndcg_at_10", 0.01))
    lineage = replace(whole.lineage, parameters={"gates": {}, gates.JUDGED: {"accepted_because": "law"}})
    refreshed = replace(whole, lineage=lineage)
    assert {verdict.gate for verdict in judge(refreshed, [past(0.2)])} == {"bundle.size_mb", "bundle.contract"}
    assert not refused(judge(refreshed, [past(0.2)]))
    large = replace(refreshed, files={"x": {"sha256": "", "bytes": 600_000_000}})
    assert [verdict.gate for verdict in refused(judge(large))] == ["bundle.size_mb"]


@pytest.mark.parametrize(
    "line", ['{"version": "v", "dataset": "tiny", "metr', "7", '{"version": "v"}', "", "[]", '{"metrics": 3}', "\x00"]
)
def test_a_line_that_is_no_publication_is_passed_over(tmp_path: Path, tiny_bundle: Bundle, line: str) -> None:
    gates.remember(manifest(tiny_bundle, GOOD), tmp_path)
    with (tmp_path / gates.HISTORY).open("a") as file:
        file.write(line)
    gates.remember(manifest(tiny_bundle, but("dcn_v2", "ndcg_at_10", 0.2)), tmp_path)
    assert [entry.metrics["dcn_v2"]["ndcg_at_10"] for entry in gates.read_history(tmp_path)] == [0.13, 0.2]


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_publication_without_a_number_sets_no_bar(tmp_path: Path, tiny_bundle: Bundle, value: float) -> None:
    gates.remember(manifest(tiny_bundle, but("dcn_v2", "ndcg_at_10", value)), tmp_path)
    gates.remember(manifest(tiny_bundle, GOOD), tmp_path)
    history = gates.read_history(tmp_path)
    assert not refused(judge(manifest(tiny_bundle, GOOD), history))
    (verdict,) = refused(judge(manifest(tiny_bundle, but("dcn_v2", "ndcg_at_10", 0.101)), history))
    assert verdict.gate == "history: dcn_v2.ndcg_at_10"
