"""The command line: what it prints, and the exit status it leaves."""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import uvicorn
from fastapi import FastAPI

from app.access import ANYBODY, Access, Outcome, Verdict, make_key
from app.cli import main
from app.commands.reports import features_text
from app.edge import Patience, Readiness
from app.http_api import create_app
from app.table import table
from domain.degradation import DegradationLevel
from release.bundle import Bundle
from tests.app.fake_serving import TITLE, FakeServing

ROOT = Path(__file__).parents[2]


@pytest.fixture
def serving() -> FakeServing:
    return FakeServing()


@pytest.fixture
def environ(serving: FakeServing, tmp_path: Path) -> Iterator[dict[str, str]]:
    """The environment of a command beside a running service, on a thread with a loop of its own."""
    with running(create_app(serving, Readiness(serving), Patience(0.15, 1.0))) as port:
        yield {"STREAMREC_HTTP_PORT": str(port), "STREAMREC_HOME": str(tmp_path)}


@contextlib.contextmanager
def running(app: FastAPI) -> Iterator[int]:
    """The port of an application on a thread with a loop of its own."""
    server = uvicorn.Server(uvicorn.Config(app, ws="none", lifespan="off", log_config=None))
    listener = socket.create_server(("127.0.0.1", 0))
    port = listener.getsockname()[1]
    thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
    thread.start()
    yield port
    server.should_exit = True
    thread.join(10)
    listener.close()


@pytest.fixture
def nobody(tmp_path: Path) -> dict[str, str]:
    """The environment of a command with no service running."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        port = listener.getsockname()[1]
    return {"STREAMREC_HTTP_PORT": str(port), "STREAMREC_HOME": str(tmp_path)}


def test_recommend_prints_a_readable_slate(
    environ: dict[str, str], serving: FakeServing, capsys: pytest.CaptureFixture[str]
) -> None:
    serving.level, serving.reasons = DegradationLevel.SIMPLE_RANKING, ("ranking.open",)
    assert main(["recommend", "42", "--limit", "5", "--recent", "296, 318", "--device", "tv"], environ) == 0
    printed = capsys.readouterr().out
    assert all(part in printed for part in [TITLE, "two_tower, collaborative", "0.938"])
    assert "SIMPLE_RANKING (ranking.open)" in printed
    assert "500 candidates" in printed
    query = serving.asked[0]
    assert (query.user_id, query.limit, query.recent_item_ids) == ("42", 5, ("296", "318"))
    assert query.context.device == "tv"


def test_recommend_without_a_user_needs_recent_items(
    environ: dict[str, str], serving: FakeServing, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recommend", "--recent", "296"], environ) == 0
    assert serving.asked[0].user_id is None
    assert main(["recommend"], environ) == 2
    assert "user_id or recent_item_ids is required" in capsys.readouterr().err


def test_commands_that_find_nobody_say_so_in_one_line(
    nobody: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["recommend", "42"], nobody) == 2
    printed = capsys.readouterr().err
    assert printed.count("\n") == 1
    assert "does not answer" in printed
    assert "streamrec serve" in printed


def test_health_exits_zero_when_ready(environ: dict[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["health"], environ) == 0
    printed = capsys.readouterr().out
    assert printed.startswith("ready: bundle tiny-1")
    assert "features" in printed


def test_health_exits_one_when_unready_or_away(
    environ: dict[str, str], nobody: dict[str, str], serving: FakeServing
) -> None:
    serving.ready = False
    assert main(["health"], environ) == 1
    assert main(["health"], nobody) == 1


def test_settings_are_printed_with_their_values(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["settings"], {"STREAMREC_HTTP_PORT": "9000"}) == 0
    line = next(line for line in capsys.readouterr().out.splitlines() if line.startswith("STREAMREC_HTTP_PORT"))
    assert line.split()[:3] == ["STREAMREC_HTTP_PORT", "9000", "8080"]


def test_features_that_no_model_learnt_are_marked() -> None:
    lines = {line.split()[1]: line.split() for line in features_text(("context_device",)).splitlines()[:-2]}
    assert "no" in lines["context_device"]
    assert "no" not in lines["context_surface"]


def test_features_are_printed_with_their_units(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["features"], {}) == 0
    printed = capsys.readouterr().out
    assert "user_since_last_event_hours" in printed
    assert "context_device" in printed


def test_bundle_show_tells_what_it_is(tiny_bundle: Bundle, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["bundle", "show", str(tiny_bundle.path)], {}) == 0
    printed = capsys.readouterr().out
    assert tiny_bundle.version in printed
    assert f"{len(tiny_bundle.tables.items)} items" in printed


@pytest.mark.parametrize(
    ("arguments", "environ", "words"),
    [
        (["bundle", "show", "nowhere"], {}, "no readable manifest"),
        (["publish", "nowhere"], {}, "no readable manifest"),
        (["settings"], {"STREAMREC_HTTP_PORT": "x"}, "STREAMREC_HTTP_PORT must be"),
        (["settings"], {"STREAMREC_PORT": "1"}, "not a setting"),
    ],
)
def test_an_error_is_one_line_and_status_two(
    arguments: list[str], environ: dict[str, str], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments, {"STREAMREC_HOME": str(tmp_path), **environ}) == 2
    printed = capsys.readouterr().err
    assert printed.startswith("streamrec: ")
    assert printed.count("\n") == 1
    assert words in printed


def test_validate_tells_what_is_wrong_and_exits_one(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(tmp_path)], {}) == 1
    assert "problem" in capsys.readouterr().out


def test_validate_accepts_the_dataset_of_the_quick_start(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["validate", str(ROOT / "data" / "movielens-small")], {}) == 0
    assert "usable" in capsys.readouterr().out


def test_an_unknown_command_is_refused() -> None:
    with pytest.raises(SystemExit) as caught:
        main(["recomend", "42"], {})
    assert caught.value.code == 2


def test_the_serving_commands_need_nothing_of_training() -> None:
    program = "import sys; from app.cli import main; main(['features']); print(sorted(sys.modules))"
    environ = {name: value for name, value in os.environ.items() if not name.startswith("STREAMREC_")}
    run = subprocess.run(
        [sys.executable, "-c", program],
        env={**environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=True,
    )
    loaded = {part.strip("'[] ") for part in run.stdout.splitlines()[-1].split(",")}
    assert "features.contract" in loaded
    assert not {"torch", "feast", "pyarrow", "sklearn", "training", "fastapi"} & loaded


def test_a_table_is_aligned_and_harmless() -> None:
    text = table(["id", "title"], [("1", "七人の侍"), ("20", "a\x1b[31mb")], right=frozenset({0}))
    assert text.splitlines() == ["id  title", "--  --------", " 1  七人の侍", "20  a?[31mb"]


def test_a_key_is_shown_once_and_its_line_opens_the_door(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["key", "shop", "--rate", "5", "--role", "reader"], {}) == 0
    printed = capsys.readouterr()
    token = printed.err.split()[0]
    assert token.partition(".")[2] not in printed.out
    (tmp_path / "keys").write_text(printed.out)
    assert Access(tmp_path / "keys").check(token, ANYBODY) == Verdict(Outcome.GRANTED, "shop")
    assert printed.out.split()[1::2] == ["reader", "5"]


@pytest.mark.parametrize("arguments", [["Shop"], ["shop", "--rate", "0"], ["shop", "--rate", "nan"], ["a" * 33]])
def test_a_key_that_no_file_could_hold_is_refused(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["key", *arguments], {"STREAMREC_HOME": str(tmp_path)}) == 2
    assert capsys.readouterr().out == ""


def test_commands_send_the_key_that_the_settings_hold(
    serving: FakeServing, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    token, key = make_key("terminal")
    (tmp_path / "keys").write_text(key.line)
    app = create_app(serving, Readiness(serving), Patience(0.15, 1.0), Access(tmp_path / "keys"))
    with running(app) as port:
        environ = {"STREAMREC_HTTP_PORT": str(port), "STREAMREC_HOME": str(tmp_path)}
        assert main(["recommend", "42"], environ) == 2
        assert "API key is needed" in capsys.readouterr().err
        assert main(["health"], environ) == 0  # readiness is open: a container's HEALTHCHECK has no key
        assert main(["recommend", "42"], environ | {"STREAMREC_KEY": token}) == 0
        assert main(["health"], environ | {"STREAMREC_KEY": token}) == 0
    assert "tiny-1" in capsys.readouterr().out


def test_serve_refuses_at_once_to_let_strangers_in(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["serve"], {"STREAMREC_HOST": "0.0.0.0", "STREAMREC_HOME": str(tmp_path / "home")}) == 2
    assert "STREAMREC_API_KEYS" in capsys.readouterr().err
    assert not (tmp_path / "home").exists()
