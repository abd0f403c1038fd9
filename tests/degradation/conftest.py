"""The wired tiny bundle, every stage of which a test may replace."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import pytest

from app.pipeline import Pipeline
from app.settings import Settings
from app.wiring import Process, build
from release.bundle import Bundle, Publication
from tests.app.fake_stages import Ranker, Store, with_store


@pytest.fixture
async def process(tmp_path: Path) -> AsyncIterator[Process]:
    process = Process.of(Settings(home=tmp_path, shadow_ratio=0.0))
    yield process
    await process.close()


@pytest.fixture
def bundle(tiny_bundle: Bundle) -> Bundle:
    return Bundle(tiny_bundle.path, tiny_bundle.manifest, tiny_bundle.tables, Publication(1, 0.0))


@pytest.fixture
def pipeline(bundle: Bundle, process: Process) -> Pipeline:
    """At FULL for user-3, however busy the machine is."""
    made = build(bundle, process)
    patient = replace(made.budget, features=10.0, retrieval=10.0, ranking=10.0, reranking=10.0)
    return with_store(replace(made, ranker=Ranker(), budget=patient), Store("user-3"))
