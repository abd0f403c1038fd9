"""RESULTS.md has one block a script, and a second run takes the place of the first."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.results import bullets, write_block


def test_a_second_run_takes_the_place_of_the_first_and_leaves_the_rest(tmp_path: Path) -> None:
    page = tmp_path / "RESULTS.md"
    page.write_text("# Results\n\nBy hand.\n")
    write_block("speed", "## Speed\n\nfirst", page)
    write_block("memory", "## Memory", page)
    write_block("speed", "## Speed\n\nsecond", page)
    text = page.read_text()
    assert "By hand." in text
    assert "first" not in text
    assert text.index("second") < text.index("## Memory")
    assert text.count("speed: written") == 1


def test_a_block_without_an_end_is_not_guessed_at(tmp_path: Path) -> None:
    page = tmp_path / "RESULTS.md"
    write_block("speed", "## Speed", page)
    page.write_text(page.read_text().replace("<!-- speed: to here -->", ""))
    with pytest.raises(ValueError, match="no end"):
        write_block("speed", "## Speed", page)


def test_what_is_broken_is_told_a_line_each() -> None:
    assert bullets(["a", "b"]).splitlines() == ["* BROKEN: a", "* BROKEN: b"]
    assert bullets([]) == "Every promise was kept."
