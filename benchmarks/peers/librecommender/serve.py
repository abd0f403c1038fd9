"""LibRecommender's own embed server (``libserving``), one worker, on a port of our choice.

    REDIS_HOST=127.0.0.1:6379/1 python serve.py PORT

Runs in the environment of requirements.txt. Nothing of it is changed but the port, and a path that says it is ready.
"""

from __future__ import annotations

import sys

from libserving.sanic_serving.embed_deploy import app
from sanic import HTTPResponse, Request
from sanic.response import empty


@app.get("/readyz")
async def ready(_request: Request) -> HTTPResponse:
    return empty(200)


if __name__ == "__main__":
    app.run(host="127.0.0.1", port=int(sys.argv[1]), debug=False, access_log=False, single_process=True)
