"""Who may come through the door: API keys, what each may do, and how often.

A key is ``<name>.<secret>``. The secret is 256 random bits, so its SHA-256 is all that has to be kept: there is nothing
to guess, and a slow hash would only slow the door. The name finds the line to compare with, and is no secret.

The file has a line a key, ``name role sha256 requests_per_second burst``; ``#`` begins a comment. It is read again when
it changes, so a key is given or taken away without a restart; one that cannot be read then leaves the last in force.
"""

from __future__ import annotations

import hashlib
import hmac
import ipaddress
import logging
import re
import secrets
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from enum import Enum
from pathlib import Path

from app.settings import Settings, variable_of
from domain.errors import StartError

CLIENT, READER, ADMIN = "client", "reader", "admin"
ROLES = (CLIENT, READER, ADMIN)
ANYBODY = frozenset(ROLES)
"""Every role, but still with a key."""

MAX_KEYS = 1000
LOOK_SECONDS = 1.0
DEFAULT_RATE = 1000.0

_TOKEN = re.compile(r"([a-z0-9-]{1,32})\.([A-Za-z0-9_-]{43})", re.ASCII)
_LINE = re.compile(r"([a-z0-9-]{1,32}) +([a-z]+) +([0-9a-f]{64}) +([0-9.]{1,12}) +([0-9.]{1,12})", re.ASCII)
_log = logging.getLogger("streamrec.access")


class Outcome(Enum):
    """What became of a request at the door."""

    GRANTED = "granted"
    UNKNOWN = "unknown"  # no key, or none that we know
    FORBIDDEN = "forbidden"  # a key for something else
    LIMITED = "limited"  # too often


@dataclass(frozen=True, slots=True)
class Verdict:
    """The outcome, whose key it was (empty if nobody's), and for ``LIMITED`` the seconds until the next is granted."""

    outcome: Outcome
    name: str = ""
    retry_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Key:
    """A line of the file: who, what for, the secret's digest, requests a second, and how many at once after a rest."""

    name: str
    role: str
    digest: str = field(repr=False)
    rate: float
    burst: float

    @property
    def line(self) -> str:
        """As it stands in the file."""
        return f"{self.name} {self.role} {self.digest} {self.rate:g} {self.burst:g}"


def make_key(name: str, role: str = CLIENT, rate: float = DEFAULT_RATE, burst: float | None = None) -> tuple[str, Key]:
    """A new token for the caller and the key to keep; raises ``StartError`` if the file could not hold it."""
    secret = secrets.token_urlsafe(32)
    key = Key(name, role, _digest(secret), rate, max(1.0, rate) if burst is None else burst)
    read_keys(key.line)
    return f"{name}.{secret}", key


def read_keys(text: str) -> Mapping[str, Key]:
    """Keys by name; raises ``StartError``, which names the line and never repeats it."""
    keys: dict[str, Key] = {}
    for number, line in enumerate(text.splitlines(), 1):
        if not (wanted := line.partition("#")[0].strip()):
            continue
        key = _key(wanted)
        if key is None or key.name in keys or len(keys) == MAX_KEYS:
            raise StartError(
                f"line {number} of the key file is not `name role sha256 requests_per_second burst` with a role of "
                f"{', '.join(ROLES)}, or repeats a name, or is one of more than {MAX_KEYS}"
            )
        keys[key.name] = key
    return keys


def _key(line: str) -> Key | None:
    if (parts := _LINE.fullmatch(line)) is None:
        return None
    name, role, digest, *figures = parts.groups()
    try:
        rate, burst = map(float, figures)
    except ValueError:
        return None
    return Key(name, role, digest, rate, burst) if role in ROLES and rate > 0 and burst >= 1 else None


class Bucket:
    """A token bucket: ``rate`` a second, ``burst`` at most. ``take`` gives 0, or the seconds until there is a token."""

    __slots__ = ("_at", "_burst", "_clock", "_held", "_rate")

    def __init__(self, rate: float, burst: float, clock: Callable[[], float]) -> None:
        self._rate, self._burst, self._clock = rate, burst, clock
        self._held, self._at = burst, clock()

    def take(self) -> float:
        now = self._clock()
        self._held, self._at = min(self._burst, self._held + (now - self._at) * self._rate), now
        if self._held < 1:
            return (1 - self._held) / self._rate
        self._held -= 1
        return 0.0


class Access:
    """Asked once for each request, by both doors. Without a file everything is granted, except what needs ``ADMIN``.

    Each of ``workers`` has buckets of its own, so each grants its share; a bucket a key is all there ever is.
    """

    def __init__(self, path: Path | None, workers: int = 1, clock: Callable[[], float] = time.monotonic) -> None:
        self._path, self._workers, self._clock = path, workers, clock
        self._keys: Mapping[str, Key] = {}
        self._buckets: dict[Key, Bucket] = {}
        self._stamp: object = None
        self._look_at = clock() + LOOK_SECONDS
        if path is not None:
            self._read(path)

    @property
    def required(self) -> bool:
        """Whether callers need a key."""
        return self._path is not None

    def check(self, token: str | None, roles: frozenset[str]) -> Verdict:
        """Whether the bearer of ``token`` may do what is for ``roles``, now."""
        if self._path is None:
            return Verdict(Outcome.FORBIDDEN if roles == {ADMIN} else Outcome.GRANTED)
        self._look(self._path)
        key = self._holder(token)
        if key is None:
            return Verdict(Outcome.UNKNOWN)
        if key.role not in roles:
            return Verdict(Outcome.FORBIDDEN, key.name)
        wait = self._buckets[key].take()
        return Verdict(Outcome.LIMITED if wait else Outcome.GRANTED, key.name, wait)

    def _holder(self, token: str | None) -> Key | None:
        if (parts := _TOKEN.fullmatch(token or "")) is None:
            return None
        name, secret = parts.groups()
        key = self._keys.get(name)
        expected = key.digest if key else "0" * 64  # a name that is not there costs as much as a wrong secret
        return key if hmac.compare_digest(_digest(secret), expected) else None

    def _look(self, path: Path) -> None:
        """Once a second at most: has the file changed?"""
        if self._clock() < self._look_at:
            return
        self._look_at = self._clock() + LOOK_SECONDS
        try:
            if _stamp(path) != self._stamp:
                self._read(path)
                _log.info("keys read again", extra={"keys": len(self._keys)})
        except (StartError, OSError) as error:
            _log.error("keys not read again", extra={"why": str(error)})  # told in full

    def _read(self, path: Path) -> None:
        try:
            stamp, text = _stamp(path), path.read_text("ascii")
        except (OSError, UnicodeDecodeError) as error:
            raise StartError(f"{variable_of('api_keys')} cannot be read: {type(error).__name__}") from error
        keys = read_keys(text)
        share = self._workers
        self._buckets = {
            key: self._buckets.get(key) or Bucket(key.rate / share, max(1.0, key.burst / share), self._clock)
            for key in keys.values()
        }
        self._keys, self._stamp = keys, stamp


def open_access(settings: Settings) -> Access:
    """What these settings ask for; raises ``StartError`` where strangers could connect and nobody would check them."""
    if settings.api_keys is None and not settings.trusted_proxy and not is_loopback(settings.host):
        raise StartError(
            f"{variable_of('host')} is {settings.host}, so others can connect: name a file of API keys in "
            f"{variable_of('api_keys')} (`streamrec key` makes one), or set {variable_of('trusted_proxy')}=1 if a "
            "proxy in front checks every caller"
        )
    return Access(settings.api_keys, settings.workers)


def is_loopback(host: str) -> bool:
    """Whether only this machine can connect to ``host``. A name other than localhost may mean anything."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def roles_of_path(path: str) -> frozenset[str] | None:
    """Who may ask for an HTTP path; None for everybody, without a key: probes must work when nothing else does,
    and the files of the page tell nothing.
    """
    if path in {"/livez", "/readyz"} or path == "/" or path.startswith("/page/"):  # the page's files, without data
        return None
    if path.startswith("/v1/"):
        return frozenset({CLIENT})
    return frozenset({ADMIN}) if path.startswith("/admin/") else ANYBODY


def roles_of_method(method: str) -> frozenset[str] | None:
    """The same for a gRPC method, ``/package.Service/Method``: health is open, reflection needs any key."""
    if method.startswith("/grpc.health.v1.Health/"):
        return None
    return frozenset({CLIENT}) if method.startswith("/streamrec.") else ANYBODY


def bearer(headers: list[str]) -> str | None:
    """The token in the values of ``Authorization``; None if there is not exactly one."""
    scheme, _, token = headers[0].partition(" ") if len(headers) == 1 else ("", "", "")
    return token.strip() if scheme.lower() == "bearer" else None


def _digest(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()


def _stamp(path: Path) -> object:
    seen = path.stat()
    return seen.st_ino, seen.st_mtime_ns, seen.st_size
