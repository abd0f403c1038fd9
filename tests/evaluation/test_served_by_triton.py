"""Offline scores are those that a real Triton serves, candidate by candidate, and slates those that are answered."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from app.recommend import recommend
from app.settings import Settings
from app.wiring import Process, build
from domain.deadline import Deadline
from domain.degradation import DegradationLevel
from domain.request import Query
from domain.slate import Slate
from evaluation.served import LIMIT, GraphRanker, serve, slate_context
from ranking.triton import TritonChannel, TritonRanker
from release.bundle import Bundle, Publication
from release.triton_control import TritonControl
from release.triton_repository import TritonRepository
from reranking.apply import apply
from reranking.configured import DEFAULT, configured
from training import content, sources
from training.dataset import read
from training.split import everything, final_cut

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


async def test_a_stranger_and_a_user_are_answered_as_they_are_counted(
    folder: Path, trained: Bundle, start_own_triton: Callable[[Path], Any], free_port: Callable[[], int], tmp_path: Path
) -> None:
    """By the whole request path, which asks no ranker about the stranger."""
    TritonRepository(tmp_path).render(trained, 1)
    running = start_own_triton(tmp_path)
    with TritonControl(running.address) as control:
        control.load()
    dataset, known, blank = read(folder), 3, 8
    half_life = trained.manifest.lineage.parameters["popularity"]["half_life_days"] or np.inf
    fitted = sources.fit(everything(dataset), content.fit(dataset), half_life, 0)
    forgotten = fitted.cut.length.copy()
    forgotten[blank] = 0
    fitted = replace(fitted, cut=replace(fitted.cut, length=forgotten, until=forgotten))
    asked = (fitted, trained.model_path, trained.tables.logistic, configured(DEFAULT), [known, blank])
    counted = (await asyncio.to_thread(serve, *asked)).dcn_v2.shown

    process = Process.of(Settings(home=tmp_path, redis_port=free_port(), triton_url=running.address))
    just_now = Publication(1, 4e9)  # published after all real time: under replay a user goes on a second later
    pipeline = build(Bundle(trained.path, trained.manifest, trained.tables, just_now), process)
    patient = replace(pipeline, budget=replace(pipeline.budget, features=5, retrieval=5, ranking=5, reranking=5))
    for user, rows in zip((dataset.user_ids.text(known), "a stranger"), counted, strict=True):
        answer = await recommend(patient, Query(user, limit=LIMIT), Deadline.after(20))
        assert answer.level in {DegradationLevel.FULL, DegradationLevel.STALE_FEATURES}  # no Redis: the bundle's
        assert [item.item_id for item in answer.items] == [dataset.item_ids.text(row) for row in rows.tolist()]
    await process.close()
    running.part.stop()
