"""The plain model, the exported graph that precomputes the items' side, and the numbers around them."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from features.contract import CONTRACT
from features.encode import candidate_columns
from training import dcn_v2, logistic
from training.batch_lists import build
from training.rank_rows import RankRows
from training.sources import NAMES

ITEMS = 40
COLUMNS = len(candidate_columns(NAMES))


def make_rows(requests: int = 12, n: int = 20, seed: int = 0) -> RankRows:
    """Requests in which the candidates with a high first column are the liked ones."""
    rng = np.random.default_rng(seed)
    columns = rng.normal(size=(requests, n, COLUMNS)).astype(np.float32)
    there = np.ones((requests, n), np.bool_)
    there[0, n // 2 :] = False
    liked = (columns[:, :, 0] > 1.0) & there
    numeric = rng.random((requests, CONTRACT.numeric.width)).astype(np.float32)
    return RankRows(
        np.arange(requests, dtype=np.int32),
        np.zeros(requests, np.int64),
        numeric,
        CONTRACT.numeric.scaled(numeric),
        rng.integers(0, 4, (requests, len(CONTRACT.context))).astype(np.int32),
        np.stack([rng.permutation(ITEMS)[:n] for _ in range(requests)]).astype(np.int32),
        there,
        columns,
        liked,
        np.maximum(liked.sum(axis=1), 1),
    )


def item_features(cuts: int = 1) -> np.ndarray[Any, np.dtype[np.float32]]:
    return np.random.default_rng(5).random((cuts, ITEMS, CONTRACT.item.width)).astype(np.float32)


@pytest.mark.parametrize("structure", ["parallel", "stacked"])
@pytest.mark.parametrize("crossing", ["full", "mixture"])
@pytest.mark.parametrize("crosses", [1, 3])
def test_the_exported_graph_equals_the_plain_model(
    structure: dcn_v2.Structure, crossing: dcn_v2.Crossing, crosses: int, tmp_path: Path
) -> None:
    torch.manual_seed(0)
    rows, features = make_rows(), item_features()
    inputs = dcn_v2.measure_inputs(rows, features)
    model = dcn_v2.DcnV2(inputs, dcn_v2.Shape(structure, crossing, crosses=crosses)).eval()
    for parameter in model.parameters():  # larger than at the start, so that a wrong part would show
        torch.nn.init.normal_(parameter, std=0.1)
    plain = 1.0 / (1.0 + np.exp(-(1.5 * dcn_v2.logits(model, rows, inputs) - 0.5)))
    path = tmp_path / "model.onnx"
    dcn_v2.export(dcn_v2.Exported(model, inputs.standard_item(features[0]), 1.5, -0.5), rows.only(rows.cut == 0), path)
    answered = dcn_v2.scores(path, rows)
    np.testing.assert_allclose(answered[rows.there], plain[rows.there], atol=1e-5)
    assert (answered[~rows.there] == -np.inf).all()
    assert np.ptp(answered[rows.there]) > 0.01


def test_the_model_has_at_least_128_inputs() -> None:
    rows = make_rows()
    assert dcn_v2.DcnV2(dcn_v2.measure_inputs(rows, item_features()), dcn_v2.Shape()).width >= 128


@pytest.mark.parametrize("crossing", ["full", "mixture"])
def test_before_the_first_step_the_model_orders_as_the_best_linear_one(crossing: dcn_v2.Crossing) -> None:
    rows = make_rows(60)
    inputs = dcn_v2.measure_inputs(rows, item_features())
    shape, schedule = dcn_v2.Shape(crossing=crossing), dcn_v2.Schedule(epochs=0)
    model, *_ = dcn_v2.fit(rows, rows, inputs, shape, schedule, 0)
    assert dcn_v2.ndcg(rows, dcn_v2.logits(model, rows, inputs)) > 0.95


def test_training_finds_what_decides_and_does_so_again() -> None:
    rows, judged = make_rows(60), make_rows(30, seed=9)
    inputs = dcn_v2.measure_inputs(rows, item_features())
    schedule = dcn_v2.Schedule(epochs=15, patience=15, requests=8, learning_rate=1e-2, averaging=0.5)
    shape = dcn_v2.Shape(deep=(16, 8), dropout=0.0)
    (one, slope, offset), (two, *_) = (dcn_v2.fit(rows, judged, inputs, shape, schedule, 3) for _ in range(2))
    scores = dcn_v2.logits(one, judged, inputs)
    assert dcn_v2.ndcg(judged, scores) > 0.9
    np.testing.assert_array_equal(scores, dcn_v2.logits(two, judged, inputs))
    probability = 1.0 / (1.0 + np.exp(-(slope * scores[judged.there] + offset)))
    assert probability.mean() == pytest.approx(judged.liked[judged.there].mean(), abs=0.01)


def test_calibration_never_turns_an_order_round() -> None:
    rows = make_rows()
    slope, _ = dcn_v2.calibration(rows, -rows.columns[:, :, 0])
    assert slope > 0


def test_calibration_without_both_labels_leaves_scores_alone() -> None:
    rows = make_rows()
    nothing = replace(rows, liked=np.zeros_like(rows.liked))
    assert dcn_v2.calibration(nothing, rows.columns[:, :, 0]) == (1.0, 0.0)


def test_ndcg_counts_what_was_not_retrieved_as_missed() -> None:
    rows = make_rows(1)
    liked = np.zeros_like(rows.liked)
    liked[0, 0] = True
    score = np.where(np.arange(liked.shape[1]) == 0, 1.0, 0.0)[None].astype(np.float32)
    assert dcn_v2.ndcg(replace(rows, liked=liked, liked_in_all=np.array([1])), score) == pytest.approx(1.0)
    two = dcn_v2.ndcg(replace(rows, liked=liked, liked_in_all=np.array([2])), score)
    assert two == pytest.approx(1.0 / (1.0 + 1.0 / np.log2(3)))


def test_logistic_regression_orders_by_what_decides_and_is_calibrated() -> None:
    rows, features = make_rows(80), item_features()
    tables = logistic.fit(rows, features, 0)
    scores = logistic.scores(tables, rows, features)
    assert dcn_v2.ndcg(rows, scores) > 0.9
    probability = 1.0 / (1.0 + np.exp(-scores[rows.there]))
    assert probability.mean() == pytest.approx(rows.liked[rows.there].mean(), abs=0.02)


def test_a_batch_list_holds_the_best_real_candidates_of_each_user() -> None:
    rows = make_rows(3)
    score = np.where(rows.there, rows.columns[:, :, 0], -np.inf)
    table = build(rows, score)
    assert table.indptr.tolist() == [0, 10, 30, 50]
    first = table.item_row[:10]
    assert set(first.tolist()) == set(rows.item_row[0, :10].tolist())
    assert (np.diff(table.score[:10]) <= 0).all()
