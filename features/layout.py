"""Feast's Redis layout, written down once: names, keys and the wire form of the few types in use. Imports no Feast.

One hash an entity. Its key is Feast's entity key (serialization version 3) followed by the project's name; a field is
the murmur3 hash of ``<view>:<feature>``, and ``_ts:<view>`` holds the event time. A value is a protobuf
``feast.types.Value``, a null an empty one. Of that message only what Feast itself writes is understood; anything else
is refused. Source: ``docs/specs/online_store_format.md`` and ``protos/feast/types/Value.proto`` of feast-dev/feast.
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
VIEW = "user_batch"
SERVICE = "user_online"
ENTITY_KEY_VERSION = 3
EVENT_TIME = "event_timestamp"  # column of the offline store: what the features are as of
CREATED_TIME = "created_timestamp"  # and when they were written

RECENT_ITEM_IDS = "recent_item_ids"
RECENT_RATINGS = "recent_ratings"
RECENT_TIMESTAMPS = "recent_timestamps"
RECENTS = (RECENT_ITEM_IDS, RECENT_RATINGS, RECENT_TIMESTAMPS)
RECENT_EVENTS = 50  # how many of a user's last events travel with the features

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


def view_fields(contract: Contract) -> tuple[bytes, ...]:
    """The fields of one user's batch row: the event time, the features in the contract's order, the recents.

    Raises ``ValueError`` if two names share a hash: Feast would store one over the other.
    """
    names = [*(feature.name for feature in contract.user.features), *RECENTS]
    fields = (f"_ts:{VIEW}".encode(), *(field_name(VIEW, name) for name in names))
    if len(set(fields)) < len(fields):
        raise ValueError("two features have the same murmur3 hash: rename one")
    return fields


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


def decode_floats(value: bytes) -> Floats:
    """Array(Float32) of any length; raises ``ValueError``."""
    return np.frombuffer(b"".join(_elements(value, _FLOAT_LIST)), "<f4")


def decode_doubles(value: bytes) -> Seconds:
    """Array(Float64) of any length; raises ``ValueError``."""
    return np.frombuffer(b"".join(_elements(value, _DOUBLE_LIST)), "<f8")


def decode_strings(value: bytes) -> tuple[str, ...]:
    """Array(String); raises ``ValueError``."""
    return tuple(text.decode() for text in _elements(value, _STRING_LIST))


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
