"""Bundles put before a worker as publishing leaves them, with Redis and Triton away."""

from __future__ import annotations

import json
import shutil
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from app.serving import Serving, open_serving
from app.settings import Settings
from domain.answer import Answer
from domain.deadline import Deadline
from domain.request import Query
from release.bundle import PUBLICATION, Bundle
from tests.training.conftest import make_folder, make_random_folder

__all__ = ["make_folder", "make_random_folder"]

Serve = Callable[[Bundle], Awaitable[Serving]]


@pytest.fixture
async def serve(tmp_path: Path, free_port: Callable[[], int]) -> AsyncIterator[Serve]:
    """Opens a worker's service over a bundle; it is closed after the test."""
    async with AsyncExitStack() as closed:

        async def open_over(bundle: Bundle) -> Serving:
            home = tmp_path / "home"
            shutil.copytree(bundle.path, home / "bundles" / "1")
            (home / "bundles" / "1" / PUBLICATION).write_text(json.dumps({"number": 1, "published_at": 1000.0}))
            (home / "current").symlink_to(home / "bundles" / "1")
            patient: dict[str, Any] = dict.fromkeys(("features_seconds", "retrieval_seconds", "ranking_seconds"), 5.0)
            ports: dict[str, Any] = {name: free_port() for name in ("redis_port", "triton_grpc_port")}
            serving = await open_serving(Settings(home=home, **ports, **patient))
            closed.push_async_callback(serving.close)
            return serving

        yield open_over


async def ask(serving: Serving, user: str | None = None, limit: int = 10, recent: tuple[str, ...] = ()) -> Answer:
    """The answer to somebody who has time."""
    return await serving.recommend(Query(user, limit=limit, recent_item_ids=recent), Deadline.after(20))


async def ask_in_a_hurry(serving: Serving, user: str | None = None, limit: int = 10) -> Answer:
    """The answer from the precomputed lists."""
    return await serving.recommend(Query(user, limit=limit), Deadline.after(0))
