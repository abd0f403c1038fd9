"""A dataset folder becomes a bundle that loads, whatever columns it has."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from domain.errors import DatasetError
from domain.request import Context, Request
from fallbacks.batch_lists import BatchList
from features.contract import CONTRACT
from features.definitions import numeric_features
from release.bundle import Bundle
from tests.training.conftest import RATINGS, MakeFolder
from training import content, dcn_v2, sources
from training.dataset import read
from training.rank_rows import collect
from training.split import final_cut, validation_cut
from training.stored import stored_features
from training.train import train


def quiet(_: str) -> None:
    return


def test_training_ends_in_a_verified_bundle(make_random_folder: MakeFolder, tmp_path: Path) -> None:
    said: list[str] = []
    bundle = train(make_random_folder(), tmp_path / "bundle", echo=said.append)
    assert said[-1].startswith(f"bundle {bundle.version}")
    tables, again = bundle.tables, Bundle.load(bundle.path)
    assert again.version == bundle.version
    assert len(tables.users) == 24
    assert bundle.manifest.dataset.clock == "replay"
    assert bundle.manifest.lineage.metrics["validation_recall_at_500"] > 0.5
    assert "context_device" in bundle.manifest.lineage.parameters["untrained_features"]
    assert len(tables.reference.edges) == CONTRACT.numeric.width
    assert_parity_tables_hold(bundle)
    assert_lists_are_unseen(bundle)


def assert_parity_tables_hold(bundle: Bundle) -> None:
    session = dcn_v2.session(bundle.model_path)
    parity = bundle.tables.parity
    names = ("user", "codes", "item_row", "columns")
    (score,) = session.run(["score"], {name: np.array(getattr(parity, name)) for name in names})
    np.testing.assert_allclose(score, parity.score, atol=1e-5)


def assert_lists_are_unseen(bundle: Bundle) -> None:
    fallback = BatchList(bundle.tables.batch_lists, bundle.tables.items.eligible)
    for user in range(len(bundle.tables.users)):
        listed = fallback.slate(Request("u", user, 20, Context(), 0.0), np.empty(0, np.int32)).item_row
        assert len(set(listed.tolist())) == 20
        assert not np.isin(listed, bundle.tables.users.history(user).item_row).any()


@pytest.mark.parametrize(
    "folder",
    [
        {"users": 1, "items": 40, "events": 20},
        {"users": 8, "genres": None},
        {"users": 8, "genres": None, "year": None},
    ],
    ids=["one user", "no genres", "neither genres nor years"],
)
def test_sparse_datasets_train(make_random_folder: MakeFolder, tmp_path: Path, folder: dict[str, Any]) -> None:
    bundle = train(make_random_folder(**folder), tmp_path / "bundle", echo=quiet)
    assert np.isfinite(bundle.tables.parity.score).all()
    assert np.isfinite(bundle.tables.users.features).all()


def test_a_dataset_in_which_nobody_likes_anything_is_refused_in_plain_words(
    make_folder: MakeFolder, tmp_path: Path
) -> None:
    ratings = {**RATINGS, "rating": [2.0, 1.0, 3.0]}
    with pytest.raises(DatasetError, match="nothing to rank by"):
        train(make_folder(ratings=ratings), tmp_path / "bundle", echo=quiet)
    assert not (tmp_path / "bundle").exists()


def test_requests_never_offer_what_was_met_before_the_cut(make_random_folder: MakeFolder) -> None:
    dataset = read(make_random_folder())
    cut = validation_cut(dataset)
    fitted = sources.fit(cut, content.fit(dataset), np.inf, 0)
    rows = collect(fitted, 0)
    assert len(rows)
    for at, user in enumerate(rows.user_row.tolist()):
        offered = rows.item_row[at][rows.there[at]]
        assert not np.isin(offered, cut.history(user).item_row).any()
        assert len(np.unique(offered)) == len(offered)
        assert np.isin(offered[rows.liked[at][rows.there[at]]], cut.held_out(user).item_row).all()


def test_features_of_a_request_ignore_the_seconds_of_the_held_out_events(make_random_folder: MakeFolder) -> None:
    dataset = read(make_random_folder())
    cut = final_cut(dataset)
    fitted = sources.fit(cut, content.fit(dataset), np.inf, 0)
    known = sources.retrieve_all(fitted, [0])[0].user
    assert known.numeric[0] == cut.length[0]  # events, ever
    assert len(known.history) == cut.length[0]


def test_stored_features_of_training_come_out_of_the_point_in_time_join(make_random_folder: MakeFolder) -> None:
    dataset = read(make_random_folder())
    fitted = sources.fit(final_cut(dataset), content.fit(dataset), np.inf, 0)
    users = [2, 0, 1]
    rows = collect(fitted, 0, users)
    histories, moments = [fitted.cut.history(u) for u in users], np.array([fitted.cut.moment(u) for u in users])
    stored = stored_features(dataset, users, histories, moments, fitted.facts)
    np.testing.assert_array_equal(rows.numeric[:, : CONTRACT.user.width], stored)
    expected = [numeric_features(h, m, fitted.facts) for h, m in zip(histories, moments.tolist(), strict=True)]
    np.testing.assert_array_equal(rows.numeric, np.stack(expected))
    assert len(np.unique(stored, axis=0)) == len(users)
