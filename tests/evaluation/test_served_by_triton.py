"""Offline scores are those that a real Triton serves, candidate by candidate."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from domain.deadline import Deadline
from domain.slate import Slate
from evaluation.served import LIMIT, GraphRanker, serve, slate_context
from ranking.triton import TritonChannel, TritonRanker
from release.bundle import Bundle
from release.triton_control import TritonControl
from release.triton_repository import TritonRepository
from reranking.apply import apply
from reranking.configured import DEFAULT, configured
from training import content, sources
from training.dataset import read
from training.split import final_cut

ASKED = range(6)


async def test_scores_orders_and_slates_equal_those_served(
    folder: Path, trained: Bundle, start_own_triton: Callable[[Path], Any], tmp_path: Path
) -> None:
    TritonRepository(tmp_path).render(trained, 1)
    running = start_own_triton(tmp_path)
    with TritonControl(running.address) as control:
        control.load()
    channel, dataset = TritonChannel(running.address), read(folder)
    fitted = sources.fit(final_cut(dataset), content.fit(dataset), np.inf, 0)
    online, offline = TritonRanker(channel, "1", fitted.items), GraphRanker(trained.model_path, fitted.items)
    requests = await asyncio.to_thread(sources.retrieve_all, fitted, list(ASKED))
    slates = []
    for at, request in enumerate(requests):
        answered = await online.score(request.user, request.candidates, Deadline.after(10))
        here = await offline.score(request.user, request.candidates, Deadline.after(10))
        np.testing.assert_allclose(answered, here, atol=1e-6)
        ranked = request.candidates.scored(answered).top(len(request.candidates))
        slate, _ = apply(
            configured(DEFAULT), Slate(ranked, LIMIT, replace(slate_context(fitted), seed=at)), Deadline.after(10)
        )
        slates.append(slate.shown.item_row.tolist())
    await channel.close()
    running.part.stop()
    asked = (fitted, trained.model_path, trained.tables.logistic, configured(DEFAULT), list(ASKED))
    by_evaluation = await asyncio.to_thread(serve, *asked)  # it runs a loop of its own
    assert [rows.tolist() for rows in by_evaluation.dcn_v2.shown] == slates
