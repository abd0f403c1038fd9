"""Settings: one table, read once, with errors that name the variable."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from app.settings import PREFIX, Settings, client_host, describe, variable_of
from domain.errors import StartError

APP = Path(__file__).parents[2] / "app"
READS = ("os.environ[", "os.environ.get(", "os.getenv(", "environ[", "environ.get(")


def test_nothing_set_means_the_documented_defaults() -> None:
    settings = Settings.from_environment({})
    assert settings == Settings()
    assert (settings.http_port, settings.grpc_port, settings.deadline_seconds) == (8080, 8081, 0.150)
    assert settings.home == Path.cwd() / ".streamrec"
    assert settings.bundle == settings.home / "current"
    assert settings.triton_venv == settings.home / "venv-triton"


def test_variables_are_read_into_their_fields() -> None:
    settings = Settings.from_environment(
        {
            "STREAMREC_HOME": "/srv/rec",
            "STREAMREC_HTTP_PORT": "9000",
            "STREAMREC_DEADLINE_MS": "120.5",
            "STREAMREC_REQUIRE_TRITON": "1",
            "STREAMREC_REDIS_URL": "redis://cache:6379/1",
            "STREAMREC_TRITON_URL": "triton:8001",
            "UNRELATED": "x",
        }
    )
    assert settings.http_port == 9000
    assert settings.deadline_seconds == pytest.approx(0.1205)
    assert settings.require_triton
    assert settings.bundle == Path("/srv/rec/current")
    assert (settings.redis_address, settings.triton_address) == ("redis://cache:6379/1", "triton:8001")


def test_an_empty_variable_counts_as_unset() -> None:
    assert Settings.from_environment({"STREAMREC_HTTP_PORT": "", "STREAMREC_REDIS_URL": ""}) == Settings()


def test_unset_addresses_are_those_of_the_parts_that_serve_starts() -> None:
    settings = Settings(redis_port=7001, triton_grpc_port=7002)
    assert (settings.redis_address, settings.triton_address) == ("redis://127.0.0.1:7001/0", "127.0.0.1:7002")


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("STREAMREC_HTTP_PORT", "0"),
        ("STREAMREC_HTTP_PORT", "65536"),
        ("STREAMREC_HTTP_PORT", "80a"),
        ("STREAMREC_HTTP_PORT", "²"),
        ("STREAMREC_WORKERS", "-1"),
        ("STREAMREC_DEADLINE_MS", "nan"),
        ("STREAMREC_DEADLINE_MS", "inf"),
        ("STREAMREC_DEADLINE_MS", "soon"),
        ("STREAMREC_REQUIRE_TRITON", "yes"),
        ("STREAMREC_REDIS_URL", "cache:6379"),
        ("STREAMREC_TRITON_URL", "http://triton:8001"),
        ("STREAMREC_TRITON_URL", "triton"),
        ("STREAMREC_LOG_LEVEL", "loud"),
        ("STREAMREC_HOME", "  "),
    ],
)
def test_a_value_that_cannot_be_used_is_told_by_its_variable(variable: str, value: str) -> None:
    with pytest.raises(StartError, match=f"^{variable} must be "):
        Settings.from_environment({variable: value})


def test_a_password_is_not_repeated_in_an_error() -> None:
    with pytest.raises(StartError) as caught:
        Settings.from_environment({"STREAMREC_REDIS_URL": "http://:hunter2@cache"})
    assert "hunter2" not in str(caught.value)


def test_a_misspelt_variable_is_refused_with_a_suggestion() -> None:
    with pytest.raises(StartError, match="STREAMREC_HTPP_PORT is not a setting; did you mean STREAMREC_HTTP_PORT"):
        Settings.from_environment({"STREAMREC_HTPP_PORT": "9000"})


@pytest.mark.parametrize(
    ("environ", "words"),
    [
        ({"STREAMREC_GRPC_PORT": "8080"}, "STREAMREC_GRPC_PORT and STREAMREC_HTTP_PORT are both 8080"),
        ({"STREAMREC_DEADLINE_MS": "2000"}, "STREAMREC_DEADLINE_MS exceeds STREAMREC_MAX_DEADLINE_MS"),
        ({"STREAMREC_DEADLINE_MS": "15"}, "STREAMREC_RESERVE_MS leaves nothing of STREAMREC_DEADLINE_MS"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(environ: dict[str, str], words: str) -> None:
    with pytest.raises(StartError, match=words):
        Settings.from_environment(environ)


def test_a_port_of_a_part_that_is_not_started_is_free_for_others() -> None:
    settings = Settings.from_environment({"STREAMREC_REDIS_URL": "redis://cache", "STREAMREC_HTTP_PORT": "8082"})
    assert settings.http_port == settings.redis_port


def test_every_setting_is_described_as_it_would_be_written() -> None:
    settings = Settings(http_port=9000, redis_url="redis://me:hunter2@cache:6379/0")
    rows = {row.variable: row for row in describe(settings)}
    assert not any("e+" in row.default for row in rows.values())
    assert all(row.text for row in rows.values())
    assert (rows["STREAMREC_HTTP_PORT"].value, rows["STREAMREC_HTTP_PORT"].default) == ("9000", "8080")
    assert rows["STREAMREC_DEADLINE_MS"].value == "150"
    assert rows["STREAMREC_REDIS_URL"].value == "redis://***@cache:6379/0"


def test_what_is_described_can_be_read_back() -> None:
    settings = Settings(http_port=9000, require_triton=True, deadline_seconds=0.09)
    assert Settings.from_environment({row.variable: row.value for row in describe(settings)}) == settings


def test_seconds_are_written_in_milliseconds_outside() -> None:
    assert variable_of("deadline_seconds") == "STREAMREC_DEADLINE_MS"
    assert all(row.variable.endswith("_MS") or "SECONDS" not in row.variable for row in describe())


@pytest.mark.parametrize(("host", "reached"), [("0.0.0.0", "127.0.0.1"), ("::", "[::1]"), ("rec.local", "rec.local")])
def test_a_listening_address_is_made_reachable(host: str, reached: str) -> None:
    assert client_host(host) == reached


def test_nobody_else_asks_the_environment_for_a_setting() -> None:
    """``app.main`` and ``app.cli`` hand it over whole; the supervisor passes it on to its children."""
    for path in APP.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text())):
            asked = isinstance(node, ast.Call | ast.Subscript) and ast.unparse(node).startswith(READS)
            assert not asked or PREFIX not in ast.unparse(node), path.name


def test_the_key_that_commands_send_is_never_shown() -> None:
    shown = {row.variable: row.value for row in describe(Settings(key="shop.secret"))}
    assert shown["STREAMREC_KEY"] == "***"
    with pytest.raises(StartError, match="STREAMREC_KEY") as caught:
        Settings.from_environment({"STREAMREC_KEY": "shop. secret"})
    assert "secret" not in str(caught.value)
