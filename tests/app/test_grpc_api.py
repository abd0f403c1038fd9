"""The gRPC door, over real channels."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NoReturn

import grpc
import grpc.aio
import pytest
from google.protobuf import descriptor_pb2
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc
from grpc_tools import protoc

from app.edge import MAX_REQUEST_BYTES, Patience
from app.grpc_api import RECOMMENDER, GrpcDoor, Recommender
from app.metrics import REGISTRY
from app.proto.streamrec.v1 import recommender_pb2 as pb
from domain.degradation import DegradationLevel
from domain.errors import StartError
from domain.request import Context, Query
from tests.app.fake_serving import TITLE, FakeServing

ROOT = Path(__file__).parents[2]
PATIENCE = Patience(default=0.150, longest=1.0)
METHOD = f"/{RECOMMENDER}/Recommend"


@pytest.fixture
def serving() -> FakeServing:
    return FakeServing()


@pytest.fixture
async def opened(serving: FakeServing) -> AsyncIterator[tuple[GrpcDoor, int]]:
    door = GrpcDoor(serving, PATIENCE)
    port = await door.open("127.0.0.1:0")
    yield door, port
    await door.close(1.0)


@pytest.fixture
async def channel(opened: tuple[GrpcDoor, int]) -> AsyncIterator[grpc.aio.Channel]:
    async with grpc.aio.insecure_channel(f"127.0.0.1:{opened[1]}") as channel:
        yield channel


async def ask(
    channel: grpc.aio.Channel, request: pb.RecommendRequest, seconds: float | None = 10, request_id: str | None = None
) -> pb.RecommendResponse:
    metadata = (("x-request-id", request_id),) if request_id else None
    call = channel.unary_unary(METHOD, pb.RecommendRequest.SerializeToString, pb.RecommendResponse.FromString)
    return await call(request, timeout=seconds, metadata=metadata)


async def refusal(channel: grpc.aio.Channel, message: bytes, seconds: float | None = 10) -> grpc.aio.AioRpcError:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await channel.unary_unary(METHOD)(message, timeout=seconds)
    return caught.value


async def test_a_request_is_answered_with_a_slate(channel: grpc.aio.Channel, serving: FakeServing) -> None:
    serving.level, serving.reasons = DegradationLevel.STALE_FEATURES, ("features.timeout",)
    request = pb.RecommendRequest(
        user_id="42",
        limit=5,
        context=pb.Context(device="tv"),
        exclude_item_ids=["318"],
        recent_item_ids=["296"],
        debug=True,
    )
    answer = await ask(channel, request, request_id="r-1")
    assert serving.asked == [Query("42", 5, Context("tv"), ("318",), ("296",), debug=True, request_id="r-1")]
    assert (answer.request_id, answer.bundle, answer.debug.ranked) == ("r-1", "tiny-1", 500)
    assert (answer.items[0].title, list(answer.items[0].sources)) == (TITLE, ["two_tower", "collaborative"])
    assert not answer.items[0].HasField("rule")
    assert answer.degradation.level == pb.DEGRADATION_LEVEL_STALE_FEATURES
    assert list(answer.degradation.reasons) == ["features.timeout"]
    assert answer.timing_ms["total"] == pytest.approx(8)


async def test_what_is_left_out_has_its_default(channel: grpc.aio.Channel, serving: FakeServing) -> None:
    answer = await ask(channel, pb.RecommendRequest(user_id="42"))
    assert (serving.asked[0].limit, serving.asked[0].context) == (20, Context())
    assert len(answer.request_id) == 32
    assert not answer.HasField("debug")


def test_every_level_has_its_number() -> None:
    named = {name.removeprefix("DEGRADATION_LEVEL_") for name in pb.DegradationLevel.keys()}  # noqa: SIM118  # no mapping
    assert named - {"UNSPECIFIED"} == {level.name for level in DegradationLevel}


@pytest.mark.parametrize(
    "request_message",
    [
        pb.RecommendRequest(),
        pb.RecommendRequest(user_id=""),
        pb.RecommendRequest(user_id="4\x002"),
        pb.RecommendRequest(user_id="42", limit=0),
        pb.RecommendRequest(user_id="42", limit=101),
        pb.RecommendRequest(user_id="42", exclude_item_ids=[""]),
        pb.RecommendRequest(user_id="42", context=pb.Context(device="x" * 65)),
    ],
)
async def test_an_invalid_request_is_the_callers_mistake(
    channel: grpc.aio.Channel, request_message: pb.RecommendRequest
) -> None:
    error = await refusal(channel, request_message.SerializeToString())
    assert error.code() is grpc.StatusCode.INVALID_ARGUMENT


@pytest.mark.parametrize("message", [b"\xff\xff\xff", b"\x0a\x02\xff\xfe", b"\x0a\x7fshort"])
async def test_a_message_that_cannot_be_parsed_is_the_callers_mistake(
    channel: grpc.aio.Channel, message: bytes
) -> None:
    assert (await refusal(channel, message)).code() is grpc.StatusCode.INVALID_ARGUMENT


async def test_an_oversized_message_is_refused(channel: grpc.aio.Channel, serving: FakeServing) -> None:
    error = await refusal(channel, b"\x0a" * (MAX_REQUEST_BYTES + 1))
    assert error.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert serving.asked == []


@pytest.mark.parametrize(("seconds", "low", "high"), [(None, 0.05, 0.15), (0.5, 0.15, 0.5), (60, 0.9, 1.0)])
async def test_the_callers_deadline_is_passed_on_within_bounds(
    channel: grpc.aio.Channel, serving: FakeServing, seconds: float | None, low: float, high: float
) -> None:
    await ask(channel, pb.RecommendRequest(user_id="42"), seconds)
    assert low < serving.remaining[0] <= high + 0.01  # gRPC's clock and ours are not the same


class LateCall:
    """A call whose deadline passed on the way; a client would not show it, because it gives up by itself."""

    def invocation_metadata(self) -> None:
        return None

    def time_remaining(self) -> float:
        return 0.0

    async def abort(self, code: grpc.StatusCode, details: str) -> NoReturn:
        raise grpc.aio.AbortError(code, details)


async def test_a_deadline_that_has_passed_asks_nobody(serving: FakeServing) -> None:
    message = pb.RecommendRequest(user_id="42").SerializeToString()
    with pytest.raises(grpc.aio.AbortError) as caught:
        await Recommender(serving, PATIENCE).recommend(message, LateCall())
    assert caught.value.args[0] is grpc.StatusCode.DEADLINE_EXCEEDED
    assert serving.asked == []


async def test_a_caller_with_no_time_left_is_told_so(channel: grpc.aio.Channel) -> None:
    error = await refusal(channel, pb.RecommendRequest(user_id="42").SerializeToString(), seconds=-1)
    assert error.code() is grpc.StatusCode.DEADLINE_EXCEEDED


async def test_a_bug_is_counted_and_never_told(channel: grpc.aio.Channel, serving: FakeServing) -> None:
    before = REGISTRY.get_sample_value("streamrec_bugs_total", {"where": "grpc"}) or 0
    serving.bug = KeyError("user 42")
    error = await refusal(channel, pb.RecommendRequest(user_id="42").SerializeToString())
    assert (error.code(), error.details()) == (grpc.StatusCode.INTERNAL, "internal error")
    assert REGISTRY.get_sample_value("streamrec_bugs_total", {"where": "grpc"}) == before + 1


async def test_a_caller_who_leaves_is_counted_as_such(channel: grpc.aio.Channel, serving: FakeServing) -> None:
    labels = {"transport": "grpc", "status": "CANCELLED"}
    before = REGISTRY.get_sample_value("streamrec_requests_total", labels) or 0
    serving.gate = asyncio.Event()
    call = channel.unary_unary(METHOD)(pb.RecommendRequest(user_id="42").SerializeToString())
    await asyncio.wait_for(serving.arrived.wait(), 10)
    call.cancel()
    async with asyncio.timeout(10):  # the server learns of it a moment later, and tells nobody
        while REGISTRY.get_sample_value("streamrec_requests_total", labels) != before + 1:  # noqa: ASYNC110
            await asyncio.sleep(0)


async def test_health_follows_the_door(opened: tuple[GrpcDoor, int], channel: grpc.aio.Channel) -> None:
    health = health_pb2_grpc.HealthStub(channel)
    for service in ("", RECOMMENDER):
        answer = await health.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
    await opened[0].drain()
    answer = await health.Check(health_pb2.HealthCheckRequest(service=RECOMMENDER))
    assert answer.status == health_pb2.HealthCheckResponse.NOT_SERVING


async def test_reflection_lists_the_services_and_describes_the_recommender(channel: grpc.aio.Channel) -> None:
    asked = [
        reflection_pb2.ServerReflectionRequest(list_services=""),
        reflection_pb2.ServerReflectionRequest(file_containing_symbol=RECOMMENDER),
    ]
    told = [
        answer async for answer in reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter(asked))
    ]
    names = {service.name for service in told[0].list_services_response.service}
    assert {RECOMMENDER, "grpc.health.v1.Health"} <= names
    assert pb.DESCRIPTOR.serialized_pb in told[1].file_descriptor_response.file_descriptor_proto


def test_the_generated_code_is_that_of_the_proto(tmp_path: Path) -> None:
    made = tmp_path / "descriptors"
    assert protoc.main(["protoc", f"-I{ROOT}", f"--descriptor_set_out={made}", str(ROOT / pb.DESCRIPTOR.name)]) == 0
    [described] = descriptor_pb2.FileDescriptorSet.FromString(made.read_bytes()).file
    described.ClearField("source_code_info")
    for message in described.message_type:  # written by protoc for other languages, left out of the Python code
        for field in [*message.field, *(field for nested in message.nested_type for field in nested.field)]:
            field.ClearField("json_name")
    assert described == descriptor_pb2.FileDescriptorProto.FromString(pb.DESCRIPTOR.serialized_pb)


async def test_two_workers_share_the_port(opened: tuple[GrpcDoor, int]) -> None:
    second = GrpcDoor(FakeServing(), PATIENCE)
    assert await second.open(f"127.0.0.1:{opened[1]}") == opened[1]
    await second.close(0)


async def test_an_address_that_cannot_be_listened_on_is_told() -> None:
    with pytest.raises(StartError, match="cannot listen"):
        await GrpcDoor(FakeServing(), PATIENCE).open("203.0.113.1:1")
