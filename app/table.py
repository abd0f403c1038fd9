"""Plain tables for a terminal."""

from __future__ import annotations

import unicodedata
from collections.abc import Iterable, Sequence

Row = Sequence[str]


def table(headings: Row, rows: Iterable[Row], right: frozenset[int] = frozenset()) -> str:
    """Aligned columns under headings and a rule; the columns in ``right`` are aligned to the right."""
    body = [[_visible(cell) for cell in row] for row in rows]
    widths = [max(_width(cell) for cell in column) for column in zip(headings, *body, strict=True)]
    lines = [headings, ["-" * width for width in widths], *body]
    return "\n".join(_line(line, widths, right) for line in lines)


def _line(cells: Row, widths: Sequence[int], right: frozenset[int]) -> str:
    padded = []
    for place, (cell, width) in enumerate(zip(cells, widths, strict=True)):
        gap = " " * (width - _width(cell))
        padded.append(gap + cell if place in right else cell + gap)
    return "  ".join(padded).rstrip()


def _visible(cell: str) -> str:
    """The text without what would move the cursor or colour the terminal."""
    return "".join(character if character.isprintable() else "?" for character in cell)


def _width(text: str) -> int:
    """Columns on a terminal: wide characters take two, combining ones none."""
    return sum(
        0 if unicodedata.combining(character) else 1 + (unicodedata.east_asian_width(character) in "WF")
        for character in text
    )
