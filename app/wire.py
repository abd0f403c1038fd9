"""Between bytes and the domain: strict in what comes in, plain in what goes out.

Decoding is by hand over orjson, which itself refuses NaN, lone surrogates, more than 1024 levels and broken UTF-8. A
pydantic model would also do, at several times the cost, and would take ``"10"`` for a number unless told otherwise. The
messages of ``InvalidRequest`` never repeat what the caller sent.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Mapping
from dataclasses import replace
from http import HTTPStatus
from typing import Any, cast
from urllib.parse import unquote_to_bytes

import orjson

from domain.answer import Answer
from domain.errors import InvalidRequest
from domain.request import MAX_ID_BYTES, MAX_IDS, MAX_LIMIT, Context, Query

PROBLEM = "application/problem+json"
MAX_WORD_CHARACTERS = 64
MAX_CURSOR_CHARACTERS = 48 * 1024
MAX_AGE_YEARS = 150

_CONTROL = re.compile(r"[\x00-\x1f\x7f]")
_WHOLE = re.compile(r"[0-9]{1,9}", re.ASCII)


class MalformedRequest(InvalidRequest):
    """Not even JSON, so that nothing more can be said about it."""


def query_from_json(body: bytes, request_id: str = "") -> Query:
    """The body of ``POST /v1/recommendations``; raises ``InvalidRequest``."""
    return query_from_fields(json_object(body), request_id)


def json_object(body: bytes) -> dict[str, object]:
    """A body that is one JSON object; of a key given twice the last counts. Raises ``InvalidRequest``."""
    try:
        given = orjson.loads(body)
    except orjson.JSONDecodeError:
        raise MalformedRequest("the body is not valid JSON in UTF-8") from None
    if not isinstance(given, dict):
        raise InvalidRequest("the body must be a JSON object")
    return given


def query_from_fields(given: Mapping[str, object], request_id: str = "") -> Query:
    """A query from named values, each of exactly the right type; raises ``InvalidRequest``."""
    if not given.keys() <= _FIELDS.keys():
        raise InvalidRequest(f"unknown field; known are {', '.join(_FIELDS)}")
    read = {name: _FIELDS[name](value, name) for name, value in given.items()}
    query = Query(**cast("dict[str, Any]", read), request_id=request_id)
    if query.user_id is None and not query.recent_item_ids:
        raise InvalidRequest("user_id or recent_item_ids is required")
    return query


def query_from_path(user_id: str, parameters: list[tuple[str, str]], request_id: str = "") -> Query:
    """The query of ``GET /v1/recommendations/{user_id}?limit=``; raises ``InvalidRequest``."""
    given: dict[str, object] = {"user_id": user_id}
    if any(name != "limit" for name, _ in parameters) or len(parameters) > 1:
        raise InvalidRequest("unknown or repeated parameter; known is limit")
    for _, text in parameters:
        if not _WHOLE.fullmatch(text):
            raise InvalidRequest("limit must be a whole number")
        given["limit"] = int(text)
    return query_from_fields(given, request_id)


def why_from_json(body: bytes, request_id: str = "") -> Query:
    """The body of ``POST /v1/why``: that of a recommendation, and ``item_id``; raises ``InvalidRequest``."""
    given = dict(json_object(body))
    if "item_id" not in given:
        raise InvalidRequest("item_id is required")
    item_id = _id(given.pop("item_id"), "item_id")
    return replace(query_from_fields(given, request_id), why=item_id, debug=True)


def why_from_path(user_id: str, parameters: list[tuple[str, str]], request_id: str = "") -> Query:
    """The query of ``GET /v1/why/{user_id}?item_id=&limit=``; raises ``InvalidRequest``."""
    items = [text for name, text in parameters if name == "item_id"]
    if len(items) != 1:
        raise InvalidRequest("item_id is required, once")
    query = query_from_path(user_id, [pair for pair in parameters if pair[0] != "item_id"], request_id)
    return replace(query, why=_id(items[0], "item_id"), debug=True)


def why_to_json(answer: Answer) -> bytes:
    """What became of the item that was asked about."""
    body = {
        "request_id": answer.request_id,
        "bundle": answer.bundle,
        "degradation": {"level": answer.level.name, "reasons": answer.reasons},
        "arms": answer.arms,
        "funnel": answer.inside and answer.inside.funnel,
        "item": answer.inside and answer.inside.asked,
    }
    return orjson.dumps(body)


def answer_to_json(answer: Answer, *, debug: bool) -> bytes:
    """The answer of design section 6; under ``debug`` also what only a developer asks."""
    body: dict[str, object] = {
        "request_id": answer.request_id,
        "bundle": answer.bundle,
        "items": answer.items,  # orjson writes the dataclass in the order of its fields
        "degradation": {"level": answer.level.name, "reasons": answer.reasons},
        "timing_ms": {stage: round(seconds * 1000, 3) for stage, seconds in answer.timing.items()},
        "cursor": answer.cursor,
        "arms": answer.arms,
    }
    if debug:
        body["debug"] = {"ranked": answer.ranked, "worker": os.getpid(), **_inside(answer)}
    return orjson.dumps(body)


def _inside(answer: Answer) -> dict[str, object]:
    return {} if answer.inside is None else {"funnel": answer.inside.funnel, "items": answer.inside.items}


def server_timing(answer: Answer) -> str:
    """The value of ``Server-Timing``: the answer's stages, in milliseconds."""
    return ", ".join(f"{stage};dur={seconds * 1000:.3f}" for stage, seconds in answer.timing.items())


def require_utf8(raw_path: bytes) -> None:
    """Raise ``MalformedRequest`` if a percent-encoded path is not UTF-8: decoding would make many ids into one."""
    try:
        unquote_to_bytes(raw_path).decode()
    except UnicodeDecodeError:
        raise MalformedRequest("the path is not valid UTF-8") from None


def problem(status: int, detail: str = "") -> bytes:
    """An RFC 9457 problem document. ``detail`` is ours, never the caller's."""
    title = HTTPStatus(status).phrase if status in _STATUSES else "Error"
    body: dict[str, object] = {"type": "about:blank", "title": title, "status": status}
    return orjson.dumps(body | ({"detail": detail} if detail and detail != title else {}))


def _id(value: object, name: str) -> str:
    if not isinstance(value, str):
        raise InvalidRequest(f"{name} must be text")
    try:
        size = len(value) if value.isascii() else len(value.encode())
    except UnicodeEncodeError:
        raise InvalidRequest(f"{name} must be valid Unicode") from None
    if not 0 < size <= MAX_ID_BYTES or _CONTROL.search(value):
        raise InvalidRequest(f"{name} must have 1 to {MAX_ID_BYTES} bytes and no control characters")
    return value


def _optional_id(value: object, name: str) -> str | None:
    return None if value is None else _id(value, name)


def _ids(value: object, name: str) -> tuple[str, ...]:
    if not isinstance(value, list) or len(value) > MAX_IDS:
        raise InvalidRequest(f"{name} must be a list of at most {MAX_IDS} ids")
    return tuple(_id(element, name) for element in value)


def _limit(value: object, name: str) -> int:
    if type(value) is not int or not 1 <= value <= MAX_LIMIT:  # type() because true is an int to isinstance
        raise InvalidRequest(f"{name} must be a whole number from 1 to {MAX_LIMIT}")
    return value


def _flag(value: object, name: str) -> bool:
    if not isinstance(value, bool):
        raise InvalidRequest(f"{name} must be true or false")
    return value


def _cursor(value: object, name: str) -> str | None:
    """Its form only: whether it is one of ours is found out where the key is."""
    if value is not None and not (isinstance(value, str) and value.isascii() and len(value) <= MAX_CURSOR_CHARACTERS):
        raise InvalidRequest(f"{name} must be text as an answer carried it")
    return value


def _word(value: object, name: str) -> str | None:
    if value is None:
        return None
    if not isinstance(value, str) or len(value) > MAX_WORD_CHARACTERS:
        raise InvalidRequest(f"{name} must be text of at most {MAX_WORD_CHARACTERS} characters")
    return value


def _context(value: object, name: str) -> Context:
    if not isinstance(value, dict):
        raise InvalidRequest(f"{name} must be an object")
    if not value.keys() <= _CONTEXT_FIELDS:
        raise InvalidRequest(f"unknown field in {name}; known are device, surface, region and max_age_rating")
    return Context(
        _word(value.get("device"), "context.device"),
        _word(value.get("surface"), "context.surface"),
        _word(value.get("region"), "context.region"),
        _age(value.get("max_age_rating"), "context.max_age_rating"),
    )


def _age(value: object, name: str) -> float | None:
    if value is None:
        return None
    if type(value) is not int or not 0 <= value <= MAX_AGE_YEARS:
        raise InvalidRequest(f"{name} must be a whole number from 0 to {MAX_AGE_YEARS}")
    return float(value)


_CONTEXT_FIELDS = {"device", "surface", "region", "max_age_rating"}
_FIELDS: Mapping[str, Callable[[object, str], object]] = {
    "user_id": _optional_id,
    "limit": _limit,
    "context": _context,
    "exclude_item_ids": _ids,
    "recent_item_ids": _ids,
    "debug": _flag,
    "cursor": _cursor,
}
_STATUSES = frozenset(status.value for status in HTTPStatus)
