"""The page for people at ``/``: its files, and the little it asks that the API does not tell.

The files are the same for everybody and tell nothing, so they need no key; what the page then asks needs one wherever
``/v1/`` does. No part of the API: these calls are made for the page and change with it.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from http import HTTPStatus
from pathlib import Path
from typing import Any

import numpy as np
import orjson
from fastapi import APIRouter, Depends
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from starlette.exceptions import HTTPException

from app import wire
from app.access import is_loopback
from app.pipeline import Pipeline
from app.settings import Settings, variable_of
from domain.arrays import Rows
from domain.catalogue import History, IdTable, Items
from domain.deadline import Deadline
from domain.errors import InvalidRequest
from domain.request import MAX_ID_BYTES, Query

USERS = 8
RECENT = 12
MAX_ITEMS = 100
READ_SECONDS = 0.5  # nobody's slate waits for it

HERE = re.compile(r"(localhost|127(\.[0-9]{1,3}){3}|\[::1\])(:[0-9]{1,5})?", re.ASCII | re.IGNORECASE)
FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host")
NOT_HERE = (
    f"without API keys the page is for this machine only: set {variable_of('api_keys')}, or "
    f"{variable_of('trusted_proxy')}=1 if a proxy in front checks every caller"
)

FOLDER = Path(__file__).parent / "page"
TYPES = {".html": "text/html", ".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
HEADERS = {
    "content-security-policy": "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self'; "
    "connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "x-content-type-options": "nosniff",
    "referrer-policy": "no-referrer",
    "cross-origin-opener-policy": "same-origin",
}


def wanted(settings: Settings) -> bool:
    """Whether there is a page: as set, else where only this machine can connect."""
    return is_loopback(settings.host) if settings.page is None else settings.page


def router(pipeline: Callable[[], Pipeline], *, here_only: bool = False) -> APIRouter:
    """The routes over whatever ``pipeline`` is in use; reads the files once. ``here_only``: nobody checks keys."""
    routes = APIRouter(include_in_schema=False, dependencies=[Depends(from_here)] if here_only else [])
    files = {path.name: path for path in FOLDER.iterdir() if path.suffix in TYPES}
    _add_file(routes, "/", files.pop("index.html"))
    for name, path in files.items():
        _add_file(routes, f"/page/{name}", path)

    @routes.get("/v1/page/users")
    async def users(request: HttpRequest) -> Response:
        """Users whose id begins with ``prefix``; without one, a few of all."""
        prefix = _given(request, "prefix").get("prefix", [""])[-1]
        return _told({"users": some_users(pipeline(), prefix)})

    @routes.get("/v1/page/recent")
    async def recent(request: HttpRequest) -> Response:
        """What the user ``user_id`` did last."""
        given = _given(request, "user_id").get("user_id", [])
        if len(given) != 1:
            raise InvalidRequest("user_id is required, once")
        query = wire.query_from_fields({"user_id": given[0]})
        return _told(await recent_of(pipeline(), query))

    @routes.get("/v1/page/items")
    async def items(request: HttpRequest) -> Response:
        """Titles, genres and years of the items ``id``, which may be given many times."""
        ids = _given(request, "id").get("id", [])
        if len(ids) > MAX_ITEMS:
            raise InvalidRequest(f"at most {MAX_ITEMS} items at once")
        table = pipeline().items
        rows = table.ids.rows(ids)
        return _told({"items": [described(table, row) for row in rows[rows >= 0].tolist()]})

    return routes


def from_here(request: HttpRequest) -> None:
    """Raise ``HTTPException`` unless the caller names this machine and came straight to it.

    Listening on loopback is not enough: a proxy on this machine passes on who is elsewhere, and a page from elsewhere
    may have its own name resolved to 127.0.0.1 (DNS rebinding).
    """
    hosts = request.headers.getlist("host")
    named = len(hosts) == 1 and HERE.fullmatch(hosts[0])
    if not named or any(name in request.headers for name in FORWARDED):
        raise HTTPException(HTTPStatus.FORBIDDEN, NOT_HERE)


def some_users(pipeline: Pipeline, prefix: str) -> list[dict[str, Any]]:
    """Up to ``USERS`` users and how many events of each the bundle has."""
    users = pipeline.reader.users
    rows = rows_with_prefix(users.ids, prefix, USERS) if prefix else _spread(len(users), USERS)
    counts = users.indptr[rows + 1] - users.indptr[rows]
    return [
        {"user_id": users.ids.text(row), "events": count}
        for row, count in zip(rows.tolist(), counts.tolist(), strict=True)
    ]


def rows_with_prefix(ids: IdTable, prefix: str, n: int) -> Rows:
    """The first ``n`` rows, at most, whose id begins with ``prefix``: they lie together, for ids are in byte order."""
    wanted = prefix.encode("utf-8", "surrogatepass")
    if len(wanted) > ids.ids.dtype.itemsize:
        return np.empty(0, np.int32)
    start = int(np.searchsorted(ids.ids, np.bytes_(wanted)))
    near = np.arange(start, min(start + n, len(ids)), dtype=np.int32)
    return near[np.char.startswith(ids.ids[near], wanted)]


def _spread(count: int, n: int) -> Rows:
    return np.unique(np.linspace(0, count - 1, n).astype(np.int32)) if count else np.empty(0, np.int32)


async def recent_of(pipeline: Pipeline, query: Query) -> dict[str, Any]:
    """The user's last events, latest first, read as a recommendation reads them: the bundle's and the stream's."""
    request = pipeline.resolve(query)
    user = await pipeline.reader.read(request, Deadline.after(READ_SECONDS))
    return {
        "user_id": query.user_id,
        "known": request.user_row >= 0,
        "events": len(user.history),
        "recent": _events(pipeline.items, user.history.latest(RECENT)),
    }


def _events(items: Items, history: History) -> list[dict[str, Any]]:
    rows, stars = history.item_row.tolist()[::-1], history.rating.tolist()[::-1]
    return [described(items, row) | {"stars": None if np.isnan(r) else r} for row, r in zip(rows, stars, strict=True)]


def described(items: Items, row: int) -> dict[str, Any]:
    """One item in a person's words."""
    names = items.genre_names
    year = float(items.year[row])
    return {
        "item_id": items.ids.text(row),
        "title": items.titles.text(row),
        "genres": [names[slot] for slot in np.flatnonzero(items.genres[row]) if slot < len(names)],
        "year": None if np.isnan(year) else int(year),
    }


def _given(request: HttpRequest, name: str) -> dict[str, list[str]]:
    """The values of the one known parameter; raises ``InvalidRequest``."""
    given: dict[str, list[str]] = {}
    for key, value in request.query_params.multi_items():
        if key != name or len(value.encode("utf-8", "surrogatepass")) > MAX_ID_BYTES:
            raise InvalidRequest(f"the only parameter is {name}, of at most {MAX_ID_BYTES} bytes")
        given.setdefault(key, []).append(value)
    return given


def _add_file(routes: APIRouter, address: str, path: Path) -> None:
    content, media_type = path.read_bytes(), TYPES[path.suffix]

    @routes.get(address)
    async def file() -> Response:
        return Response(content, headers=HEADERS, media_type=media_type)


def _told(body: dict[str, Sequence[Any] | Any]) -> Response:
    return Response(orjson.dumps(body), media_type="application/json")
