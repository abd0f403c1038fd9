"""What can be checked of the images and the compose file where no Docker engine runs."""

import re
import shlex
import tomllib
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.cli import parser
from app.settings import Settings

ROOT = Path(__file__).resolve().parents[2]
DOCKERFILE = (ROOT / "Dockerfile").read_text().replace("\\\n", " ")
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "deploy" / "compose.yaml").read_text())
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())


def instructions(word: str) -> list[str]:
    return re.findall(rf"^{word} (.+)$", DOCKERFILE, re.MULTILINE)


def test_everything_copied_is_in_the_repository_and_not_ignored() -> None:
    ignored = set((ROOT / ".dockerignore").read_text().split())
    for copied in instructions("COPY"):
        for source in copied.split()[:-1]:
            assert (ROOT / source).exists(), source
            assert source not in ignored


def test_every_package_that_is_imported_is_copied() -> None:
    copied = {source for line in instructions("COPY") for source in line.split()[:-1]}
    assert set(PROJECT["tool"]["importlinter"]["root_packages"]) <= copied


def test_extras_that_are_installed_exist() -> None:
    for extras in re.findall(r"\.\[([\w,]+)\]", DOCKERFILE):
        assert set(extras.split(",")) <= set(PROJECT["project"]["optional-dependencies"])


def test_the_serving_image_is_the_default_and_small() -> None:
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)
    assert " AS serve" in stages[-1].splitlines()[0]
    assert ".[" not in stages[-1]
    needed = " ".join(PROJECT["project"]["dependencies"])
    assert not re.search(r"\b(torch|feast|pyarrow|scikit-learn|onnxruntime)\b", needed)


def test_no_image_runs_as_root() -> None:
    for stage in re.split(r"^FROM ", DOCKERFILE, flags=re.MULTILINE)[2:]:
        assert re.search(r"^USER streamrec$", stage, re.MULTILINE)


def test_what_others_can_reach_wants_keys() -> None:
    for service in COMPOSE["services"].values():
        if "ports" in service:
            assert service["environment"]["STREAMREC_API_KEYS"] == f"/run/secrets/{service['secrets'][0]}"
            assert service["secrets"][0] in COMPOSE["secrets"]


def streamrec_commands() -> list[str]:
    words = re.findall(r"(?:CMD|command:) \[([^\]]*)\]", DOCKERFILE + (ROOT / "deploy" / "compose.yaml").read_text())
    lines = [" ".join(re.findall(r'"([^"]*)"', word)) for word in words]
    found = [command.strip() for line in lines for command in re.findall(r"streamrec ([^&]+)", line)]
    return [*found, *(line for line in lines if line in {"serve", "--help"})]


@pytest.mark.parametrize("command", streamrec_commands())
def test_every_command_is_one_that_streamrec_has(command: str) -> None:
    if command != "--help":
        assert callable(parser().parse_args(shlex.split(command.replace("$$", "$"))).command)


def test_every_variable_is_a_setting() -> None:
    for service in COMPOSE["services"].values():
        given = {name: str(value) for name, value in (service.get("environment") or {}).items()}
        Settings.from_environment({name: value for name, value in given.items() if name.startswith("STREAMREC_")})


def test_services_and_volumes_that_are_named_exist() -> None:
    services = COMPOSE["services"]
    for service in services.values():
        assert set(service.get("depends_on") or {}) <= set(services)
        assert {volume.split(":")[0] for volume in service.get("volumes") or []} <= set(COMPOSE["volumes"])
        target = (service.get("build") or {}).get("target")
        assert target is None or f" AS {target}\n" in DOCKERFILE


def test_triton_is_the_release_that_the_tests_run() -> None:
    pinned = dict(line.split("==") for line in (ROOT / "constraints-triton.txt").read_text().split() if "==" in line)
    inline = COMPOSE["services"]["triton"]["build"]["dockerfile_inline"]
    assert f"numpy=={pinned['numpy']}" in inline
    assert pinned["nvidia-pytriton"] == "0.7.0"  # which carries tritonserver 2.51, NVIDIA's release 24.10
    assert "tritonserver:24.10-py3" in inline
