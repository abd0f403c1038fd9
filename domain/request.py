"""What was asked, first in the caller's words, then in this bundle's rows."""

from __future__ import annotations

from dataclasses import dataclass, field

from domain.arrays import NO_ROWS, Rows

MAX_LIMIT = 100
MAX_IDS = 1000
MAX_ID_BYTES = 256


@dataclass(frozen=True, slots=True)
class Context:
    """Where the slate will be shown. Unknown values are legal and become the contract's unknown category."""

    device: str | None = None
    surface: str | None = None
    region: str | None = None  # where the viewer is; what is not licensed there is not shown
    max_age_rating: float | None = None  # years; what is rated above is not shown


@dataclass(frozen=True, slots=True)
class Page:
    """Where a slate goes on: what was on its earlier pages, and the bundle that made the last of them."""

    shown: tuple[str, ...]
    bundle: str


@dataclass(frozen=True, slots=True)
class Query:
    """A request as it came through the door: external ids, already validated. ``user_id`` or ``recent_item_ids``."""

    user_id: str | None = None
    limit: int = 20
    context: Context = field(default_factory=Context)
    exclude_item_ids: tuple[str, ...] = ()
    recent_item_ids: tuple[str, ...] = ()
    debug: bool = False
    cursor: str | None = None
    why: str | None = None  # an item to be explained; then nothing is shown to anybody
    page: Page | None = None  # what the cursor says, once it has been checked
    request_id: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Request:
    """The query inside one bundle: external ids have become rows, unknown ones are dropped."""

    user_id: str | None
    user_row: int  # -1 when the bundle does not know the user
    limit: int
    context: Context
    now: float  # the request's moment on the data's clock, UTC seconds
    exclude: Rows = field(default_factory=lambda: NO_ROWS)
    recent: Rows = field(default_factory=lambda: NO_ROWS)  # oldest first
    request_id: str = ""
