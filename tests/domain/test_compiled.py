"""Compiled functions are kept on disk where that can be, and compiled all the same where not."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

PROGRAM = """
import numpy as np
from domain.compiled import column, compiled, float64

@compiled(float64, column(float64))
def total(values):
    found = 0.0
    for value in values:
        found += value
    return found

print(total(np.arange(4.0)))
"""


def run(cache: Path, *program: str | Path) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(cache), "PYTHONPATH": str(root)}
    command = [sys.executable, *program]
    return subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, check=True)


def test_what_was_compiled_is_kept(tmp_path: Path) -> None:
    program = tmp_path / "program.py"
    program.write_text(PROGRAM)
    told = run(tmp_path / "kept", program)
    assert (told.stdout, told.stderr) == ("6.0\n", "")
    assert list((tmp_path / "kept").rglob("*.nbc"))


def test_where_nothing_can_be_kept_it_is_compiled_all_the_same(tmp_path: Path) -> None:
    told = run(tmp_path, "-c", PROGRAM)  # code without a file is kept nowhere
    assert told.stdout == "6.0\n"
    assert "compiled code is not kept" in told.stderr
