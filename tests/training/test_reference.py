"""The reference histograms, under both clocks."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from domain.catalogue import Users
from domain.clock import LiveClock, ReplayClock
from domain.request import Context
from features.contract import CONTRACT
from features.counts import FIRST_MONDAY, PHASES, code_spans, phase
from features.definitions import context_codes, user_features
from tests.training.conftest import MakeFolder
from training import sources
from training.dataset import Dataset, read
from training.reference import AGES, reference_tables
from training.split import everything


@pytest.fixture
def dataset(make_random_folder: MakeFolder) -> Dataset:
    return read(make_random_folder())


def reference_of(dataset: Dataset):
    facts = sources.item_facts(everything(dataset))
    histories = [dataset.history(user) for user in range(len(dataset.user_ids))]
    rows = [user_features(history, (history.last_event or 0.0) + 1.0, facts) for history in histories]
    log = (dataset.indptr, dataset.item_row, dataset.rating, dataset.timestamp, dataset.ended_at)
    return reference_tables(dataset, Users(dataset.user_ids, np.stack(rows), *log), facts)


def test_under_replay_every_user_counts_once_at_every_age(dataset: Dataset) -> None:
    reference = reference_of(dataset)
    assert reference.counts.shape[0] == len(AGES) + 1
    assert (reference.counts.sum(axis=2) == len(dataset.user_ids)).all()
    last = CONTRACT.numeric.slices["user_since_last_event_hours"].start
    assert (reference.counts[:, last].argmax(axis=1) == np.arange(len(AGES) + 1)).all()


def test_a_session_is_over_at_every_age_but_the_first(dataset: Dataset) -> None:
    reference = reference_of(dataset)
    place = [feature.name for feature in CONTRACT.numeric.features].index("session_events_count")
    assert reference.defaults[0, place] == 0
    assert (reference.defaults[1:, place] == len(dataset.user_ids)).all()


def test_edges_ascend_and_the_smallest_value_seen_is_above_the_first(dataset: Dataset) -> None:
    reference = reference_of(dataset)
    with np.errstate(invalid="ignore"):  # infinite ones follow each other
        steps = np.diff(reference.edges, axis=1)
    assert (steps[np.isfinite(steps)] > 0).all()
    users = CONTRACT.user.width
    assert (reference.counts[0, :users, 0] == 0).all()


@pytest.mark.parametrize("later", [0.0, 1234.0, 5 * 3600.0, 200 * 3600.0])
def test_the_hour_goes_round_under_replay(dataset: Dataset, later: float) -> None:
    reference, clock = reference_of(dataset), ReplayClock(1e9, dataset.ended_at, lambda: 1e9 + later)
    span = code_spans(CONTRACT)["context_weekday"]
    shown = reference.codes[phase(1e9 + later, clock), span]
    lasts = [dataset.history(user).last_event for user in range(len(dataset.user_ids))]
    served = np.bincount([context_codes(Context(), clock.now(last))[3] for last in lasts], minlength=8)
    assert np.abs(shown - served).sum() <= 2  # one user within a quarter of an hour of midnight


def test_live_the_hour_is_the_hour_and_the_moments_are_those_of_events(dataset: Dataset) -> None:
    live = replace(dataset, settings=replace(dataset.settings, clock="live"))
    reference = reference_of(live)
    assert reference.counts.shape[0] == 1
    events_after_another = len(dataset.item_row) - len(dataset.user_ids)
    assert (reference.counts.sum(axis=2) == events_after_another).all()
    assert (reference.codes.sum(axis=1) == len(CONTRACT.context)).all()
    for quarter in range(0, PHASES, 37):
        wall = FIRST_MONDAY + (quarter + 0.99) * 900
        codes = context_codes(Context(), wall)
        at = [span.start + code for span, code in zip(code_spans(CONTRACT).values(), codes.tolist(), strict=True)]
        assert reference.codes[phase(wall, LiveClock())][at].tolist() == [1] * len(at)
