"""The floor under a recommendation: what it costs a worker to ask and to be asked, with nothing computed in between.

    python -m benchmarks.floor PORT

Served as the no-op endpoint is (``benchmarks.noop``). Between the request and a ready-made answer of ``PLACES`` items
stand the service's own read of the user from Redis and its own call to Triton with 500 candidates, always the same: no
source, no merge, no rule, no deadline of stages, no breaker, no metric. Settings come from the environment, as a
worker's do.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping

import numpy as np
import orjson
import uvicorn
from fastapi import FastAPI, Request, Response
from numpy.typing import NDArray

from app.pipeline import Pipeline
from app.settings import Settings
from app.wire import answer_to_json
from app.wiring import Process, build
from domain.answer import Answer, Item
from domain.deadline import Deadline
from domain.degradation import DegradationLevel
from domain.request import Context
from features.contract import CONTRACT
from features.definitions import context_codes
from features.encode import candidate_columns
from ranking.triton import TritonRanker
from release.bundle import Bundle

PLACES = 20
PATIENCE_SECONDS = 1.0


def tensors(pipeline: Pipeline) -> dict[str, NDArray[np.generic]]:
    """What Triton is asked each time: a user with every feature at its default, and the first candidates there are."""
    n = pipeline.budget.candidates
    columns = len(candidate_columns([source.name for source in pipeline.sources]))
    return {
        "user": CONTRACT.numeric.scaled(CONTRACT.numeric.defaults)[None],
        "codes": context_codes(Context(), time.time())[None],
        "item_row": np.arange(n, dtype=np.int32)[None],
        "columns": np.zeros((1, n, columns), np.float32),
    }


def ready_made(pipeline: Pipeline) -> bytes:
    """An answer as long as a real one."""
    rows = np.arange(PLACES, dtype=np.int32)
    named = zip(pipeline.items.ids.texts(rows), pipeline.items.titles.texts(rows), strict=True)
    items = tuple(Item(item_id, title, 0.123456789, ("two_tower", "content"), None) for item_id, title in named)
    timing = dict.fromkeys(("features", "retrieval", "ranking", "reranking", "total"), 0.0012345)
    answer = Answer("0" * 32, pipeline.bundle, items, DegradationLevel.FULL, (), timing, {}, pipeline.budget.candidates)
    return answer_to_json(answer, debug=False)


def create_app(settings: Settings) -> FastAPI:
    """The endpoint over the parts that ``settings`` name; raises ``BundleError`` if there is no bundle."""
    app = FastAPI(openapi_url=None)
    pipeline = build(Bundle.load(settings.bundle.resolve(), model=False), Process.of(settings))
    ranker, told = pipeline.ranker, ready_made(pipeline)
    if not isinstance(ranker, TritonRanker):
        raise TypeError("the floor is that of a ranking by Triton")
    given: Mapping[str, NDArray[np.generic]] = tensors(pipeline)

    @app.post("/v1/recommendations")
    async def nothing(request: Request) -> Response:
        asked = orjson.loads(await request.body())
        await pipeline.reader.store.read(str(asked["user_id"]))
        await ranker.channel.infer(ranker.version, given, Deadline.after(PATIENCE_SECONDS))
        return Response(told, media_type="application/json")

    @app.get("/readyz")
    async def ready() -> Response:
        return Response(b"{}", media_type="application/json")

    return app


def main() -> None:
    app = create_app(Settings.from_environment(os.environ))
    uvicorn.run(app, port=int(sys.argv[1]), http="httptools", loop="uvloop", ws="none", lifespan="off",
                log_config=None, access_log=False)  # fmt: skip


if __name__ == "__main__":
    main()
