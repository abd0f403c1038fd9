"""The towers: what they are trained on, and that serving computes the same vectors."""

from __future__ import annotations

import faiss
import numpy as np
import pytest
import torch

from domain.catalogue import History
from features.contract import CONTRACT
from features.definitions import numeric_features
from retrieval.two_tower import MAX_HISTORY, history_shares
from tests.training.conftest import MakeFolder
from training import sources, two_tower
from training.dataset import read
from training.split import validation_cut


def test_shares_sum_to_one_and_the_latest_like_is_heard_most() -> None:
    shares = history_shares(7)
    assert shares.sum() == pytest.approx(1.0)
    assert (np.diff(shares) > 0).all()


def test_a_history_in_an_example_ends_before_its_targets(make_random_folder: MakeFolder) -> None:
    cut = validation_cut(read(make_random_folder()))
    examples = two_tower.make_examples(cut, sources.item_facts(cut))
    assert len(examples.liked)
    for liked, target in zip(examples.liked, examples.target, strict=True):
        assert not set(liked[liked >= 0].tolist()) & set(target.tolist())  # users here meet an item once
        assert target[0] >= 0
    assert examples.numeric.shape[1] == CONTRACT.numeric.width


def test_the_exported_tower_gives_the_vectors_of_the_trained_one() -> None:
    torch.manual_seed(1)
    mean = np.full(CONTRACT.numeric.width, 0.5, np.float32)
    scale = np.full(CONTRACT.numeric.width, 2.0, np.float32)
    towers = two_tower.Towers(9, 3, mean, scale).eval()
    tower = two_tower.exported(towers, mean, scale)
    rows = np.array([4, 0, 7], np.int32)
    liked = History(rows, np.full(3, 5, np.float32), np.arange(3.0))
    raw = CONTRACT.numeric.defaults
    share = torch.zeros(1, MAX_HISTORY)
    share[0, :3] = torch.from_numpy(history_shares(3))
    padded = torch.zeros(1, MAX_HISTORY, dtype=torch.long)
    padded[0, :3] = torch.from_numpy(rows.astype(np.int64))
    with torch.no_grad():
        expected = towers.user_vector(padded, share, torch.from_numpy(CONTRACT.numeric.scaled(raw))[None])[0]
    np.testing.assert_allclose(tower.vector(liked, raw), expected.numpy(), atol=1e-6)


def test_the_loss_over_sampled_items_estimates_the_one_over_the_catalogue() -> None:
    torch.manual_seed(0)
    towers = two_tower.Towers(40, 3, np.zeros(2, np.float32), np.ones(2, np.float32)).eval()
    user = torch.nn.functional.normalize(torch.randn(6, two_tower.VECTOR), dim=1)
    target, features = torch.randint(0, 40, (6, 2)), torch.randn(40, 3)
    skewed = np.log(np.arange(1, 41) / np.arange(1, 41).sum()).astype(np.float32)
    whole = two_tower.catalogue_loss(towers, user, target, features)
    sampled = two_tower.sampled_loss(towers, user, target, features, skewed, np.random.default_rng(0))
    assert sampled.item() == pytest.approx(whole.item(), abs=0.15)


def test_the_same_seed_trains_the_same_towers(make_random_folder: MakeFolder) -> None:
    cut = validation_cut(read(make_random_folder(users=6, items=20, events=10)))
    items, facts = sources.item_table(cut), sources.item_facts(cut)
    (one, vectors), (two, again) = (two_tower.fit(cut, items.features, facts, 3) for _ in range(2))
    np.testing.assert_array_equal(vectors, again)
    np.testing.assert_array_equal(one.hidden_weight, two.hidden_weight)


def test_a_large_catalogue_gets_an_inverted_file() -> None:
    vectors = np.random.default_rng(0).normal(size=(2_000, 8)).astype(np.float32)
    assert "Flat" in type(two_tower.build_index(vectors)).__name__
    index = two_tower.build_index(vectors, flat_below=100)
    assert "IVF" in type(index).__name__
    found = index.search(vectors[:1], 5)[1][0]
    assert faiss.extract_index_ivf(index).nprobe >= 1
    assert (found >= 0).all()


def test_the_user_vector_moves_with_every_like_of_the_session(make_random_folder: MakeFolder) -> None:
    dataset = read(make_random_folder())
    cut = validation_cut(dataset)
    items, facts = sources.item_table(cut), sources.item_facts(cut)
    tower, vectors = two_tower.fit(cut, items.features, facts, 0)
    before = cut.history(0)
    now = before.timestamp[-1] + 60.0
    unseen = np.setdiff1d(np.arange(30), before.item_row)[:2].astype(np.int32)
    later = History(unseen, np.full(2, 5.0, np.float32), np.array([now, now + 60.0]))
    one, two = (
        tower.vector(history, numeric_features(history, now + 120.0, facts)) for history in (before, before.then(later))
    )
    assert one @ two < 1.0 - 1e-4
    assert vectors.shape[1] == len(one)
