"""``benchmarks/RESULTS.md``: one block a script, between two marks that carry its name, exchanged whole by each run."""

from __future__ import annotations

from pathlib import Path

RESULTS = Path(__file__).with_name("RESULTS.md")


def write_block(name: str, markdown: str, page: Path = RESULTS) -> None:
    """Put ``markdown`` in the place of the block ``name``, or at the end of the page where there is none yet.

    Raises ``ValueError`` for a block that begins and does not end.
    """
    begin, end = f"<!-- {name}: written by its script from here -->", f"<!-- {name}: to here -->"
    block = f"{begin}\n\n{markdown.strip()}\n\n{end}"
    held = page.read_text() if page.exists() else "# Results\n"
    before, found, rest = held.partition(begin)
    if not found:
        page.write_text(f"{held.rstrip()}\n\n{block}\n")
        return
    _, closed, after = rest.partition(end)
    if not closed:
        raise ValueError(f"the block {name} of {page.name} has no end")
    page.write_text(f"{before}{block}{after}")


def bullets(lines: list[str]) -> str:
    """What was found wrong, a line each, or that nothing was."""
    return "\n".join(f"* BROKEN: {line}" for line in lines) if lines else "Every promise was kept."
