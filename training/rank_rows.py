"""The rankers' training data: what retrieval really returned at earlier moments, and what the user then liked.

The sources are fitted on the events before a cut and asked at the cut; candidates that the user liked between the cut
and its ``until`` are positive, all others the sampled negatives that the ranker will meet when it serves.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields, replace
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from domain.arrays import Floats, Mask, Rows
from features.contract import CONTRACT
from features.encode import candidate_columns, encode_candidates, user_row
from training.sources import NAMES, Fitted, retrieve_all

T = TypeVar("T", bound=np.generic)
PER_CANDIDATE = ("item_row", "there", "columns", "liked")
"""Filled up with zeros where a request has fewer candidates than the longest; ``there`` says which are real."""


@dataclass(frozen=True, slots=True, eq=False)
class RankRows:
    """``r`` requests of ``n`` candidates, in the shape in which they are sent to Triton."""

    user_row: Rows  # (r,)
    cut: NDArray[np.int64]  # (r,): which of the cuts the request belongs to
    numeric: Floats  # (r, U) raw
    user: Floats  # (r, U) encoded
    codes: NDArray[np.int32]  # (r, K)
    item_row: Rows  # (r, n)
    there: Mask  # (r, n)
    columns: Floats  # (r, n, C)
    liked: Mask  # (r, n)
    liked_in_all: NDArray[np.int64]  # (r,): positives of the moment, retrieved or not

    def __len__(self) -> int:
        return len(self.user_row)

    def only(self, mask: Mask) -> RankRows:
        """The requests where ``mask`` ``(r,)`` holds."""
        return RankRows(*(getattr(self, field.name)[mask] for field in fields(self)))


def collect(fitted: Fitted, cut: int, users: Sequence[int] | None = None) -> RankRows:
    """One request for each of ``users``: by default everybody who liked something between the cut and its ``until``."""
    if users is None:
        users = [user for user in range(len(fitted.cut.length)) if len(fitted.cut.liked(user))]
    if not users:
        return _nothing()
    requests = retrieve_all(fitted, users)
    rows = [request.candidates.item_row for request in requests]
    n = max(1, *(len(row) for row in rows))
    columns = [
        encode_candidates(request.user, request.candidates, fitted.items.features, fitted.items.genres)
        for request in requests
    ]
    liked = [fitted.cut.liked(user) for user in users]
    return RankRows(
        np.array(users, np.int32),
        np.full(len(users), cut),
        np.stack([request.user.numeric for request in requests]),
        np.stack([user_row(request.user) for request in requests]),
        np.stack([request.user.codes for request in requests]),
        padded(rows, n),
        padded([np.ones(len(row), np.bool_) for row in rows], n),
        padded(columns, n),
        padded([np.isin(row, positives) for row, positives in zip(rows, liked, strict=True)], n),
        np.array([len(positives) for positives in liked]),
    )


def _nothing() -> RankRows:
    """No requests, with the right widths."""
    numeric, columns = CONTRACT.numeric.width, len(candidate_columns(NAMES))
    none, flags = np.zeros((0, 1), np.int32), np.zeros((0, 1), np.bool_)
    user, codes = np.zeros((0, numeric), np.float32), np.zeros((0, len(CONTRACT.context)), np.int32)
    counts, wide = np.zeros(0, np.int64), np.zeros((0, 1, columns), np.float32)
    return RankRows(none[:, 0], counts, user, user, codes, none, flags, wide, flags, counts)


def padded(parts: Sequence[NDArray[T]], n: int) -> NDArray[T]:
    """``(len(parts), n, ...)``: each part's first axis filled up to ``n`` with zeros."""
    out = np.zeros((len(parts), n, *parts[0].shape[1:]), parts[0].dtype)
    for position, part in enumerate(parts):
        out[position, : len(part)] = part
    return out


def together(parts: Sequence[RankRows]) -> RankRows:
    """The requests of several cuts."""
    n = max(part.item_row.shape[1] for part in parts)
    widened = [replace(part, **{name: _widened(getattr(part, name), n) for name in PER_CANDIDATE}) for part in parts]
    return RankRows(*(np.concatenate([getattr(part, f.name) for part in widened]) for f in fields(RankRows)))


def _widened(column: NDArray[T], n: int) -> NDArray[T]:
    missing = [(0, 0), (0, n - column.shape[1])] + [(0, 0)] * (column.ndim - 2)
    return np.pad(column, missing)
