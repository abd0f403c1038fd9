"""A gate is kept only where the answers were really ranked."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from loadtests.evidence import RANKED, Witness, counted, doubts, full_of_known, is_reference
from loadtests.load_result import LoadResult, Sample
from loadtests.open_loop import promises

REFERENCE = "movielens-small-reference-graph-0123456789"
USERS = ["1", "2", "3"]


def load(full: int, strangers: int = 0) -> LoadResult:
    known = [Sample(0.0, 0.01, 200, "FULL", user_id="1")] * full
    return LoadResult(10, 1.0, known + [Sample(0.0, 0.01, 200, "FULL", user_id="stranger-0-7")] * strangers)


@contextmanager
def service(calls: list[int], ranked: dict[str, int | None]) -> Iterator[str]:
    """Tells one of ``calls`` a look at its metrics, and so many ranked by user; None is an answer below FULL."""

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.answer(f"# HELP x\n{RANKED} {calls.pop(0)}.0\n".encode())

        def do_POST(self) -> None:
            user = json.loads(self.rfile.read(int(self.headers["content-length"])))["user_id"]
            level = "FULL" if ranked[user] is not None else "SIMPLE_RANKING"
            self.answer(json.dumps({"degradation": {"level": level}, "debug": {"ranked": ranked[user]}}).encode())

        def answer(self, body: bytes) -> None:
            self.send_response(200)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            pass

    with http.server.HTTPServer(("127.0.0.1", 0), Answers) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("after", "ranked", "version", "found"),
    [
        (17, 500, REFERENCE, ""),
        (16, 500, REFERENCE, "10 answers at FULL to known users, of which Triton ranked 9"),
        (17, 499, REFERENCE, "499 candidates were ranked"),
        (17, 500, "movielens-small-0123456789", "not ranked by the reference graph"),
    ],
)
def test_each_thing_that_makes_a_gate_prove_nothing_is_told(after: int, ranked: int, version: str, found: str) -> None:
    with service([7, after], {"1": 500, "2": None, "3": ranked}) as address:
        witness = Witness(address)
        witness.begin()
        witness.end()
        told = doubts(load(10, strangers=3), witness, USERS, version)
    assert [line for line in told if found in line] == told
    assert len(told) == bool(found)


def test_no_answer_at_full_is_no_candidate_ranked() -> None:
    with service([], dict.fromkeys(USERS)) as address:
        assert Witness(address).candidates(USERS) == 0


def test_strangers_are_not_expected_to_be_ranked() -> None:
    assert full_of_known(load(4, strangers=2)) == 4


def test_a_series_is_read_whole_and_not_by_its_beginning() -> None:
    text = f'{RANKED} 4.0\nstreamrec_calls_total{{outcome="late",part="ranking"}} 9.0\n'
    assert counted(text, RANKED) == 4.0
    assert counted("", RANKED) == 0.0


def test_the_manifest_says_who_ranks() -> None:
    assert is_reference(REFERENCE)
    assert is_reference("synthetic-0123456789")
    assert not is_reference("movielens-small-0123456789")


def test_what_is_offered_is_no_promise() -> None:
    assert promises({"rate": 1, "seconds": 2, "p95_ms": 3}) == {"p95_ms": 3}
