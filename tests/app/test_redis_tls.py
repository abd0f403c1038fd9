"""Redis over TLS as the settings name it: a real Redis behind a relay that speaks TLS, for ours is built without."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
import redis

from app.settings import Settings
from domain.errors import StartError
from features.feast_repo.repository import connection_string
from features.online import ClientLimits, connect
from tests.app.certificates import Certificates

PATIENT = ClientLimits(connections=2, wait_seconds=5.0, connect_seconds=5.0, answer_seconds=5.0)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


@pytest.fixture
async def tls_url(redis_url: str, certificates: Certificates) -> AsyncIterator[str]:
    """A rediss:// address in front of the tests' Redis, which wants a certificate of its callers."""
    behind = urlsplit(redis_url)

    async def relay(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        onward, back = await asyncio.open_connection(behind.hostname, behind.port)
        await asyncio.gather(_pass(reader, back), _pass(onward, writer))

    server = await asyncio.start_server(relay, "127.0.0.1", 0, ssl=certificates.mutual())
    yield f"rediss://127.0.0.1:{server.sockets[0].getsockname()[1]}/0"
    server.close()
    await server.wait_closed()


async def _pass(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    writer.close()


def settings_for(url: str, certificates: Certificates) -> Settings:
    certificate, key = certificates.client
    return Settings(redis_url=url, redis_ca=certificates.ca, redis_cert=certificate, redis_key=key)


async def test_both_clients_reach_redis_with_the_files_that_the_settings_name(
    tls_url: str, certificates: Certificates
) -> None:
    address = settings_for(tls_url, certificates).redis_address
    async with connect(address, PATIENT) as client:  # what answers requests and reads events
        assert await client.set("door:tls", "1", ex=60)

    def publishing() -> object:
        with redis.Redis.from_url(address) as client:  # what publishing writes and looks with
            return client.get("door:tls")

    assert await asyncio.to_thread(publishing) == b"1"


async def test_without_a_certificate_or_the_right_authority_there_is_no_redis(
    tls_url: str, certificates: Certificates
) -> None:
    certificate, key = certificates.client
    for settings in (
        Settings(redis_url=tls_url, redis_ca=certificates.ca),
        Settings(redis_url=tls_url, redis_cert=certificate, redis_key=key),
        Settings(redis_url=tls_url, redis_ca=certificates.strangers_ca, redis_cert=certificate, redis_key=key),
    ):
        async with connect(settings.redis_address, PATIENT) as client:
            with pytest.raises(redis.exceptions.ConnectionError):
                await client.ping()


def test_children_are_handed_an_address_that_means_the_same(certificates: Certificates) -> None:
    address = settings_for("rediss://cache:6379/2?health_check_interval=3", certificates).redis_address
    asked = parse_qs(urlsplit(address).query)
    assert asked["health_check_interval"] == ["3"]
    assert asked["ssl_ca_certs"] == [str(certificates.ca)]
    assert settings_for(address, certificates).redis_address == address


def test_feast_is_told_of_the_files_too(certificates: Certificates) -> None:
    options = connection_string(settings_for("rediss://cache:6379/2", certificates).redis_address)
    assert options.startswith("cache:6379,")
    assert f'ssl_ca_certs="{certificates.ca}"' in options
    assert "ssl=true" in options


def test_files_without_tls_refuse_to_start(certificates: Certificates) -> None:
    with pytest.raises(StartError, match="STREAMREC_REDIS_CA needs a rediss"):
        Settings(redis_url="redis://cache:6379", redis_ca=certificates.ca)
    with pytest.raises(StartError, match="STREAMREC_REDIS_CERT and STREAMREC_REDIS_KEY"):
        Settings(redis_url="rediss://cache:6379", redis_key=certificates.client[1])
