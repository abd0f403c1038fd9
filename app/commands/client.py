"""What the command line says to a running service, over HTTP."""

from __future__ import annotations

import http.client
import json
import urllib.error
import urllib.request
from typing import Any

from domain.errors import StreamRecError

TIMEOUT_SECONDS = 5.0


class NotAnswering(StreamRecError):
    """Nobody answers there."""


def call(address: str, path: str, body: dict[str, object] | None = None, *, key: str | None = None) -> tuple[int, Any]:
    """Status and decoded JSON of one call to ``address`` (``http://host:port``); raises ``NotAnswering``.

    With a ``body`` it is a POST; ``key`` is an API key. A refusal by the service is an answer like any other.
    """
    data = None if body is None else json.dumps(body).encode()
    headers = {"content-type": "application/json"} | ({"authorization": f"Bearer {key}"} if key else {})
    request = urllib.request.Request(address + path, data, headers)  # noqa: S310  # http
    opener = urllib.request.build_opener(urllib.request.ProxyHandler({}))  # never through a proxy to oneself
    try:
        with opener.open(request, timeout=TIMEOUT_SECONDS) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as refusal:
        with refusal:
            return refusal.code, _json(refusal.read())
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise NotAnswering(f"{address} does not answer ({_why(error)}); is `streamrec serve` running?") from error


def _json(text: bytes) -> Any:
    try:
        return json.loads(text)
    except ValueError:
        return {}


def _why(error: Exception) -> str:
    return str(getattr(error, "reason", error))
