"""From several ranked lists to one set of candidates.

Each source is sure of a quota of places; the rest goes by reciprocal rank fusion (Cormack, Clarke and Buettcher, SIGIR
2009) over all lists, which needs no common scale of scores.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from domain.arrays import Floats, Mask, Rows
from domain.candidates import Candidates
from retrieval.filters import sound

FUSION_CONSTANT = 60.0


def merge(found: Sequence[Candidates], quotas: Sequence[int], keep: Mask, limit: int) -> Candidates:
    """At most ``limit`` candidates, best first by fused rank, with ``(n, S)`` source scores and ranks filled in.

    ``found[i]`` is source ``i``'s answer, best first; ``keep`` is ``(items,)``. Ranks count allowed items only. When
    the quotas together exceed ``limit``, the fused rank decides among those who hold one.
    """
    lists = [sound(candidates, keep) for candidates in found]
    sources = len(lists)
    if not any(len(candidates) for candidates in lists):
        return Candidates.none(sources)
    rows, position = np.unique(np.concatenate([c.item_row for c in lists]), return_inverse=True)
    scores = np.full((len(rows), sources), np.nan, np.float32)
    ranks = np.full((len(rows), sources), np.nan, np.float32)
    start = 0
    for source, candidates in enumerate(lists):
        where = position[start : start + len(candidates)]
        scores[where, source] = candidates.score
        ranks[where, source] = np.arange(len(candidates), dtype=np.float32)
        start += len(candidates)
    fused = fused_score(ranks)
    sure = (ranks < np.asarray(quotas, np.float32)).any(axis=1)  # NaN compares as false
    order = np.lexsort((-fused, ~sure))[:limit]
    order = order[np.argsort(-fused[order], kind="stable")]
    return Candidates(rows[order].astype(np.int32), fused[order], scores[order], ranks[order])


def with_forced(candidates: Candidates, forced: Rows, limit: int) -> Candidates:
    """The candidates with ``forced`` rows among them, at most ``limit`` in all; nobody proposed those that are new.

    Forced rows displace the last of the others, and are themselves at most a fifth of ``limit``.
    """
    forced = forced[: limit // 5]
    new = np.setdiff1d(forced, candidates.item_row)
    if not len(new):
        return candidates
    room = limit - len(new)
    protected = np.isin(candidates.item_row, forced)
    others = np.cumsum(~protected) <= room - int(protected.sum())
    kept = candidates.take(protected | others)
    unknown = np.full((len(new), candidates.source_scores.shape[1]), np.nan, np.float32)
    return Candidates(
        np.concatenate([kept.item_row, new.astype(np.int32)]),
        np.concatenate([kept.score, np.zeros(len(new), np.float32)]),
        np.concatenate([kept.source_scores, unknown]),
        np.concatenate([kept.source_ranks, unknown]),
    )


def fused_score(ranks: Floats) -> Floats:
    """``(n,)``: the sum over sources of ``1 / (60 + rank)``; a source that did not propose the item adds nothing."""
    return np.nansum(1.0 / (FUSION_CONSTANT + ranks), axis=1, dtype=np.float32)
