"""What ``/docs`` says of the API. The bodies are read by hand in ``app.wire``; a test holds the two together."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

from app.events_api import MAX_EVENTS
from app.wire import MAX_CURSOR_CHARACTERS, MAX_WORD_CHARACTERS, PROBLEM
from domain.degradation import DegradationLevel
from domain.explanation import Step
from domain.request import MAX_ID_BYTES, MAX_IDS, MAX_LIMIT
from events.event import KINDS, MAX_STARS

Schema = dict[str, Any]

_ID: Schema = {"type": "string", "minLength": 1, "maxLength": MAX_ID_BYTES, "pattern": r"^[^\u0000-\u001f\u007f]+$"}
_IDS: Schema = {"type": "array", "items": _ID, "maxItems": MAX_IDS, "default": []}
_LIMIT: Schema = {"type": "integer", "minimum": 1, "maximum": MAX_LIMIT, "default": 20}
_WORD: Schema = {"type": ["string", "null"], "maxLength": MAX_WORD_CHARACTERS}


def _object(properties: Schema, *, closed: bool = False, optional: tuple[str, ...] = ()) -> Schema:
    required = [name for name in properties if name not in optional]
    ending: Schema = {"additionalProperties": False} if closed else {"required": required}
    return {"type": "object", "properties": properties, **ending}


_AGE: Schema = {
    "type": ["integer", "null"],
    "minimum": 0,
    "maximum": 150,
    "description": "Years; rated above: not shown",
}

REQUEST: Schema = _object(
    {
        "user_id": {**_ID, "type": ["string", "null"], "description": "Unknown users are cold starts, not errors"},
        "limit": _LIMIT,
        "context": _object({"device": _WORD, "surface": _WORD, "region": _WORD, "max_age_rating": _AGE}, closed=True),
        "exclude_item_ids": {**_IDS, "description": "Items that must not come back"},
        "recent_item_ids": {**_IDS, "description": "What the user did last, oldest first"},
        "debug": {"type": "boolean", "default": False},
        "cursor": {
            "type": ["string", "null"],
            "maxLength": MAX_CURSOR_CHARACTERS,
            "pattern": r"^[\u0000-\u007f]*$",
            "description": "Of the answer before, to the same user: the next page, without repeats. One that is not "
            "ours, too old or somebody else's is a 422",
        },
    },
    closed=True,
) | {
    "description": "user_id or recent_item_ids, or both",
    "anyOf": [
        {"required": ["user_id"], "properties": {"user_id": {"type": "string"}}},
        {"required": ["recent_item_ids"], "properties": {"recent_item_ids": {"minItems": 1}}},
    ],
    "example": {"user_id": "42", "limit": 20, "context": {"device": "tv", "surface": "home"}},
}

_ITEM = _object(
    {
        "item_id": {"type": "string"},
        "title": {"type": "string"},
        "score": {"type": "number"},
        "sources": {"type": "array", "items": {"type": "string"}},
        "rule": {"type": ["string", "null"], "description": "The re-ranking rule that put it there, if one did"},
    }
)

_COUNT: Schema = {"type": "integer", "minimum": 0}
_PLACE: Schema = {"type": ["integer", "null"], "minimum": 0}

FUNNEL: Schema = _object(
    {
        "sources": {"type": "object", "additionalProperties": _COUNT, "description": "Proposed by each"},
        "merged": {**_COUNT, "description": "Different ones among them"},
        "filtered": {**_COUNT, "description": "Of those, what may be shown to this user"},
        "added": {**_COUNT, "description": "Ranked though no source proposed them"},
        "ranked": _COUNT,
        "slate": _COUNT,
    }
)

EXPLAINED: Schema = _object(
    {
        "item_id": {"type": "string"},
        "title": {"type": "string"},
        "step": {"type": "string", "enum": [step.value for step in Step]},
        "reason": {"type": ["string", "null"]},
        "sources": {
            "type": "array",
            "items": _object({"source": {"type": "string"}, "rank": _COUNT, "score": {"type": "number"}}),
        },
        "ranker_score": {"type": ["number", "null"]},
        "ranked_place": _PLACE,
        "moves": {
            "type": "array",
            "items": _object({"rule": {"type": "string"}, "before": _COUNT, "after": _PLACE}),
            "description": "In the order of the rules; places count from 0",
        },
        "place": _PLACE,
    }
)

ANSWER: Schema = _object(
    {
        "request_id": {"type": "string"},
        "bundle": {"type": "string", "description": "Version of the models that answered"},
        "items": {"type": "array", "items": _ITEM, "maxItems": MAX_LIMIT},
        "degradation": _object(
            {
                "level": {"type": "string", "enum": [level.name for level in DegradationLevel]},
                "reasons": {"type": "array", "items": {"type": "string"}},
            }
        ),
        "timing_ms": {"type": "object", "additionalProperties": {"type": "number"}},
        "cursor": {"type": ["string", "null"], "description": "Asks for the next page; null: there is none"},
        "arms": {"type": "object", "additionalProperties": {"type": "string"}, "description": "Experiment layer: arm"},
        "debug": _object(
            {
                "ranked": {"type": "integer"},
                "worker": {"type": "integer"},
                "funnel": FUNNEL,
                "items": {"type": "array", "items": EXPLAINED, "description": "In the order of the slate"},
            },
            optional=("funnel", "items"),
        ),
    },
    optional=("debug",),
)

_PROBLEM: Schema = _object(
    {
        "type": {"type": "string"},
        "title": {"type": "string"},
        "status": {"type": "integer"},
        "detail": {"type": "string"},
    },
    optional=("detail",),
)

_EVENT: Schema = {
    "type": "object",
    "properties": {
        "event_id": {**_ID, "description": "The same id again is the same event, and counts once"},
        "user_id": _ID,
        "item_id": _ID,
        "kind": {"type": "string", "enum": list(KINDS)},
        "timestamp": {"type": "number", "minimum": 0, "description": "UTC seconds; now if left out; not the future"},
        "rating": {"type": "number", "minimum": 0, "maximum": MAX_STARS, "description": "Stars, with kind rating only"},
    },
    "required": ["event_id", "user_id", "item_id", "kind"],
    "additionalProperties": False,
    "if": {"properties": {"kind": {"const": "rating"}}},
    "then": {"required": ["rating"]},
    "else": {"properties": {"rating": False}},
}

EVENTS: Schema = {
    "type": "object",
    "properties": {"events": {"type": "array", "items": _EVENT, "minItems": 1, "maxItems": MAX_EVENTS}},
    "required": ["events"],
    "additionalProperties": False,
    "example": {"events": [{"event_id": "e-1", "user_id": "42", "item_id": "296", "kind": "play"}]},
}

_ACCEPTED = _object({"accepted": {"type": "integer"}})

_HEADERS: list[Schema] = [
    {
        "name": "X-Request-Timeout-Ms",
        "in": "header",
        "description": "How long the caller waits; the answer leaves by then",
        "schema": {"type": "string", "pattern": r"^-?[0-9]{1,400}(\.[0-9]{1,400})?$", "examples": ["80"]},
    },
    {
        "name": "X-Request-Id",
        "in": "header",
        "description": "Comes back in the answer; one is made if it is missing or unfit for a log",
        "schema": {"type": "string"},
    },
]


def _responses(*refusals: int) -> Schema:
    answer = {
        "description": "A slate, and how good it is",
        "headers": {
            "Server-Timing": {"description": "The stages of timing_ms, for browsers", "schema": {"type": "string"}}
        },
        "content": {"application/json": {"schema": ANSWER}},
    }
    refused = {"description": "Refused", "content": {PROBLEM: {"schema": _PROBLEM}}}
    return {"200": answer} | {str(status): refused for status in refusals}


_KEYED: Schema = {
    "401": {
        "description": "No API key, or none that is known",
        "headers": {"WWW-Authenticate": {"schema": {"type": "string"}}},
        "content": {PROBLEM: {"schema": _PROBLEM}},
    },
    "403": {"description": "A key of another role", "content": {PROBLEM: {"schema": _PROBLEM}}},
    "429": {
        "description": "Too many requests",
        "headers": {"Retry-After": {"schema": {"type": "integer"}}},
        "content": {PROBLEM: {"schema": _PROBLEM}},
    },
}
"""What every call may be answered where API keys are on."""

POST_EVENTS: Schema = {
    "parameters": _HEADERS[1:],
    "requestBody": {"required": True, "content": {"application/json": {"schema": EVENTS}}},
    "responses": {
        "202": {"description": "In the log", "content": {"application/json": {"schema": _ACCEPTED}}},
        "503": {
            "description": "Not all in the log: send the same batch again",
            "headers": {"Retry-After": {"schema": {"type": "integer"}}},
            "content": {PROBLEM: {"schema": _PROBLEM}},
        },
    }
    | {status: refusal for status, refusal in _responses(400, 408, 413, 415, 422, 500).items() if status != "200"}
    | _KEYED,
}

POST: Schema = {
    "parameters": _HEADERS,
    "requestBody": {"required": True, "content": {"application/json": {"schema": REQUEST}}},
    "responses": _responses(400, 408, 413, 415, 422, 500) | _KEYED,
}

GET: Schema = {
    "parameters": [
        {"name": "user_id", "in": "path", "required": True, "schema": _ID},
        {"name": "limit", "in": "query", "schema": _LIMIT},
        *_HEADERS,
    ],
    "responses": _responses(400, 404, 422, 500) | _KEYED,  # 404: an id with a line break in it is no path
}

_WHY = _object(
    {
        "request_id": {"type": "string"},
        "bundle": {"type": "string"},
        "degradation": ANSWER["properties"]["degradation"],
        "arms": ANSWER["properties"]["arms"],
        "funnel": {"anyOf": [FUNNEL, {"type": "null"}]},
        "item": {"anyOf": [EXPLAINED, {"type": "null"}]},
    }
)


def _explained(*refusals: int) -> Schema:
    told = {"description": "What became of the item", "content": {"application/json": {"schema": _WHY}}}
    return _responses(*refusals) | {"200": told} | _KEYED


WHY: Schema = {
    "parameters": _HEADERS[1:],
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": REQUEST
                | {
                    "properties": {**REQUEST["properties"], "item_id": _ID},
                    "required": ["item_id"],
                    "example": {"user_id": "42", "item_id": "296"},
                }
            }
        },
    },
    "responses": _explained(400, 408, 413, 415, 422, 500),
}

WHY_USER: Schema = {
    "parameters": [
        {"name": "user_id", "in": "path", "required": True, "schema": _ID},
        {"name": "item_id", "in": "query", "required": True, "schema": _ID},
        {"name": "limit", "in": "query", "schema": _LIMIT},
        *_HEADERS[1:],
    ],
    "responses": _explained(400, 404, 422, 500),
}

_ORDERS = _object({"held": {"type": "array", "items": {"type": "string"}}, "reloads": {"type": "integer"}})


def _ordered(*refusals: int) -> Schema:
    ordered = {"description": "What is ordered now", "content": {"application/json": {"schema": _ORDERS}}}
    return _responses(*refusals) | {"200": ordered} | _KEYED


ADMIN: Schema = {"responses": _ordered(500)}


def admin_holds(known: Collection[str]) -> Schema:
    """``PUT /admin/holds``, where ``known`` can be held."""
    parts = {"type": "array", "items": {"type": "string", "enum": sorted(known)}}
    body = _object({"parts": parts}, closed=True) | {"required": ["parts"]}
    return {
        "requestBody": {"required": True, "content": {"application/json": {"schema": body}}},
        "responses": _ordered(400, 408, 413, 415, 422, 500),
    }


METRICS: Schema = {
    "responses": {"200": {"description": "Samples", "content": {"text/plain": {"schema": {"type": "string"}}}}} | _KEYED
}
PROBE: Schema = {"responses": {"503": {"description": "Not now", "content": {"application/json": {}}}}}
