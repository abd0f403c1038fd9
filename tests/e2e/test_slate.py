"""Pages, why and replay on the whole service, with Triton."""

from __future__ import annotations

import json
import re

import grpc
import httpx
import pytest

from app.proto.streamrec.v1 import recommender_pb2 as pb
from tests.e2e.conftest import Service, eventually

RECOMMEND = "/streamrec.v1.Recommender/Recommend"


def ask_grpc(service: Service, request: pb.RecommendRequest) -> pb.RecommendResponse:
    with grpc.insecure_channel(service.grpc_address) as channel:
        call = channel.unary_unary(RECOMMEND, pb.RecommendRequest.SerializeToString, pb.RecommendResponse.FromString)
        answer: pb.RecommendResponse = call(request, timeout=10)
        return answer


def test_a_cursor_given_over_http_goes_on_over_grpc_and_in_any_worker(service: Service) -> None:
    first = service.ask(user_id="42", limit=10)
    shown, cursor = [item["item_id"] for item in first["items"]], first["cursor"]
    for _ in range(5):
        answer = ask_grpc(service, pb.RecommendRequest(user_id="42", limit=10, cursor=cursor, debug=True))
        shown += [item.item_id for item in answer.items]
        cursor = answer.cursor
        assert [item.item_id for item in answer.debug.items] == [item.item_id for item in answer.items]
        assert answer.debug.funnel.slate == 10
    assert len(shown) == len(set(shown)) == 60


def test_what_both_workers_showed_is_told_by_the_command_and_the_metric(service: Service) -> None:
    def slates() -> int:
        told = service.run("exposure").stdout
        return int(told.partition(" slates with")[0].replace(",", ""))

    before = slates()
    answers = [service.ask(user_id=str(user), limit=10) for user in range(1, 41)]
    assert all(len(answer["items"]) == 10 for answer in answers)
    eventually(lambda: slates() >= before + len(answers), 30)  # each worker counts every few seconds

    def delivered() -> bool:
        text = httpx.get(f"{service.address}/metrics", timeout=10).text
        shares = re.findall(r'^streamrec_exposure_ratio\{measure="delivered"[^}]*\} (\S+)', text, re.MULTILINE)
        return bool(shares) and all(0.0 <= float(share) <= 1.0 for share in shares)

    eventually(delivered, 60)  # NaN until the week has been read once


def test_a_forged_cursor_is_an_invalid_argument(service: Service) -> None:
    with pytest.raises(grpc.RpcError) as refused:
        ask_grpc(service, pb.RecommendRequest(user_id="42", cursor="AAAA"))
    assert refused.value.code() is grpc.StatusCode.INVALID_ARGUMENT


def test_why_is_told_by_the_endpoint_and_the_command(service: Service) -> None:
    shown = service.ask_at_full(user_id="42")["items"][3]["item_id"]
    told = httpx.get(f"{service.address}/v1/why/42?item_id={shown}", timeout=10).json()
    assert told["item"]["item_id"] == shown
    assert told["item"]["sources"]
    printed = service.run("why", "42", shown)
    assert printed.returncode == 0, printed.stderr
    assert "funnel" in printed.stdout
    assert "is not in this bundle" in service.run("why", "42", "no-such-item").stdout


def test_a_request_is_replayed_from_its_record_and_by_triton_itself(service: Service) -> None:
    answer = service.ask_at_full(user_id="42")
    record = service.home / "replay" / f"r-{answer['request_id']}.gz"
    eventually(record.exists, 10)
    for arguments in ((), ("--rank",)):
        again = service.run("replay", answer["request_id"], *arguments)
        assert again.returncode == 0, again.stdout + again.stderr
        assert "the same slate" in again.stdout
        assert all(item["item_id"] in again.stdout for item in answer["items"])
    assert "ranked by dcn_v2" in again.stdout
    missing = service.run("replay", "no-such-request")
    assert (missing.returncode, json.dumps(missing.stdout)) == (2, '""')
