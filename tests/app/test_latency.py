"""The budget table, from answers whose times are known."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from app.commands.latency import Asked, NothingMeasured, allotments, ask, quantile, report
from app.settings import Settings

TIMING = {"features": 1.0, "retrieval": 4.0, "ranking": 8.0, "reranking": 1.0, "total": 14.0}


class Answers(BaseHTTPRequestHandler):
    status = 200

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        body = json.dumps({"degradation": {"level": "FULL"}, "timing_ms": TIMING}).encode()
        self.send_response(self.status)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


class Refuses(Answers):
    status = 503


def served(handler: type[Answers]) -> Iterator[str]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def address() -> Iterator[str]:
    yield from served(Answers)


@pytest.fixture
def refusing() -> Iterator[str]:
    yield from served(Refuses)


def test_the_times_are_those_that_the_answers_carry(address: str) -> None:
    asked = ask(address, ["1", "2"], 3)
    assert asked.stages["ranking"] == [8.0] * 3
    assert (asked.full, len(asked.outside)) == (3, 3)


def test_a_service_that_answers_nothing_is_not_measured(refusing: str) -> None:
    with pytest.raises(NothingMeasured):
        ask(refusing, ["1"], 2)


def test_the_table_shows_each_stage_beside_its_allotment_and_what_is_left() -> None:
    stages = {stage: [value] * 20 for stage, value in TIMING.items()}
    text = report(Asked(stages, [20.0] * 20, 19), allotments(Settings()))
    ranking = next(line for line in text.splitlines() if line.startswith("ranking"))
    assert ranking.split() == ["ranking", "80", "8.00", "8.00", "8.00", "10%"]
    assert "serial sum     14.0 ms" in text
    assert "critical path  13.0 ms" in text
    assert "headroom       180.0 ms" in text
    assert "19 at FULL" in text


def test_a_stage_that_never_ran_says_so() -> None:
    text = report(Asked({"total": [1.0]}, [2.0], 0), allotments(Settings()))
    assert next(line for line in text.splitlines() if line.startswith("ranking")).split()[2] == "-"


def test_a_percentile_is_one_of_the_values() -> None:
    assert quantile([3.0, 1.0, 2.0], 50) == 2.0
    assert quantile([1.0], 99) == 1.0
    assert quantile([], 95) == 0.0
