"""gRPC's keys and TLS, over real channels with certificates made here."""

from __future__ import annotations

import contextlib
from collections.abc import AsyncIterator
from pathlib import Path

import grpc
import grpc.aio
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from app.access import READER, Access, make_key
from app.edge import Patience
from app.events_api import EVENTS
from app.grpc_access import AccessInterceptor, GrpcTls
from app.grpc_api import RECOMMENDER, GrpcDoor
from app.proto.streamrec.v1 import recommender_pb2 as pb
from app.settings import Settings
from domain.errors import StartError
from tests.app.certificates import Certificates, Pair
from tests.app.fake_serving import FakeServing

ASKED = pb.RecommendRequest(user_id="42").SerializeToString()
METHOD = f"/{RECOMMENDER}/Recommend"


@contextlib.asynccontextmanager
async def opened(access: Access | None = None, tls: GrpcTls | None = None) -> AsyncIterator[str]:
    """The address of a door."""
    door = GrpcDoor(FakeServing(), Patience(0.150, 1.0), [AccessInterceptor(access or Access(None))], tls)
    port = await door.open("127.0.0.1:0")
    yield f"127.0.0.1:{port}"
    await door.close(0.5)


async def status(channel: grpc.aio.Channel, token: str | None = None, method: str = METHOD) -> grpc.StatusCode:
    call = channel.unary_unary(method)(ASKED, metadata=_bearer(token), timeout=10)
    return await call.code()


def _bearer(token: str | None) -> tuple[tuple[str, str], ...]:
    return () if token is None else (("authorization", f"Bearer {token}"),)


async def test_calls_need_a_key_of_the_right_role_and_health_needs_none(tmp_path: Path) -> None:
    (token, key), (reading, reader) = make_key("shop"), make_key("reader", READER)
    keys = tmp_path / "keys"
    keys.write_text(f"{key.line}\n{reader.line}\n")
    async with opened(Access(keys)) as address, grpc.aio.insecure_channel(address) as channel:
        assert await status(channel, token) is grpc.StatusCode.OK
        for wrong in (None, "", token[:-1], "shop"):
            assert await status(channel, wrong) is grpc.StatusCode.UNAUTHENTICATED
        assert await status(channel, reading) is grpc.StatusCode.PERMISSION_DENIED
        assert await status(channel, None, f"/{EVENTS}/Append") is grpc.StatusCode.UNAUTHENTICATED
        assert await status(channel, None, "/nothing.Here/AtAll") is grpc.StatusCode.UNAUTHENTICATED
        assert await status(channel, token, "/nothing.Here/AtAll") is grpc.StatusCode.UNIMPLEMENTED
        health = health_pb2_grpc.HealthStub(channel)
        serving = (await health.Check(health_pb2.HealthCheckRequest(), timeout=10)).status
        assert serving == health_pb2.HealthCheckResponse.SERVING


async def test_a_streaming_call_without_a_key_ends_with_the_same_status(tmp_path: Path) -> None:
    token, key = make_key("shop")
    (tmp_path / "keys").write_text(key.line)
    asked = reflection_pb2.ServerReflectionRequest(list_services="")
    async with opened(Access(tmp_path / "keys")) as address, grpc.aio.insecure_channel(address) as channel:
        reflect = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            [reply async for reply in reflect(iter([asked]), timeout=10)]
        assert caught.value.code() is grpc.StatusCode.UNAUTHENTICATED
        assert [reply async for reply in reflect(iter([asked]), metadata=_bearer(token), timeout=10)]


async def test_metadata_without_end_is_refused_and_harms_nobody() -> None:
    async with opened() as address, grpc.aio.insecure_channel(address) as channel:
        call = channel.unary_unary(METHOD)(ASKED, metadata=(("x-request-id", "x" * 100_000),), timeout=10)
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        assert await status(channel) is grpc.StatusCode.OK


async def test_too_often_is_resource_exhausted_and_says_when_to_come_again(tmp_path: Path) -> None:
    token, key = make_key("shop", rate=0.01, burst=1)
    (tmp_path / "keys").write_text(key.line)
    async with opened(Access(tmp_path / "keys")) as address, grpc.aio.insecure_channel(address) as channel:
        assert await status(channel, token) is grpc.StatusCode.OK
        call = channel.unary_unary(METHOD)(ASKED, metadata=_bearer(token), timeout=10)
        assert await call.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
        trailing = {str(name): str(value) for name, value in await call.trailing_metadata()}
        assert 90 < int(trailing["retry-after"]) <= 100


def secure(address: str, certificates: Certificates, shown: Pair | None = None) -> grpc.aio.Channel:
    certificate, key = (path.read_bytes() for path in shown) if shown else (None, None)
    credentials = grpc.ssl_channel_credentials(certificates.ca.read_bytes(), key, certificate)
    return grpc.aio.secure_channel(address, credentials)


@pytest.fixture
def certificates(tmp_path: Path) -> Certificates:
    return Certificates(tmp_path)


async def test_over_tls_a_caller_who_trusts_the_authority_is_answered(certificates: Certificates) -> None:
    async with opened(tls=GrpcTls(*certificates.server)) as address, secure(address, certificates) as channel:
        assert await status(channel) is grpc.StatusCode.OK


async def test_a_caller_without_tls_is_not_let_in(certificates: Certificates) -> None:
    async with opened(tls=GrpcTls(*certificates.server)) as address, grpc.aio.insecure_channel(address) as channel:
        assert await status(channel) is grpc.StatusCode.UNAVAILABLE


async def test_with_an_authority_of_callers_only_its_certificates_are_let_in(certificates: Certificates) -> None:
    async with opened(tls=GrpcTls(*certificates.server, certificates.ca)) as address:
        async with secure(address, certificates, certificates.client) as channel:
            assert await status(channel) is grpc.StatusCode.OK
        for shown in (None, certificates.stranger):
            async with secure(address, certificates, shown) as channel:
                assert await status(channel) is grpc.StatusCode.UNAVAILABLE


def test_settings_ask_for_tls_or_not(certificates: Certificates) -> None:
    certificate, key = certificates.server
    assert GrpcTls.of(Settings()) is None
    assert GrpcTls.of(Settings(grpc_cert=certificate, grpc_key=key)) == GrpcTls(certificate, key)
    with pytest.raises(StartError, match="STREAMREC_GRPC_CERT and STREAMREC_GRPC_KEY"):
        Settings(grpc_cert=certificate)
    with pytest.raises(StartError, match="STREAMREC_GRPC_CLIENT_CA"):
        Settings(grpc_client_ca=certificates.ca)


async def test_certificates_that_are_not_there_are_told_at_the_start(tmp_path: Path) -> None:
    door = GrpcDoor(FakeServing(), Patience(0.150, 1.0), tls=GrpcTls(tmp_path / "a.pem", tmp_path / "b.pem"))
    with pytest.raises(StartError, match=r"b\.pem"):
        await door.open("127.0.0.1:0")
    await door.close(0)
