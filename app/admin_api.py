"""Admin calls, apart from the API and for keys of the role ``admin`` only. They hold for all workers of the machine.

GET  /admin/orders          what is ordered
PUT  /admin/holds           {"parts": ["ranking"]}: do not ask these dependencies; an empty list lets go
POST /admin/bundle/reload   look at the link anew, also at a bundle that was refused
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Collection
from concurrent.futures import ThreadPoolExecutor

import orjson
from fastapi import APIRouter
from fastapi import Request as HttpRequest
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from app import openapi, wire
from app.body import Bodies
from app.orders import OrderBook, Orders
from app.refusal import problem_response
from domain.errors import InvalidRequest

JSON = "application/json"
_log = logging.getLogger("streamrec.admin")


def router(book: OrderBook, known: Collection[str], bodies: Bodies) -> APIRouter:
    """The routes over ``book``. ``known`` are the dependencies that there are: whatever has a breaker."""
    routes = APIRouter(tags=["admin"])
    thread = ThreadPoolExecutor(1, "orders")  # not the loop's, which bundles are loaded in

    def beside(work: Callable[[], Orders]) -> Awaitable[Orders]:
        return asyncio.get_running_loop().run_in_executor(thread, work)

    @routes.get("/admin/orders", openapi_extra=openapi.ADMIN)
    async def ordered() -> Response:
        """What is ordered on this machine."""
        return _told(await beside(book.read))

    @routes.put("/admin/holds", openapi_extra=openapi.admin_holds(known))
    async def hold(request: HttpRequest) -> Response:
        """Hold these dependencies, as if their breakers were open, until told otherwise."""
        try:
            parts = parts_from_json(await bodies.read(request), known)
        except ClientDisconnect:
            return Response(status_code=499)
        return await _ordered(request, "hold", beside(lambda: book.hold(parts)))

    @routes.post("/admin/bundle/reload", openapi_extra=openapi.ADMIN)
    async def reload(request: HttpRequest) -> Response:
        """Workers follow the link by themselves; this also gives a refused bundle another chance."""
        return await _ordered(request, "reload", beside(book.reload))

    return routes


def parts_from_json(body: bytes, known: Collection[str]) -> frozenset[str]:
    """The body of ``PUT /admin/holds``; raises ``InvalidRequest``."""
    given = wire.json_object(body)
    parts = given.get("parts")
    if (
        given.keys() != {"parts"}
        or not isinstance(parts, list)
        or any(type(part) is not str or part not in known for part in parts)
    ):
        raise InvalidRequest(f"the body must have the one field parts, a list of some of {', '.join(known)}")
    return frozenset(parts)


async def _ordered(request: HttpRequest, what: str, order: Awaitable[Orders]) -> Response:
    """Who ordered what is always logged: by the name of the key."""
    try:
        orders = await order
    except OSError as error:
        _log.error("order not written", extra={"order": what, "why": error.strerror})  # told in full
        return problem_response(500, "the order could not be written down under HOME")
    _log.warning("ordered", extra={"order": what, "key": request.state.key, "held": sorted(orders.held)})
    return _told(orders)


def _told(orders: Orders) -> Response:
    return Response(orjson.dumps({"held": sorted(orders.held), "reloads": orders.reloads}), media_type=JSON)
