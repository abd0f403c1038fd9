"""Which of a user's events are train, validation and test.

Per user, in the order of the dataset (time, ties by digest): of ``h`` events those before position ``floor(0.7 h)`` are
train, those before ``floor(0.8 h)`` validation, the rest test. A cut is one integer a user, so sources can be fitted
on what any cut leaves before it.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Mask, Rows
from domain.catalogue import History
from training.dataset import Dataset

TRAIN_PERCENT = 70
VALIDATION_PERCENT = 80
BEGINNERS_SHARE = 1 / 3
BEGINNINGS = (0, 0, 1, 2, 3, 5)
"""How many events a beginner is known by, drawn evenly."""

Lengths = NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Cut:
    """The dataset as it was known when each user had done the first ``length`` of their events.

    ``until`` bounds what is held out: the events from ``length`` to ``until`` are the future that is asked about.
    """

    dataset: Dataset
    length: Lengths  # (users,)
    until: Lengths  # (users,)

    @property
    def known(self) -> Mask:
        """``(events,)``: the events before the cut."""
        return self._position() < np.repeat(self.length, np.diff(self.dataset.indptr))

    def _position(self) -> NDArray[np.int64]:
        """``(events,)``: the how-manieth event of its user each event is."""
        sizes = np.diff(self.dataset.indptr)
        return np.arange(len(self.dataset.item_row)) - np.repeat(self.dataset.indptr[:-1], sizes)

    def history(self, user: int) -> History:
        """The user's events before the cut."""
        return _part(self.dataset.history(user), 0, int(self.length[user]))

    def held_out(self, user: int) -> History:
        """The user's events from the cut to ``until``."""
        return _part(self.dataset.history(user), int(self.length[user]), int(self.until[user]))

    def moment(self, user: int) -> float:
        """The second of the first held-out event; a second after the last known one where nothing is held out."""
        held_out = self.held_out(user)
        if len(held_out):
            return float(np.floor(held_out.timestamp[0]))
        last = self.history(user).last_event
        return (self.dataset.ended_at if last is None else last) + 1.0

    def liked(self, user: int) -> Rows:
        """The items of the held-out positives: the labels."""
        held_out = self.held_out(user)
        positive = np.isnan(held_out.rating) | (held_out.rating >= self.dataset.settings.positive_stars)
        return held_out.item_row[positive]


def _part(history: History, start: int, end: int) -> History:
    return History(history.item_row[start:end], history.rating[start:end], history.timestamp[start:end])


def lengths(dataset: Dataset, percent: int) -> Lengths:
    """``(users,)``: the first ``percent`` of each user's events, rounded down."""
    return np.asarray(np.diff(dataset.indptr) * percent // 100)


def cut(dataset: Dataset, percent: int, until_percent: int) -> Cut:
    """What was known at ``percent`` of each user's events, asked about those up to ``until_percent``."""
    return Cut(dataset, lengths(dataset, percent), lengths(dataset, until_percent))


def beginners_cut(dataset: Dataset, percent: int, until_percent: int, seed: int) -> Cut:
    """A third of the users known by their first few events or none, the others by ``percent``.

    Only the beginners are asked about: what follows, as long a stretch as from ``percent`` to ``until_percent`` and
    nothing after ``until_percent``. Their later events are hidden from the sources too, so that nobody is told.
    """
    rng = np.random.default_rng(seed)
    sizes, usual = np.diff(dataset.indptr), lengths(dataset, percent)
    chosen = rng.random(len(sizes)) < BEGINNERS_SHARE
    first = np.minimum(rng.choice(BEGINNINGS, len(sizes)), usual)
    stretch = np.maximum(sizes * (until_percent - percent) // 100, 1)
    until = np.minimum(first + stretch, lengths(dataset, until_percent))
    return Cut(dataset, np.where(chosen, first, usual), np.where(chosen, until, usual))


def validation_cut(dataset: Dataset) -> Cut:
    """Fitted on train, asked about validation."""
    return cut(dataset, TRAIN_PERCENT, VALIDATION_PERCENT)


def final_cut(dataset: Dataset) -> Cut:
    """Fitted on train and validation, asked about test: used once, by ``evaluate``."""
    return cut(dataset, VALIDATION_PERCENT, 100)


def everything(dataset: Dataset) -> Cut:
    """All events known, nothing held out: what is served."""
    return cut(dataset, 100, 100)
