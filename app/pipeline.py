"""One bundle, wired, and the time each stage of a request may take."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Protocol

from app.beside.exposure_watch import Shelf
from app.beside.shadow import Shadow
from app.user_reader import UserReader
from domain.arrays import NO_ROWS, Floats, Rows
from domain.catalogue import Items
from domain.clock import Clock
from domain.request import Query, Request
from domain.slate import Campaign, Spent
from domain.stages import Fallback, Ranker, Rule, Source
from fallbacks.model_mark import ModelMark
from retrieval.filters import Offer
from retrieval.gather import Attempt, Compute

if TYPE_CHECKING:
    from app.why import Trace
    from domain.answer import Answer


class Recorder(Protocol):
    """Keeps some requests whole, to be replayed. Costs a request next to nothing, and never fails it."""

    def offer(self, pipeline: Pipeline, query: Query, answer: Answer, trace: Trace) -> None: ...


@dataclass(frozen=True, slots=True)
class Budget:
    """Ceilings of the stages in seconds, each also cut by what is left, and how many candidates are ranked."""

    features: float = 0.025
    retrieval: float = 0.040
    ranking: float = 0.080
    reranking: float = 0.010
    fallback: float = 0.020  # kept free at the end for the rungs that need no I/O
    candidates: int = 500


@dataclass(frozen=True, slots=True, eq=False)
class Pipeline:
    """One bundle, wired: everything a request needs. Swapped as a whole, so a request never mixes two bundles."""

    bundle: str
    items: Items
    offer: Offer  # what of them may be shown
    clock: Clock
    reader: UserReader
    sources: tuple[Source, ...]
    quotas: tuple[int, ...]
    ranker: Ranker
    simple_ranker: Ranker
    rules: tuple[Rule, ...]
    campaigns: tuple[Campaign, ...]
    fallbacks: tuple[Fallback, ...]  # best first; the last one cannot fail
    attempt: Attempt
    compute: Compute
    budget: Budget
    mark: ModelMark  # of this bundle's model: a new bundle begins without one
    shadow: Shadow
    narrowed: Callable[[int], int]  # how many of so many candidates may be ranked now
    vectors: Floats | None  # (items, d), for the rules that ask how alike items are
    shelf: Shelf | None  # what is promised to whom
    spent: Callable[[str | None], Mapping[str, Spent]]  # what campaigns showed, in all and to the user
    recorder: Recorder
    stale_at: float  # UTC seconds, wall clock: from then on the models were trained too long ago
    arms: Mapping[str, str] = field(
        default_factory=dict
    )  # of the user whose request this pipeline is for: layer -> arm
    silent: frozenset[str] = frozenset()  # sources that an experiment leaves out

    def resolve(self, query: Query) -> Request:
        """The query in this bundle's rows; ids it does not know are dropped."""
        users = self.reader.users
        row = -1 if query.user_id is None else users.ids.row(query.user_id)
        earlier = query.page.shown if query.page else ()
        return Request(
            user_id=query.user_id,
            user_row=row,
            limit=query.limit,
            context=query.context,
            now=self.clock.now(users.history(row).last_event),
            exclude=self._known((*query.exclude_item_ids, *earlier)),
            recent=self._known(query.recent_item_ids),
            request_id=query.request_id,
        )

    def _known(self, item_ids: tuple[str, ...]) -> Rows:
        if not item_ids:  # as in most requests
            return NO_ROWS
        rows = self.items.ids.rows(item_ids)
        return rows[rows >= 0]
