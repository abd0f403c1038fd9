"""From several ranked lists to one set of candidates.

Each source is sure of a quota of places; the rest goes by reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR
2009) over all lists, which needs no common scale of scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from domain.arrays import NO_ROWS, Floats, Mask, Rows
from domain.candidates import Candidates
from retrieval.ordering import best_first, sorted_positions

FUSION_CONSTANT = np.float32(60.0)


def merge(found: Sequence[Candidates], quotas: Sequence[int], keep: Mask, limit: int) -> Candidates:
    """At most ``limit`` candidates, best first by fused rank, with ``(n, S)`` source scores and ranks filled in.

    ``found[i]`` is source ``i``'s answer, best first; ``keep`` is ``(items,)``. Rows that are out of range (an index
    may be newer or broken, and says -1 for nothing), not allowed or repeated by a source do not count, nor in ranks.
    When the quotas together exceed ``limit``, the fused rank decides among those who hold one.

    All lists go through one sort together: numpy's price is a call, not an element, at this size.
    """
    sources = len(found)
    rows = np.concatenate([candidates.item_row for candidates in found]) if sources else np.empty(0, np.int32)
    score = np.concatenate([candidates.score for candidates in found]) if sources else np.empty(0, np.float32)
    source = np.repeat(np.arange(sources), [len(candidates) for candidates in found])
    sound = _allowed(rows, keep)
    if not sound.all():
        rows, score, source = rows[sound], score[sound], source[sound]
    key = rows.astype(np.int64) * max(1, sources) + source
    order, ordered = sorted_positions(key)
    repeated = ordered[1:] == ordered[:-1]
    if repeated.any():
        first = np.ones(len(rows), np.bool_)
        first[order[1:][repeated]] = False
        rows, score, source = rows[first], score[first], source[first]
        order, _ = sorted_positions(key[first])
    if not len(rows):
        return Candidates.none(sources)
    ends = source.searchsorted(np.arange(sources + 1))
    rank = np.concatenate([np.arange(n, dtype=np.float32) for n in np.diff(ends).tolist()])
    return _fused(rows, score, rank, source, order, np.asarray(quotas, np.float32), limit)


def _allowed(rows: Rows, keep: Mask) -> Mask:
    """``(n,)``: which rows exist and may be shown."""
    inside = rows.view(np.uint32) < len(keep)  # a negative one is a large one there
    if not inside.all():
        inside[inside] = keep[rows[inside]]
        return inside
    return keep[rows]


def _fused(
    rows: Rows,
    score: Floats,
    rank: Floats,
    source: NDArray[np.intp],
    order: NDArray[np.intp],
    quotas: Floats,
    limit: int,
) -> Candidates:
    """The best ``limit`` items of sound, ranked proposals ``(n,)``; ``order`` puts those of one item side by side."""
    by_item, by_source, by_rank = rows[order], source[order], rank[order]
    begins = np.ones(len(order), np.bool_)
    np.not_equal(by_item[1:], by_item[:-1], out=begins[1:])
    items = by_item[begins]
    place = np.cumsum(begins) - 1
    votes = np.zeros((len(quotas), len(items)), np.float32)
    votes.reshape(-1)[by_source * len(items) + place] = 1.0 / (FUSION_CONSTANT + by_rank)
    fused = votes.sum(axis=0)
    sure: Mask = np.zeros(len(items), np.bool_)
    sure[place[by_rank < quotas[by_source]]] = True
    best = best_first(fused, sure, limit)
    best = best[best_first(fused[best])]
    at = np.full(len(items), -1)
    at[best] = np.arange(len(best))
    kept = at[place]
    chosen = np.flatnonzero(kept >= 0)
    cell = kept[chosen] * len(quotas) + by_source[chosen]
    scores, ranks = np.full((2, len(best), len(quotas)), np.nan, np.float32)
    scores.reshape(-1)[cell], ranks.reshape(-1)[cell] = score[order[chosen]], by_rank[chosen]
    return Candidates(items[best].astype(np.int32, copy=False), fused[best], scores, ranks)


def forced_rows(tried: Rows, promoted: Rows, limit: int, seed: int) -> Rows:
    """What is forced among ``limit`` candidates, ascending: items to be tried out, then as many of campaigns as fit.

    Where either does not fit, the ``seed`` draws: the same rows every time would be the only ones of a large campaign.
    """
    if not len(tried) and not len(promoted):
        return NO_ROWS
    tried = _drawn(tried, _room(limit), seed)
    promoted = _drawn(np.setdiff1d(promoted, tried), _room(limit) - len(tried), seed)
    return np.union1d(tried, promoted)


def _room(limit: int) -> int:
    return limit // 5


def _drawn(rows: Rows, n: int, seed: int) -> Rows:
    return rows if len(rows) <= n else np.random.default_rng(seed).choice(rows, n, replace=False)


def with_forced(candidates: Candidates, forced: Rows, limit: int) -> Candidates:
    """The candidates with ``forced`` rows among them, at most ``limit`` in all; nobody proposed those that are new.

    ``forced`` is ascending, without repeats. Forced rows displace the last of the others, and are themselves at most a
    fifth of ``limit``.
    """
    forced = forced[: _room(limit)]
    if not len(forced):
        return candidates
    place = np.minimum(forced.searchsorted(candidates.item_row), len(forced) - 1)
    protected = forced[place] == candidates.item_row
    new = np.delete(forced, place[protected])
    if not len(new):
        return candidates
    room = limit - len(new)
    others = np.cumsum(~protected) <= room - int(protected.sum())
    kept = candidates.take(protected | others)
    unknown = np.full((len(new), candidates.source_scores.shape[1]), np.nan, np.float32)
    return Candidates(
        np.concatenate([kept.item_row, new.astype(np.int32)]),
        np.concatenate([kept.score, np.zeros(len(new), np.float32)]),
        np.concatenate([kept.source_scores, unknown]),
        np.concatenate([kept.source_ranks, unknown]),
    )
