"""The unit of the benchmarks: what a FastAPI endpoint costs that reads a small JSON body and answers with one.

    python -m benchmarks.noop PORT

Served as a worker serves: one process, uvloop, httptools, no access log, orjson.
"""

from __future__ import annotations

import sys

import orjson
import uvicorn
from fastapi import FastAPI, Request, Response

app = FastAPI(openapi_url=None)


@app.post("/v1/recommendations")
async def nothing(request: Request) -> Response:
    asked = orjson.loads(await request.body())
    return Response(orjson.dumps({"user_id": asked["user_id"]}), media_type="application/json")


@app.get("/readyz")
async def ready() -> Response:
    return Response(b"{}", media_type="application/json")


def main() -> None:
    uvicorn.run(app, port=int(sys.argv[1]), http="httptools", loop="uvloop", ws="none", lifespan="off",
                log_config=None, access_log=False)  # fmt: skip


if __name__ == "__main__":
    main()
