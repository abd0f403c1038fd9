"""An answer as docs/reranking.md and docs/architecture.md describe them, with everything in it that may be there."""

from __future__ import annotations

from typing import Any

SHARP = "<img src=x onerror=alert(1)> & <b>Sons</b>"

ITEMS: list[dict[str, Any]] = [
    {"item_id": "a<b>", "title": SHARP, "score": 0.83, "sources": ["two_tower", "content"], "rule": "diversity"},
    {"item_id": "b", "title": "Heat", "score": 0.5, "sources": [], "rule": None},
]
EXPLAINED: list[dict[str, Any]] = [
    {
        "item_id": "a<b>",
        "title": SHARP,
        "step": "shown",
        "reason": None,
        "sources": [
            {"source": "two_tower", "rank": 4, "score": 0.81},
            {"source": "content", "rank": 0, "score": 2.5},
        ],
        "ranker_score": 0.83,
        "ranked_place": 6,
        "moves": [{"rule": "memory", "before": 6, "after": 2}, {"rule": "diversity", "before": 2, "after": 0}],
        "place": 0,
    },
    {"item_id": "b", "title": "Heat", "step": "shown", "reason": None, "place": 1},
]
FUNNEL: dict[str, Any] = {
    "sources": {"two_tower": 300, "content": 120},
    "merged": 402,
    "filtered": 390,
    "added": 3,
    "ranked": 393,
    "slate": 2,
}
ANSWER: dict[str, Any] = {
    "request_id": "r",
    "bundle": "canned",
    "items": ITEMS,
    "degradation": {"level": "PARTIAL_RETRIEVAL", "reasons": ["content.timeout", "something.new"]},
    "timing_ms": {"features": 1.0, "retrieval": 4.0, "ranking": 5.0, "reranking": 1.0, "total": 12.0},
    "cursor": "next",
    "arms": {"rules": "without_memory"},
    "debug": {"ranked": 393, "worker": 7, "funnel": FUNNEL, "items": EXPLAINED},
}
NEXT_PAGE: dict[str, Any] = ANSWER | {"items": [ITEMS[1] | {"item_id": "c", "title": "Ronin"}], "cursor": None}
DISPLACED: dict[str, Any] = {
    "request_id": "r",
    "bundle": "canned",
    "degradation": {"level": "FULL", "reasons": []},
    "funnel": FUNNEL,
    "item": EXPLAINED[0] | {"title": "Ronin", "step": "displaced", "reason": "diversity", "place": None},
}
BARE: dict[str, Any] = {"items": ITEMS, "degradation": {"level": "FULL", "reasons": []}}
