"""``POST /v1/events`` and ``streamrec.v1.Events/Append``: strict at the door, and taken only when the log has it.

An event id makes a retry harmless: after a 503, a timeout or a lost answer, send the same batch again. A time up to
five minutes ahead becomes now, for clocks differ; one further ahead is refused, for it would hold its place for good.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, cast

import grpc
from google.protobuf.message import DecodeError

from app import metrics
from app.edge import report_bug, request_id
from app.proto.streamrec.v1 import events_pb2 as pb
from app.wire import json_object
from domain.errors import DependencyError, InvalidRequest, Late
from domain.request import MAX_ID_BYTES
from events.consumer import FUTURE_SECONDS
from events.event import KINDS, MAX_STARS, Event, is_id, number
from events.log import EventLog

if TYPE_CHECKING:
    from app.grpc_api import Call

EVENTS = pb.DESCRIPTOR.services_by_name["Events"].full_name
MAX_EVENTS = 100
APPEND_SECONDS = 2.0
RETRY_SECONDS = 1
NOT_TAKEN = "the event log cannot take this now; send the same batch again"

_REQUIRED = ("event_id", "user_id", "item_id", "kind")


def events_from_json(body: bytes, now: float) -> tuple[Event, ...]:
    """The body of ``POST /v1/events``; raises ``InvalidRequest``."""
    given = json_object(body)
    if given.keys() != {"events"}:
        raise InvalidRequest("the body must be a JSON object with the one field events")
    return events_from_fields(given["events"], now)


def events_from_message(message: bytes, now: float) -> tuple[Event, ...]:
    """The events in a serialised ``AppendRequest``; raises ``InvalidRequest``."""
    try:
        asked = pb.AppendRequest.FromString(message)
    except DecodeError:
        raise InvalidRequest("the message is not a streamrec.v1.AppendRequest") from None
    return events_from_fields([_fields_of(event) for event in asked.events], now)


def events_from_fields(given: object, now: float) -> tuple[Event, ...]:
    """Events from a list of named values, each of exactly the right type; raises ``InvalidRequest``."""
    if not isinstance(given, list) or not 1 <= len(given) <= MAX_EVENTS:
        raise InvalidRequest(f"events must be a list of 1 to {MAX_EVENTS} events")
    return tuple(_event(fields, now) for fields in given)


def _event(fields: object, now: float) -> Event:
    if not isinstance(fields, dict) or not fields.keys() <= _FIELDS.keys():
        raise InvalidRequest(f"each event must be an object; known fields are {', '.join(_FIELDS)}")
    if missing := [name for name in _REQUIRED if name not in fields]:
        raise InvalidRequest(f"each event needs {missing[0]}")
    read = {name: _FIELDS[name](value, name) for name, value in fields.items()}
    event = Event(**cast("dict[str, Any]", {"timestamp": now} | read))
    if (event.kind == "rating") != (event.rating is not None):
        raise InvalidRequest('an event of kind "rating" needs a rating, and no other may have one')
    if event.timestamp > now + FUTURE_SECONDS:
        raise InvalidRequest(f"timestamp is in UTC seconds, and at most {FUTURE_SECONDS:g} s ahead")
    return event if event.timestamp <= now else Event(**{**_as_fields(event), "timestamp": now})


def _as_fields(event: Event) -> dict[str, Any]:
    return {name: getattr(event, name) for name in _FIELDS}


def _fields_of(event: Any) -> Mapping[str, object]:
    optional = {name: getattr(event, name) for name in ("timestamp", "rating") if event.HasField(name)}
    return {name: getattr(event, name) for name in _REQUIRED} | optional


def _id(value: object, name: str) -> str:
    try:
        if isinstance(value, str) and is_id(value):
            return value
    except UnicodeEncodeError:
        pass
    raise InvalidRequest(f"{name} must be text of 1 to {MAX_ID_BYTES} bytes without control characters")


def _kind(value: object, name: str) -> str:
    if not isinstance(value, str) or value not in KINDS:
        raise InvalidRequest(f"{name} must be one of {', '.join(KINDS)}")
    return value


def _timestamp(value: object, name: str) -> float:
    seconds = number(value)
    if seconds is None or seconds < 0:
        raise InvalidRequest(f"{name} must be a number of UTC seconds")
    return seconds


def _rating(value: object, name: str) -> float:
    stars = number(value)
    if stars is None or not 0 <= stars <= MAX_STARS:
        raise InvalidRequest(f"{name} must be a number of stars from 0 to {MAX_STARS:g}")
    return stars


_FIELDS: Mapping[str, Callable[[object, str], object]] = {
    "event_id": _id,
    "user_id": _id,
    "item_id": _id,
    "kind": _kind,
    "timestamp": _timestamp,
    "rating": _rating,
}


@dataclass(frozen=True, slots=True)
class ArmedLog:
    """The event log, each event with the arms of its user: so that what they did can be told by arm."""

    log: EventLog
    arms: Callable[[str], Mapping[str, str]]

    async def append(self, events: Sequence[Event]) -> None:
        """Raises what the log raises."""
        await self.log.append([replace(event, arms=self.arms(event.user_id) or None) for event in events])

    async def close(self) -> None:
        await self.log.close()


async def accept(log: EventLog, events: Sequence[Event]) -> None:
    """Returns once the log has them; raises ``DependencyError``, and then the caller must be told to try again."""
    try:
        async with asyncio.timeout(APPEND_SECONDS):
            await log.append(events)
    except TimeoutError:
        raise Late("the event log did not answer in time") from None


class EventsRpc:
    """``streamrec.v1.Events``. Takes and gives bytes, as ``app.grpc_api.Recommender`` does and for the same reason."""

    def __init__(self, log: EventLog, clock: Callable[[], float] = time.time) -> None:
        self._log = log
        self._clock = clock

    async def append(self, message: bytes, call: Call) -> bytes:
        """``Events.Append``, counted however it ends."""
        started, code = time.monotonic(), grpc.StatusCode.CANCELLED
        try:
            reply = await self._append(message)
            code = grpc.StatusCode.OK
            return reply
        except Exception as error:  # noqa: BLE001  # the only one of this door: told apart, and answered
            code, detail = _refusal(error)
            await call.abort(code, detail)
        finally:
            metrics.events_asked("grpc", code.name, time.monotonic() - started)

    async def _append(self, message: bytes) -> bytes:
        events = events_from_message(message, self._clock())
        await accept(self._log, events)
        return bytes(pb.AppendResponse(accepted=len(events)).SerializeToString())


def _refusal(error: Exception) -> tuple[grpc.StatusCode, str]:
    if isinstance(error, InvalidRequest):
        return grpc.StatusCode.INVALID_ARGUMENT, str(error)
    if isinstance(error, DependencyError):
        metrics.events_not_taken(error.cause)
        return grpc.StatusCode.UNAVAILABLE, NOT_TAKEN
    report_bug("grpc", request_id(None), error)
    return grpc.StatusCode.INTERNAL, "internal error"
