"""What the documents name exists: files, make words, commands, settings, metrics. What is generated is up to date."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import yaml

from app.cli import parser
from app.metrics import REGISTRY
from app.settings import Settings, describe
from docs.generate import FOLDER, PAGES

ROOT = Path(__file__).resolve().parents[2]

FENCE = re.compile(r"^(```|~~~).*?^\1", re.MULTILINE | re.DOTALL)
SPAN = re.compile(r"`([^`\n]+)`")
LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")
HEADING = re.compile(r"^#+ +(.+)$", re.MULTILINE)
VARIABLE = re.compile(r"STREAMREC_[A-Z0-9_]*[A-Z0-9]")
METRIC = re.compile(r"\bstreamrec_[a-z0-9_]*[a-z0-9]")
PATH = re.compile(r"[a-z_.][\w.-]*(?:/[\w.-]+)*/[\w.-]+\.(?:py|sh|md|toml|yaml|proto|pbtxt|txt)")


def documents() -> list[Path]:
    """Every Markdown file of the repository; a folder whose name begins with a dot is no part of it."""
    folders = [folder for folder in ROOT.iterdir() if folder.is_dir() and not folder.name.startswith(".")]
    return sorted([*ROOT.glob("*.md"), *(path for folder in folders for path in folder.rglob("*.md"))])


DOCUMENTS = documents()
PRESENT = [path for path in DOCUMENTS if path.name != "CHANGELOG.md"]  # which tells of things that are gone, too


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


every_document = pytest.mark.parametrize("document", DOCUMENTS, ids=name_of)
every_present_document = pytest.mark.parametrize("document", PRESENT, ids=name_of)


def code_in(text: str) -> list[str]:
    """Fenced blocks and code spans: what a reader would type."""
    return [match[0] for match in FENCE.finditer(text)] + SPAN.findall(FENCE.sub("", text))


def words_after(command: str, text: str) -> set[str]:
    """The first plain word behind each ``command`` in the code of a document."""
    follows = re.compile(rf"(?:^|[\s;&|/`(]){command} +([a-z][a-z-]*)", re.MULTILINE)
    return {word for code in code_in(text) for word in follows.findall(code)}


def anchors_of(text: str) -> set[str]:
    """The anchors that the headings of a document get on a forge."""
    headings = [heading.replace("`", "").strip().lower() for heading in HEADING.findall(FENCE.sub("", text))]
    return {re.sub(r"[^\w\- ]", "", heading).replace(" ", "-") for heading in headings}


def make_words() -> set[str]:
    return set(re.findall(r"^([a-z-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE))


def commands() -> set[str]:
    choices = next(action.choices for action in parser()._actions if action.choices)
    return set(choices)


def metric_names() -> Iterator[str]:
    endings = {"counter": ("_total",), "histogram": ("_bucket", "_count", "_sum"), "gauge": ()}
    for family in REGISTRY.collect():
        yield family.name
        yield from (family.name + ending for ending in endings[family.type])


def test_there_are_documents() -> None:
    wanted = {"CONTRIBUTING.md", "docs/architecture.md", "docs/runbook.md", "docs/data.md"}
    assert wanted <= set(map(name_of, DOCUMENTS))


@every_document
def test_every_relative_link_leads_somewhere(document: Path) -> None:
    text = document.read_text("utf-8")
    for target in LINK.findall(FENCE.sub("", text)):
        path, _, anchor = target.partition("#")
        if re.match(r"[a-z]+:", path):
            continue
        there = document.parent / path if path else document
        assert there.exists(), f"{target} is not there"
        assert not anchor or anchor in anchors_of(there.read_text("utf-8")), f"{target}: no such heading"


@every_present_document
def test_every_file_named_in_code_exists(document: Path) -> None:
    spans = SPAN.findall(FENCE.sub("", document.read_text("utf-8")))
    missing = {span for span in spans if PATH.fullmatch(span) and not (ROOT / span).exists()}
    assert not missing


@every_present_document
def test_every_make_word_is_in_the_makefile(document: Path) -> None:
    assert words_after("make", document.read_text("utf-8")) <= make_words()


@every_present_document
def test_every_command_is_in_the_command_line(document: Path) -> None:
    assert words_after("streamrec", document.read_text("utf-8")) <= commands()


@every_present_document
def test_every_variable_is_a_setting(document: Path) -> None:
    assert set(VARIABLE.findall(document.read_text("utf-8"))) <= {row.variable for row in describe(Settings())}


@every_present_document
def test_every_metric_is_measured(document: Path) -> None:
    named = {metric for code in code_in(document.read_text("utf-8")) for metric in METRIC.findall(code)}
    assert named <= set(metric_names())


@pytest.mark.parametrize("page", PAGES)
def test_a_generated_page_is_what_the_code_says(page: str) -> None:
    assert (FOLDER / page).read_text("utf-8") == PAGES[page](), "run `python -m docs.generate`"


def mapped() -> dict[str, set[str]]:
    """The modules that the map of the architecture names, by folder; a row without a folder goes on with the last."""
    text = (FOLDER / "architecture.md").read_text("utf-8").partition("## The map")[2].partition("\n## ")[0]
    rows = re.findall(r"^\| (?:`([\w/]+)/`)? ?\|[^|]*\|(.*)\|$", text, re.MULTILINE)
    found: dict[str, set[str]] = {}
    last = ""
    for folder, modules in rows:
        last = folder or last
        found.setdefault(last, set()).update(re.findall(r"`(\w+)`", modules))
    return found


def test_every_module_is_on_the_map_and_nothing_else() -> None:
    rooms = [*ROOT.glob("*/__init__.py"), *ROOT.glob("app/*/__init__.py")]
    packages = {str(path.parent.relative_to(ROOT)) for path in rooms} - {"docs", "app/proto"}
    on_the_map = mapped()
    assert packages <= set(on_the_map)
    for folder, modules in on_the_map.items():
        assert modules == {path.stem for path in (ROOT / folder).glob("*.py")} - {"__init__"}, folder


def test_every_alert_is_in_the_runbook() -> None:
    groups = yaml.safe_load((ROOT / "deploy" / "alerts.yaml").read_text())["groups"]
    alerts = {rule["alert"] for group in groups for rule in group["rules"]}
    table = (FOLDER / "runbook.md").read_text("utf-8").partition("## From the alert")[2].partition("\n## ")[0]
    assert set(re.findall(r"`([A-Z]\w+)`", table)) == alerts


def test_every_decision_has_its_four_parts() -> None:
    decisions = sorted((FOLDER / "adr").glob("*.md"))
    assert [path.name[:4] for path in decisions] == [f"{number:04}" for number in range(1, len(decisions) + 1)]
    for path in decisions:
        headings = HEADING.findall(path.read_text("utf-8"))
        assert headings[1:] == ["Context", "Decision", "Consequences", "Alternatives"], path.name


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("type `make serve` now", {"serve"}),
        ("```\n$ make check\nmake test PYTHON=x\n```", {"check", "test"}),
        ("we make mistakes", set()),
        ("`cmake build`", set()),
    ],
)
def test_words_are_found_in_code_only(text: str, words: set[str]) -> None:
    assert words_after("make", text) == words
