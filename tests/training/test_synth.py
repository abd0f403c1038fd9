"""Made-up bundles: their size, their structure, and the reference graph they are ranked by."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx

from features.contract import CONTRACT
from release.bundle import Bundle
from release.graph import read_table, run
from training.reference_graph import CODE_WIDTH, WIDTH, item_embedding_width
from training.synth import SOURCES, synthetic, with_reference_graph


def quiet(_: str) -> None:
    return


def test_a_made_up_bundle_has_the_size_asked_for_and_popularity_is_skewed(tmp_path: Path) -> None:
    bundle = synthetic(1_000, 300, tmp_path / "bundle", seed=3, echo=quiet)
    assert (len(bundle.tables.items), len(bundle.tables.users)) == (1_000, 300)
    assert 15 < len(bundle.tables.users.item_row) / 300 < 25
    events = np.sort(np.bincount(bundle.tables.users.item_row, minlength=1_000))[::-1]
    assert events[:100].sum() > events[100:].sum()
    assert bundle.manifest.sources == SOURCES
    assert bundle.manifest.lineage.metrics["two_tower_recall_at_300"] > 0.95
    assert len(np.unique(bundle.tables.parity.score.round(4))) > 100


def test_any_bundle_can_be_ranked_by_the_reference_graph(tiny_bundle: Bundle, tmp_path: Path) -> None:
    made = with_reference_graph(tiny_bundle.path, tmp_path / "bundle", echo=quiet)
    model = onnx.load(made.model_path)
    crosses = [held for held in model.graph.initializer if held.name.startswith("cross_")]
    assert [list(held.dims) for held in crosses] == [[WIDTH, WIDTH]] * 2  # the first is computed beforehand
    columns = len(made.manifest.columns)
    inputs = CONTRACT.numeric.width + CODE_WIDTH * len(CONTRACT.context) + CONTRACT.item.width + columns
    assert inputs + item_embedding_width(columns) == WIDTH == 200
    assert len(read_table(model)) == len(tiny_bundle.tables.items)
    np.testing.assert_array_equal(made.tables.parity.item_row, tiny_bundle.tables.parity.item_row)
    assert made.tables.users.as_of == tiny_bundle.tables.users.as_of


def test_a_user_unlike_the_sample_is_not_given_one_score_for_everything(tiny_bundle: Bundle, tmp_path: Path) -> None:
    made = with_reference_graph(tiny_bundle.path, tmp_path / "bundle", echo=quiet)
    parity = made.tables.parity
    inputs = {name: getattr(parity, name) for name in ("user", "codes", "item_row", "columns")}
    for distance in (-1e3, 1e3):
        score = run(made.model_path, inputs | {"user": parity.user + np.float32(distance)})
        assert min(len(np.unique(row)) for row in score) > 1
