"""What the preference source learns from likes."""

from __future__ import annotations

import numpy as np

from tests.training.conftest import MakeFolder
from training import preference
from training.dataset import read
from training.split import everything


def test_given_a_genre_its_items_are_as_likely_as_they_are_liked(make_random_folder: MakeFolder) -> None:
    dataset = read(make_random_folder())
    tables = preference.fit(everything(dataset))
    totals = tables.given_genre.sum(axis=0)
    np.testing.assert_allclose(totals[tables.prior > 0], 1.0, atol=1e-5)
    np.testing.assert_allclose(tables.prior.sum(), 1.0, atol=1e-5)
    liked = np.bincount(dataset.item_row[dataset.rating >= 4], minlength=len(dataset.item_ids))
    assert (np.diff(liked[tables.item_row]) <= 0).all()
    assert (liked[tables.item_row] > 0).all()


def test_users_of_one_taste_each_make_the_prior_weak(make_random_folder: MakeFolder) -> None:
    tables = preference.fit(everything(read(make_random_folder())))
    assert tables.strength[0] == min(preference.STRENGTHS)


def test_a_dataset_without_genres_has_one_category(make_random_folder: MakeFolder) -> None:
    tables = preference.fit(everything(read(make_random_folder(genres=None))))
    assert tables.prior.tolist() == [0.0] * (len(tables.prior) - 1) + [1.0]
