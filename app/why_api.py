"""``/v1/why``: what became of one item in the slate that this user would be shown now."""

from __future__ import annotations

from fastapi import APIRouter, Request
from fastapi.responses import Response
from starlette.requests import ClientDisconnect

from app import openapi, wire
from app.body import Bodies
from app.edge import Serving
from domain.deadline import Deadline
from domain.request import Query

PATIENCE_SECONDS = 1.0  # who asks why would rather wait than be told of another slate
CLIENT_LEFT = 499


def router(serving: Serving, bodies: Bodies) -> APIRouter:
    """The slate is made as any other, counted nowhere, and remembered by nobody."""
    routes = APIRouter(tags=["recommendations"])

    async def explain(query: Query) -> Response:
        given = await serving.recommend(query, Deadline.after(PATIENCE_SECONDS))
        return Response(wire.why_to_json(given), media_type="application/json")

    @routes.post("/v1/why", openapi_extra=openapi.WHY)
    async def why(request: Request) -> Response:
        """Why is this item in the slate, or at which step did it fall out?"""
        try:
            body = await bodies.read(request)
        except ClientDisconnect:
            return Response(status_code=CLIENT_LEFT)
        return await explain(wire.why_from_json(body, request.state.request_id))

    user_path = "/v1/why/{user_id:path}"  # an id may have slashes in it; wire reads and checks it

    @routes.get(user_path, openapi_extra=openapi.WHY_USER)
    async def why_user(request: Request) -> Response:
        """The same, for a person with curl."""
        wire.require_utf8(request.scope["raw_path"])
        parameters = request.query_params.multi_items()
        return await explain(wire.why_from_path(request.path_params["user_id"], parameters, request.state.request_id))

    return routes
