"""Redis behind Sentinel: who is the primary now, and connections that always go there.

    redis+sentinel://[user:password@]host:port[,host:port ...]/NAME[/DATABASE]

The user and password are Redis's; Sentinel itself is asked without any. What a primary that died had not yet copied to
the one promoted is lost: features are written again by the next publication, events as ADR 11 says.
"""

from __future__ import annotations

import weakref
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import quote, unquote, urlsplit

import redis
import redis.asyncio as aioredis
import redis.asyncio.sentinel as aiosentinel
import redis.retry
import redis.sentinel
from redis.asyncio.retry import Retry
from redis.backoff import NoBackoff

SCHEME = "redis+sentinel"
ASK_SECONDS = 0.1  # for one Sentinel; the next is asked after that


@dataclass(frozen=True, slots=True)
class SentinelAddress:
    """Where the Sentinels are, and what of theirs is ours."""

    hosts: tuple[tuple[str, int], ...]
    name: str
    database: int = 0
    username: str | None = field(default=None, repr=False)
    password: str | None = field(default=None, repr=False)

    @classmethod
    def parse(cls, url: str) -> SentinelAddress:
        """Raises ``ValueError``, without quoting the URL, which may carry a password."""
        parts = urlsplit(url)
        credentials, _, places = parts.netloc.rpartition("@")
        username, _, password = credentials.partition(":")
        name, _, database = parts.path.strip("/").partition("/")
        try:
            hosts = tuple(_host(place) for place in places.split(","))
            number = int(database or 0)
        except ValueError:
            raise ValueError("redis+sentinel://host:port,host:port/NAME/DATABASE") from None
        if parts.scheme != SCHEME or not name or number < 0:
            raise ValueError("redis+sentinel://host:port,host:port/NAME/DATABASE")
        return cls(hosts, name, number, unquote(username) or None, unquote(password) or None)

    def url_of(self, host: str, port: int) -> str:
        """The plain URL of one Redis of this group."""
        who = f"{quote(self.username or '')}:{quote(self.password)}@" if self.password else ""
        return f"redis://{who}{host}:{port}/{self.database}"


def _host(place: str) -> tuple[str, int]:
    host, _, port = place.rpartition(":")
    if not host or not 0 < int(port) < 65536:
        raise ValueError
    return host.strip("[]"), int(port)


def is_sentinel(url: str) -> bool:
    return url.startswith(f"{SCHEME}://")


def primary_url(url: str) -> str:
    """A plain Redis URL for those who write in one go: the primary of this moment. Other URLs are themselves.

    Raises redis-py's ``ConnectionError`` if no Sentinel knows a primary.
    """
    if not is_sentinel(url):
        return url
    address = SentinelAddress.parse(url)
    asked = redis.sentinel.Sentinel(  # type: ignore[no-untyped-call]
        list(address.hosts),
        socket_timeout=1.0,
        socket_connect_timeout=1.0,
        retry=redis.retry.Retry(NoBackoff(), 0),
        protocol=2,
    )
    try:
        host, port = asked.discover_master(address.name)  # type: ignore[no-untyped-call]
        return address.url_of(host, port)
    finally:
        for sentinel in asked.sentinels:
            sentinel.close()


class PrimaryPool:
    """What a pool must have for redis-py's Sentinel connections: mixed into one that hands out connections.

    A connection asks Sentinel whenever it is opened, and one that finds itself on a demoted primary closes, so nothing
    here remembers an address for longer than a connection lives.
    """

    is_master = True
    check_connection = False

    def follow(self, address: SentinelAddress) -> None:
        """Connections opened from now on go to the primary of ``address``."""
        self._address = address
        self._sentinel = aiosentinel.Sentinel(  # type: ignore[no-untyped-call]
            list(address.hosts),
            socket_timeout=ASK_SECONDS,
            socket_connect_timeout=ASK_SECONDS,
            retry=Retry(NoBackoff(), 0),
            protocol=2,
            driver_info=None,
        )

    async def get_master_address(self) -> tuple[str, int]:
        """Raises redis-py's ``MasterNotFoundError``, which is a ``ConnectionError``."""
        found: tuple[str, int] = await self._sentinel.discover_master(self._address.name)
        return found

    async def forget_sentinels(self) -> None:
        for sentinel in self._sentinel.sentinels:
            await sentinel.aclose()


def connection_arguments(pool: PrimaryPool, address: SentinelAddress) -> dict[str, Any]:
    """What each connection of the pool is made with, beside its limits."""
    return {
        "connection_pool": weakref.proxy(pool),
        "db": address.database,
        "username": address.username,
        "password": address.password,
    }


class PrimaryClient(aioredis.Redis):
    """A client that also closes its connections to the Sentinels."""

    async def aclose(self, close_connection_pool: bool | None = None) -> None:
        pool = self.connection_pool
        await super().aclose(close_connection_pool)
        if isinstance(pool, PrimaryPool):
            await pool.forget_sentinels()
