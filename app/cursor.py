"""The cursor: paging through one slate without repeats, with nothing kept on the server.

A cursor says what was on the pages before, in external ids, under which bundle, and until when it holds. It is signed
together with the user it was given to, so that nobody else's, and nothing made up, is taken.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import os
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path

import orjson

from app.wire import MAX_CURSOR_CHARACTERS
from domain.answer import Answer
from domain.errors import InvalidRequest, StartError
from domain.request import Page, Query

MAX_SHOWN = 500  # items on all pages together: more are not ranked for one request
HOLDS_SECONDS = 1800.0
TAG_BYTES = 16
REFUSED = "cursor is none of ours, too old, or was given to another user: begin again without it"


@dataclass(frozen=True, slots=True)
class Cursors:
    """Seals and opens cursors with one key, which all workers share."""

    key: bytes = field(repr=False)
    wall: Callable[[], float] = field(default=time.time, repr=False)

    def opened(self, query: Query) -> Query:
        """The query with the page that its cursor asks for, if it has one; raises ``InvalidRequest``."""
        if query.cursor is None:
            return query
        try:
            raw = base64.b64decode(query.cursor, altchars=b"-_", validate=True)
        except (binascii.Error, ValueError):
            raise InvalidRequest(REFUSED) from None
        tag, body = raw[:TAG_BYTES], raw[TAG_BYTES:]
        if not hmac.compare_digest(tag, self._tag(query.user_id, body)):
            raise InvalidRequest(REFUSED)
        until, bundle, *shown = orjson.loads(body)  # ours, or the tag would not fit
        if self.wall() >= until:
            raise InvalidRequest(REFUSED)
        return replace(query, page=Page(tuple(shown), bundle))

    def after(self, query: Query, answer: Answer) -> str | None:
        """The cursor for what comes after this answer; None where there is nothing more to come."""
        earlier = query.page.shown if query.page else ()
        shown = (*earlier, *(item.item_id for item in answer.items))
        if not answer.items or len(shown) > MAX_SHOWN:
            return None
        body = orjson.dumps([round(self.wall() + HOLDS_SECONDS), answer.bundle, *shown])
        sealed = base64.urlsafe_b64encode(self._tag(query.user_id, body) + body).decode()
        return sealed if len(sealed) <= MAX_CURSOR_CHARACTERS else None

    def _tag(self, user_id: str | None, body: bytes) -> bytes:
        whose = b"" if user_id is None else b"=" + user_id.encode()  # nobody is not the user whose id is empty
        signed = len(whose).to_bytes(4) + whose + body
        return hmac.new(self.key, signed, hashlib.sha256).digest()[:TAG_BYTES]


def open_key(given: str | None, home: Path) -> bytes:
    """The key from the settings, else the one kept under ``home``, made by the first worker that needs it."""
    if given is not None:
        return hashlib.sha256(given.encode()).digest()
    path = home / "cursor.key"
    try:
        if not path.exists():
            _make(path)
        key = path.read_bytes()
    except OSError as error:
        raise StartError(f"the key of the cursors cannot be kept in {path}: {error.strerror}") from error
    if len(key) < 32:
        raise StartError(f"{path} is no key: remove it, and another is made")
    return key


def _make(path: Path) -> None:
    """Written whole and then given its name, so that two workers at once end up with one key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    mine = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with os.fdopen(os.open(mine, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(secrets.token_bytes(32))
    try:
        os.link(mine, path)
    except FileExistsError:
        pass
    finally:
        mine.unlink()
