"""From several ranked lists to one set of candidates.

Each source is sure of a quota of places; the rest goes by reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR
2009) over all lists, which needs no common scale of scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from domain.arrays import NO_ROWS, Floats, Mask, Rows, drawn
from domain.candidates import Candidates
from domain.compiled import bool_, column, compiled, float32, int32, int64, pair, written

FUSION_CONSTANT = np.float32(60.0)

# A key of the order has one bit that says who is not sure of a place, 31 of the score, the best the lowest, and 31 of
# the row. The bits of non-negative floats order as the floats do.
_NOT_SURE = 1 << 62
_LOW = (1 << 31) - 1
_SPREAD = 0x9E3779B1  # 2**32 by the golden ratio: neighbours lie far apart, where runs of rows would grow together


def merge(found: Sequence[Candidates], quotas: Sequence[int], keep: Mask, limit: int) -> Candidates:
    """At most ``limit`` candidates, best first by fused rank, with ``(n, S)`` source scores and ranks filled in.

    ``found[i]`` is source ``i``'s answer, best first; ``keep`` is ``(items,)``. Rows that are out of range (an index
    may be newer or broken, and says -1 for nothing), not allowed or repeated by a source do not count, nor in ranks.
    When the quotas together exceed ``limit``, the fused rank decides among those who hold one.
    """
    if not found:
        return Candidates.none()
    rows = np.concatenate([answer.item_row for answer in found])
    score = np.concatenate([answer.score for answer in found])
    places = np.array([(len(answer), quota) for answer, quota in zip(found, quotas, strict=True)], np.int64)
    table = np.full(1 << (2 * len(rows) - 1).bit_length(), -1, np.int32)
    proposal = np.empty((len(rows), 2), np.int32)
    key = _voted(rows, places, keep, table, proposal)
    if limit < len(key):
        key.partition(limit)
        key = key[:limit]
    key.sort()
    return Candidates(*_chosen(key, rows, score, places, table, proposal))


@compiled(int64, column(int32), column(int32), int64)
def _slot(table: NDArray[np.int32], rows: Rows, row: int) -> int:
    """Where in the open-addressing ``table`` of positions in ``rows`` a row stands, or would."""
    last = len(table) - 1
    slot = (row * _SPREAD >> 15) & last
    while table[slot] >= 0 and rows[table[slot]] != row:
        slot = (slot + 1) & last
    return slot


@compiled(written(int64), column(int32), column(int64, 2), column(bool_), written(int32), written(int32, 2))
def _voted(
    rows: Rows, places: NDArray[np.int64], keep: Mask, table: NDArray[np.int32], proposal: NDArray[np.int32]
) -> NDArray[np.int64]:
    """The key of every item proposed. ``places`` is ``(S, 2)``: how many of ``rows`` are a source's, and its quota.

    Fills ``table`` with the last proposal of each item, and for every one that counts ``proposal[at]``: the one before
    it for the same item, -1 for none, and its rank.
    """
    item, fused = np.empty(len(rows), np.int32), np.empty(len(rows), np.float32)
    key = np.empty(len(rows), np.int64)
    items, end = 0, 0
    for source in range(len(places)):
        begin, end, rank = end, end + places[source, 0], 0
        for at in range(begin, end):
            row = rows[at]
            if row < 0 or row >= len(keep) or not keep[row]:
                continue
            slot = _slot(table, rows, row)
            before = table[slot]
            if before >= begin:
                continue  # the source repeats itself
            if before < 0:
                to, items = items, items + 1
                fused[to], key[to] = 0.0, _NOT_SURE | row
            else:
                to = item[before]
            if rank < places[source, 1]:
                key[to] = row
            fused[to] += np.float32(1.0) / (FUSION_CONSTANT + np.float32(rank))
            item[at], table[slot], proposal[at, 0], proposal[at, 1] = to, at, before, rank
            rank += 1
    key = key[:items]
    bits = fused.view(np.int32)
    for at in range(items):
        key[at] |= (_LOW - bits[at]) << 31
    return key


@compiled(
    pair(written(int32), written(float32), written(float32, 2), written(float32, 2)),
    column(int64),
    column(int32),
    column(float32),
    column(int64, 2),
    column(int32),
    column(int32, 2),
)
def _chosen(
    key: NDArray[np.int64],
    rows: Rows,
    score: Floats,
    places: NDArray[np.int64],
    table: NDArray[np.int32],
    proposal: NDArray[np.int32],
) -> tuple[Rows, Floats, Floats, Floats]:
    """The columns of the candidates whose ascending ``key`` these are, best fused rank first.

    So the two runs of ``key``, the sure and the others, become one; the sure are first among equals.
    """
    n, sources = len(key), len(places)
    item_row, bits = np.empty(n, np.int32), np.empty(n, np.int32)
    scores, ranks = np.full((n, sources), np.nan, np.float32), np.full((n, sources), np.nan, np.float32)
    sure, other = 0, np.searchsorted(key, _NOT_SURE)
    sures = other
    for to in range(n):
        if other == n or (sure < sures and key[sure] >> 31 <= (key[other] >> 31 & _LOW)):
            best, sure = key[sure], sure + 1
        else:
            best, other = key[other], other + 1
        row = best & _LOW
        item_row[to], bits[to] = row, _LOW - (best >> 31 & _LOW)
        at, source, begin = table[_slot(table, rows, row)], sources, len(rows)
        while at >= 0:
            while at < begin:
                source -= 1
                begin -= places[source, 0]
            scores[to, source], ranks[to, source] = score[at], proposal[at, 1]
            at = proposal[at, 0]
    return item_row, bits.view(np.float32), scores, ranks


def forced_rows(tried: Rows, promoted: Rows, limit: int, seed: int) -> Rows:
    """What is forced among ``limit`` candidates, ascending: items to be tried out, then as many of campaigns as fit.

    Where either does not fit, the ``seed`` draws: the same rows every time would be the only ones of a large campaign.
    """
    if not len(tried) and not len(promoted):
        return NO_ROWS
    tried = drawn(tried, _room(limit), seed)
    if not len(promoted):
        return np.unique(tried)
    promoted = drawn(np.setdiff1d(promoted, tried), _room(limit) - len(tried), seed)
    return np.union1d(tried, promoted)


def _room(limit: int) -> int:
    return limit // 5


def with_forced(candidates: Candidates, forced: Rows, limit: int) -> Candidates:
    """The candidates with ``forced`` rows among them, at most ``limit`` in all; nobody proposed those that are new.

    ``forced`` is ascending, without repeats. Forced rows displace the last of the others, and are themselves at most a
    fifth of ``limit``.
    """
    forced = forced[: _room(limit)]
    if not len(forced):
        return candidates
    known = candidates.item_row, candidates.score, candidates.source_scores, candidates.source_ranks
    return Candidates(*_with_forced(*known, forced.astype(np.int32, copy=False), limit))


@compiled(
    pair(written(int32), written(float32), written(float32, 2), written(float32, 2)),
    column(int32),
    column(float32),
    column(float32, 2),
    column(float32, 2),
    column(int32),
    int64,
)
def _with_forced(
    item_row: Rows, score: Floats, scores: Floats, ranks: Floats, forced: Rows, limit: int
) -> tuple[Rows, Floats, Floats, Floats]:
    """The columns with the ``forced`` rows among them, those that are new at the end."""
    n, sources = scores.shape
    protected, new = np.zeros(n, np.bool_), np.empty(len(forced), np.bool_)
    for place in range(len(forced)):  # without branches, so several candidates go at once: faster than any search
        known = False
        for at in range(n):
            here = item_row[at] == forced[place]
            protected[at] |= here
            known |= here
        new[place] = not known
    others = n - protected.sum()
    if new.any():
        others = max(0, min(others, limit - len(forced)))
    size = protected.sum() + others + new.sum()
    rows, points = np.empty(size, np.int32), np.zeros(size, np.float32)
    by, at_rank = np.full((size, sources), np.nan, np.float32), np.full((size, sources), np.nan, np.float32)
    to = 0
    for at in range(n):
        others -= not protected[at]
        if protected[at] or others >= 0:
            rows[to], points[to] = item_row[at], score[at]
            for source in range(sources):
                by[to, source], at_rank[to, source] = scores[at, source], ranks[at, source]
            to += 1
    rows[to:] = forced[new]
    return rows, points, by, at_rank
