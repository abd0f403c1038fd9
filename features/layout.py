"""Feast's Redis layout, written down once: names, keys and the wire form of the few types in use. Imports no Feast.

One hash an entity, whatever views it has. Its key is Feast's entity key (serialization version 3) followed by the
project's name; a field is the murmur3 hash of ``<view>:<feature>``, and ``_ts:<view>`` holds the event time. A value is
a protobuf ``feast.types.Value``, a null an empty one. Of that message only what Feast itself writes is understood;
anything else is refused. Source: ``docs/specs/online_store_format.md`` and ``protos/feast/types/Value.proto`` of
feast-dev/feast.
"""

from __future__ import annotations

import hashlib
import json
import struct
from collections.abc import Sequence
from dataclasses import dataclass

import mmh3
import numpy as np

from domain.arrays import Floats, Seconds
from features.contract import Contract, Feature

ENTITY = "user"
JOIN_KEY = "user_id"
VIEW = "user_batch"  # what the batch step knows of a user
SESSION_VIEW = "user_session"  # what the stream knows: the user's last events
PUSH_SOURCE = "user_session_push"  # what the stream pushes to
ENTITY_KEY_VERSION = 3
EVENT_TIME = "event_timestamp"  # column of the offline store: what the features are as of
CREATED_TIME = "created_timestamp"  # and when they were written

RECENT_ITEM_IDS = "recent_item_ids"
RECENT_RATINGS = "recent_ratings"
RECENT_TIMESTAMPS = "recent_timestamps"
RECENTS = (RECENT_ITEM_IDS, RECENT_RATINGS, RECENT_TIMESTAMPS)
RECENT_EVENTS = 50  # how many of a user's last events the session view keeps

_STRING = struct.pack("<I", 2)  # feast.types.ValueType.STRING
_ENTITY = struct.pack("<I", 1) + _STRING + struct.pack("<I", len(JOIN_KEY)) + JOIN_KEY.encode() + _STRING

# A protobuf tag is ``field number << 3 | wire type``: wire type 5 is four bytes, 2 is length-delimited.
_FLOAT = b"\x35"  # float_val = 6
_FLOAT_LIST = b"\x82\x01"  # float_list_val = 16
_DOUBLE_LIST = b"\x7a"  # double_list_val = 15
_STRING_LIST = b"\x62"  # string_list_val = 12
_ELEMENTS = b"\x0a"  # val = 1 of every list message, packed where numbers


def project_name(contract: Contract, genre_names: Sequence[str]) -> str:
    """The Feast project of everything written under this contract and these genre slots.

    A genre slot is a column whose meaning the dataset decides, so the vocabulary belongs to the name: a store written
    under another contract or vocabulary has other keys, and cannot be read as this one.
    """
    meaning = json.dumps([contract.hash, list(genre_names)])
    return f"streamrec_{hashlib.sha256(meaning.encode()).hexdigest()[:8]}"


def service_name(bundle_version: str) -> str:
    """Feast's name of what the request path reads for a bundle."""
    return f"user_online_{bundle_version}"


def meaning_key(project: str) -> str:
    """Where the store keeps what its features mean (``contract_diff.Meaning``), as JSON."""
    return f"streamrec:meaning:{project}"


def row_key(project: str, user_id: str) -> bytes:
    """The key of the hash that holds every feature view of one user."""
    text = user_id.encode("utf-8", "surrogatepass")
    return _ENTITY + struct.pack("<I", len(text)) + text + project.encode()


def row_pattern(project: str) -> bytes:
    """A SCAN pattern that matches every key of the project (and, rarely, others: see ``row_user``)."""
    return _ENTITY + b"*" + project.encode()


def row_user(project: str, key: bytes) -> str | None:
    """The user's id in a key, or None if it is no key of this project."""
    start = len(_ENTITY) + 4
    size = int.from_bytes(key[len(_ENTITY) : start], "little")
    if key[start + size :] != project.encode():
        return None
    return key[start : start + size].decode("utf-8", "surrogatepass")


def kept_seconds(contract: Contract) -> int:
    """How long after its last write a row stays in Redis: as long as any of its features may be used."""
    return int(max(feature.max_age_seconds for feature in contract.user.features))


def read_fields(contract: Contract) -> tuple[bytes, ...]:
    """What the request path asks of a user's hash: the batch fields, then the recents of the session view.

    Raises ``ValueError`` if two names share a hash: Feast would store one over the other.
    """
    recents = session_fields()[1:]  # when the stream last wrote is Feast's to know
    fields = (*batch_fields(contract), *recents)
    if len(set(fields)) < len(fields):
        raise ValueError("two features have the same murmur3 hash: rename one")
    return fields


def batch_fields(contract: Contract) -> tuple[bytes, ...]:
    """The fields of the view ``user_batch``: its time, then the features in the contract's order."""
    return _time_field(VIEW), *(field_name(VIEW, feature.name) for feature in contract.user.features)


def session_fields() -> tuple[bytes, ...]:
    """The fields of the view ``user_session``: its time, then ``RECENTS``."""
    return _time_field(SESSION_VIEW), *(field_name(SESSION_VIEW, name) for name in RECENTS)


def batch_row(contract: Contract, features: Floats, as_of: float) -> dict[bytes, bytes]:
    """A user's whole batch view, ``(U,)`` features in the contract's order, byte for byte as Feast would write it."""
    values = [encode_time(as_of)]
    for feature in contract.user.features:
        columns = np.asarray(features[contract.user.slices[feature.name]], "<f4")
        values.append(FloatForm.of(feature).prefix + columns.tobytes())
    return dict(zip(batch_fields(contract), values, strict=True))


def session_row(
    item_ids: Sequence[str], ratings: Sequence[float], timestamps: Sequence[float], moment: float
) -> dict[bytes, bytes]:
    """A user's whole session view, to be set in the hash at ``row_key``, byte for byte as Feast would write it.

    The three lists are aligned, oldest event first, at most ``RECENT_EVENTS`` long; a rating is NaN where there was
    none, times are UTC seconds. ``moment`` is the view's event time: every write must bring a later microsecond.
    """
    if not len(item_ids) == len(ratings) == len(timestamps) <= RECENT_EVENTS:
        raise ValueError(f"recents of {len(item_ids)}, {len(ratings)} and {len(timestamps)} events")
    values = (encode_time(moment), encode_strings(item_ids), encode_floats(ratings), encode_doubles(timestamps))
    return dict(zip(session_fields(), values, strict=True))


def _time_field(view: str) -> bytes:
    return f"_ts:{view}".encode()


def field_name(view: str, feature: str) -> bytes:
    """Where a feature lies in the hash: four bytes, little-endian."""
    return struct.pack("<I", mmh3.hash(f"{view}:{feature}", signed=False))


@dataclass(frozen=True, slots=True)
class FloatForm:
    """The one form that a feature of ``width`` columns has on the wire: ``prefix``, then ``4 * width`` bytes."""

    prefix: bytes
    size: int  # of the whole value

    @classmethod
    def of(cls, feature: Feature) -> FloatForm:
        """Float32 for one column, Array(Float32) for more."""
        packed = 4 * feature.width
        elements = _ELEMENTS + _varint(packed)
        prefix = _FLOAT if feature.width == 1 else _FLOAT_LIST + _varint(len(elements) + packed) + elements
        return cls(prefix, len(prefix) + packed)

    def raw(self, value: bytes) -> bytes | None:
        """The columns as little-endian float32, or None if this is another type or width."""
        return value[len(self.prefix) :] if len(value) == self.size and value.startswith(self.prefix) else None


def encode_floats(values: Sequence[float]) -> bytes:
    """Array(Float32)."""
    return _list(_FLOAT_LIST, _element(np.asarray(values, "<f4").tobytes()) if len(values) else b"")


def encode_doubles(values: Sequence[float]) -> bytes:
    """Array(Float64)."""
    return _list(_DOUBLE_LIST, _element(np.asarray(values, "<f8").tobytes()) if len(values) else b"")


def encode_strings(values: Sequence[str]) -> bytes:
    """Array(String)."""
    return _list(_STRING_LIST, b"".join(_element(value.encode()) for value in values))


def encode_time(moment: float) -> bytes:
    """UTC seconds as ``google.protobuf.Timestamp``, to the microsecond; a zero is left out."""
    seconds, micros = divmod(round(moment * 1e6), 1_000_000)
    parts = ((b"\x08", seconds % (1 << 64)), (b"\x10", micros * 1000))
    return b"".join(tag + _varint(number) for tag, number in parts if number)


def decode_floats(value: bytes) -> Floats:
    """Array(Float32) of any length; raises ``ValueError``."""
    return np.frombuffer(b"".join(_elements(value, _FLOAT_LIST)), "<f4")


def decode_doubles(value: bytes) -> Seconds:
    """Array(Float64) of any length; raises ``ValueError``."""
    return np.frombuffer(b"".join(_elements(value, _DOUBLE_LIST)), "<f8")


def decode_strings(value: bytes) -> tuple[str, ...]:
    """Array(String); raises ``ValueError``."""
    return tuple(map(bytes.decode, _elements(value, _STRING_LIST)))


def decode_time(value: bytes) -> float:
    """``google.protobuf.Timestamp`` as UTC seconds; raises ``ValueError``."""
    parts, at = {0x08: 0, 0x10: 0}, 0  # seconds and nanos; a zero is left out
    while at < len(value):
        tag, at = value[at], at + 1
        number, at = _read_varint(value, at)
        if tag not in parts:
            raise ValueError("not a timestamp")
        parts[tag] = number - (1 << 64) if number >> 63 else number
    return parts[0x08] + parts[0x10] / 1e9


def _elements(value: bytes, tag: bytes) -> list[bytes]:
    """What a list value of this type holds: its texts, or its numbers in packed runs (one run, as Feast writes it)."""
    if not value.startswith(tag):
        raise ValueError("another type than expected")
    size, at = _read_varint(value, len(tag))
    end, elements = len(value), []
    if at + size != end:
        raise ValueError("a value cut short, or followed by something")
    while at < end:
        if value[at] != _ELEMENTS[0]:
            raise ValueError("not a list message")
        start = at + 2
        size = value[at + 1] if start <= end else end
        if size > 0x7F:  # most elements are shorter, and a call for each would double the time
            size, start = _read_varint(value, at + 1)
        at = start + size
        elements.append(value[start:at])
    if at > end:
        raise ValueError("a value cut short")
    return elements


def _list(tag: bytes, content: bytes) -> bytes:
    return tag + _varint(len(content)) + content


def _element(content: bytes) -> bytes:
    return _ELEMENTS + _varint(len(content)) + content


def _varint(number: int) -> bytes:
    out = bytearray()
    while number > 0x7F:
        out.append(number & 0x7F | 0x80)
        number >>= 7
    out.append(number)
    return bytes(out)


def _read_varint(value: bytes, at: int) -> tuple[int, int]:
    """The number at ``at`` and where it ends."""
    number = 0
    for position, byte in enumerate(value[at : at + 10]):
        number |= (byte & 0x7F) << 7 * position
        if byte < 0x80:
            return number, at + position + 1
    raise ValueError("a number cut short")
