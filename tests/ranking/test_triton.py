"""DCN-V2 on a real Triton: the right scores by version, and every way of not getting them has its name."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from tritonclient.utils import InferenceServerException

from app.processes.parts import TritonPorts
from domain.candidates import Candidates
from domain.deadline import Deadline
from domain.errors import BadAnswer, DependencyError, Late, ModelNotFound, OutOfMemory, Unreachable
from domain.user import Freshness, UserFeatures
from features.contract import CONTRACT
from ranking.triton import TritonChannel, TritonRanker, checked, encode_inputs, mapped
from release.bundle import Bundle
from release.triton_control import TritonControl
from release.triton_repository import TritonRepository
from tests import tiny_bundle as tiny

N = 20


def somebody(bundle: Bundle, row: int = 3) -> UserFeatures:
    users = bundle.tables.users
    numeric = np.concatenate([users.features[row], np.ones(CONTRACT.session.width + CONTRACT.moment.width, np.float32)])
    return UserFeatures(
        row, numeric, np.array([1, 2, 3, 4], np.int32), users.history(row), users.as_of, Freshness.FRESH
    )


def some_candidates(n: int = N) -> Candidates:
    rows = np.arange(n, dtype=np.int32)
    ranks = np.where(np.arange(n)[:, None] % 5 == np.arange(5), np.float32(1), np.nan).astype(np.float32)
    return Candidates(rows, np.zeros(n, np.float32), ranks * np.float32(0.5), ranks)


@pytest.fixture(scope="module")
def bundle(tmp_path_factory: pytest.TempPathFactory) -> Bundle:
    return tiny.make(tmp_path_factory.mktemp("ranked") / "bundle", seed=11)


@pytest.fixture(scope="module")
def address(
    bundle: Bundle, start_own_triton: Callable[[Path], Any], tmp_path_factory: pytest.TempPathFactory
) -> Iterator[str]:
    """A Triton with the bundle's model as version 1."""
    home = tmp_path_factory.mktemp("ranking-home")
    TritonRepository(home).render(bundle, 1)
    running = start_own_triton(home)
    with TritonControl(running.address) as control:
        control.load()
    yield running.address
    running.part.stop()


@pytest.fixture
async def channel(address: str) -> AsyncIterator[TritonChannel]:
    made = TritonChannel(address, usual=lambda: 64)
    yield made
    await made.close()


def expected(bundle: Bundle, candidates: Candidates) -> NDArray[np.float32]:
    return tiny.run_model(bundle.model_path, encode_inputs(somebody(bundle), candidates, bundle.tables.items))[0]


async def test_scores_are_those_of_the_model_one_a_candidate_in_order(channel: TritonChannel, bundle: Bundle) -> None:
    candidates = some_candidates()
    ranker = TritonRanker(channel, "1", bundle.tables.items)
    score = await ranker.score(somebody(bundle), candidates, Deadline.after(10))
    assert score.dtype == np.float32
    np.testing.assert_allclose(score, expected(bundle, candidates), atol=1e-6)


async def test_requests_that_meet_in_triton_get_their_own_scores(channel: TritonChannel, bundle: Bundle) -> None:
    ranker = TritonRanker(channel, "1", bundle.tables.items)
    wanted = [some_candidates().take(np.random.default_rng(seed).permutation(N)) for seed in range(40)]
    deadline = Deadline.after(30)
    scores = await asyncio.gather(*(ranker.score(somebody(bundle), one, deadline) for one in wanted))
    for candidates, score in zip(wanted, scores, strict=True):
        np.testing.assert_allclose(score, expected(bundle, candidates), atol=1e-6)


async def test_a_request_that_fails_takes_no_other_with_it(channel: TritonChannel, bundle: Bundle) -> None:
    ranker = TritonRanker(channel, "1", bundle.tables.items)
    good, deadline = some_candidates(), Deadline.after(30)
    inputs = encode_inputs(somebody(bundle), good, bundle.tables.items)
    inputs["item_row"] = np.full((1, N), tiny.ITEMS + 7, np.int32)
    failing = [channel.infer("1", inputs, deadline) for _ in range(10)]
    working = [ranker.score(somebody(bundle), good, deadline) for _ in range(30)]
    results = await asyncio.gather(*failing, *working, return_exceptions=True)
    assert all(isinstance(result, BadAnswer) for result in results[:10])
    for score in results[10:]:
        np.testing.assert_allclose(np.asarray(score), expected(bundle, good), atol=1e-6)


async def test_no_candidates_need_no_server(bundle: Bundle) -> None:
    ranker = TritonRanker(TritonChannel("127.0.0.1:1"), "1", bundle.tables.items)
    assert len(await ranker.score(somebody(bundle), Candidates.none(5), Deadline.after(1))) == 0


async def test_an_expired_deadline_is_late_and_not_endless(channel: TritonChannel, bundle: Bundle) -> None:
    ranker = TritonRanker(channel, "1", bundle.tables.items)
    with pytest.raises(Late):
        await ranker.score(somebody(bundle), some_candidates(), Deadline.after(-1))


async def test_a_deadline_too_near_is_late(channel: TritonChannel, bundle: Bundle) -> None:
    ranker = TritonRanker(channel, "1", bundle.tables.items)
    with pytest.raises(Late):
        await ranker.score(somebody(bundle), some_candidates(), Deadline(100.00001, clock=lambda: 100.0))


async def test_a_version_that_triton_does_not_have_is_nobodys_fault(channel: TritonChannel, bundle: Bundle) -> None:
    ranker = TritonRanker(channel, "99", bundle.tables.items)
    with pytest.raises(ModelNotFound) as caught:
        await ranker.score(somebody(bundle), some_candidates(), Deadline.after(10))
    assert not caught.value.is_fault


async def test_an_input_of_another_contract_is_a_bad_answer(channel: TritonChannel, bundle: Bundle) -> None:
    inputs = encode_inputs(somebody(bundle), some_candidates(), bundle.tables.items)
    inputs["user"] = np.zeros((1, 3), np.float32)
    with pytest.raises(BadAnswer, match="user"):
        await channel.infer("1", inputs, Deadline.after(10))


async def test_a_port_where_nobody_listens_is_unreachable_at_once(bundle: Bundle, free_port: Callable[[], int]) -> None:
    channel = TritonChannel(f"127.0.0.1:{free_port()}")
    with pytest.raises(Unreachable):
        await TritonRanker(channel, "1", bundle.tables.items).score(
            somebody(bundle), some_candidates(), Deadline.after(10)
        )
    await channel.close()


async def test_a_caller_who_leaves_is_not_turned_into_an_error(channel: TritonChannel, bundle: Bundle) -> None:
    ranker = TritonRanker(channel, "1", bundle.tables.items)
    asking = asyncio.ensure_future(ranker.score(somebody(bundle), some_candidates(), Deadline.after(10)))
    await asyncio.sleep(0)
    asking.cancel()
    with pytest.raises(asyncio.CancelledError):
        await asking


async def test_a_frozen_triton_is_late_and_a_killed_one_is_back_within_its_backoff(
    bundle: Bundle, start_own_triton: Callable[..., Any], tmp_path: Path
) -> None:
    TritonRepository(tmp_path).render(bundle, 4)
    running = start_own_triton(tmp_path)
    with TritonControl(running.address) as control:
        control.load()
    channel = TritonChannel(running.address)
    ranker = TritonRanker(channel, "4", bundle.tables.items)

    async def score(seconds: float) -> Any:
        return await ranker.score(somebody(bundle), some_candidates(), Deadline.after(seconds))

    assert len(await score(10)) == N
    os.killpg(running.part.process.pid, signal.SIGSTOP)
    with pytest.raises(Late):
        await score(0.1)
    running.part.kill()
    with pytest.raises(Unreachable):
        await score(5)
    again = await asyncio.to_thread(start_own_triton, tmp_path, ports_of(running))
    with TritonControl(again.address) as control:
        await asyncio.to_thread(control.load)
    async with asyncio.timeout(5):  # the longest backoff is a second
        while True:
            with contextlib.suppress(DependencyError):
                assert len(await score(1)) == N
                break
            await asyncio.sleep(0.02)
    again.part.stop()
    await channel.close()


def ports_of(running: Any) -> TritonPorts:
    arguments = running.part.process.args
    told = dict(re.findall(r"--(grpc|http|metrics)-port=(\d+)", " ".join(map(str, arguments))))
    return TritonPorts(**{name: int(port) for name, port in told.items()})


@pytest.mark.parametrize(
    ("answer", "told"),
    [
        (None, "nothing"),
        (np.zeros((1, 4), np.float32), r"\(1, 4\)"),
        (np.zeros((1, 5), np.float64), "float64"),
        (np.full((1, 5), np.nan, np.float32), "finite"),
        (np.full((1, 5), np.inf, np.float32), "finite"),
    ],
)
def test_what_cannot_be_used_as_scores_is_refused(answer: NDArray[np.generic] | None, told: str) -> None:
    with pytest.raises(BadAnswer, match=told):
        checked(answer, 5)


def test_a_few_scores_that_are_not_finite_are_left_to_the_candidates() -> None:
    score = checked(np.array([[1.0, np.nan, 0.5]], np.float32), 3)
    assert np.isnan(score[1])
    assert score[0] == 1.0


@pytest.mark.parametrize(
    ("status", "message", "kind"),
    [
        ("DEADLINE_EXCEEDED", "Deadline Exceeded", Late),
        ("UNAVAILABLE", "Request timeout expired", Late),
        ("UNAVAILABLE", "failed to connect to all addresses", Unreachable),
        ("UNAVAILABLE", "Request for unknown model: 'dcn_v2' version 2 is not at ready state", ModelNotFound),
        ("NOT_FOUND", "Request for unknown model: 'dcn_v2' version 2 is not found", ModelNotFound),
        ("CANCELLED", "Locally cancelled", Unreachable),
        ("INVALID_ARGUMENT", "unexpected shape", BadAnswer),
        ("INTERNAL", "dcn_v2: CUDA out of memory. Tried to allocate 2 MiB", OutOfMemory),
        ("INTERNAL", "onnx runtime error 6: BFCArena: Failed to allocate memory for requested buffer", OutOfMemory),
        ("INTERNAL", "dcn_v2: std::bad_alloc", OutOfMemory),
        ("RESOURCE_EXHAUSTED", "no more", OutOfMemory),
        ("INTERNAL", "dcn_v2: something else", BadAnswer),
    ],
)
def test_tritons_errors_have_our_names(status: str, message: str, kind: type[DependencyError]) -> None:
    assert type(mapped(InferenceServerException(message, f"StatusCode.{status}"))) is kind
