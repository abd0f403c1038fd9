"""A slate, why it is so, and the same slate again."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Mapping
from typing import Any

from app.commands.client import call
from app.commands.terminal import FAILED, UNUSABLE
from app.settings import Settings
from app.table import table


def recommend(asked: argparse.Namespace, settings: Settings) -> int:
    context = {name: value for name in ("device", "surface") if (value := getattr(asked, name)) is not None}
    body: dict[str, object] = {
        "limit": asked.limit,
        "recent_item_ids": _ids(asked.recent),
        "exclude_item_ids": _ids(asked.exclude),
        "context": context,
        "debug": True,
    }
    body |= {} if asked.user is None else {"user_id": asked.user}
    return _answered(settings, "/v1/recommendations", body, _slate)


def why(asked: argparse.Namespace, settings: Settings) -> int:
    from app.commands.why_text import why_text

    body: dict[str, object] = {"user_id": asked.user, "item_id": asked.item, "limit": asked.limit}
    return _answered(settings, "/v1/why", body, why_text)


def replay_request(asked: argparse.Namespace, settings: Settings) -> int:
    from app.commands.why_text import replay_text
    from app.replay import replay

    record, came = replay(asked.request, settings, rank=asked.rank)
    print(replay_text(record, came))
    return FAILED if came.differences else 0


def _answered(settings: Settings, path: str, body: dict[str, object], text: Callable[[Mapping[str, Any]], str]) -> int:
    status, answer = call(settings.http_address, path, body, key=settings.key)
    if status != 200:
        print(f"streamrec: refused ({status}): {answer.get('detail', 'no reason given')}", file=sys.stderr)
        return UNUSABLE
    print(text(answer))
    return 0


def _slate(answer: Mapping[str, Any]) -> str:
    rows = [
        (
            str(rank),
            item["item_id"],
            item["title"],
            ", ".join(item["sources"]),
            f"{item['score']:.3f}",
            item["rule"] or "",
        )
        for rank, item in enumerate(answer["items"], 1)
    ]
    degradation = answer["degradation"]
    reasons = f" ({', '.join(degradation['reasons'])})" if degradation["reasons"] else ""
    timing = ", ".join(f"{stage} {ms:.1f}" for stage, ms in answer["timing_ms"].items())
    return "\n".join(
        [
            table(["#", "item", "title", "sources", "score", "rule"], rows, right=frozenset({0, 4})),
            "",
            f"level   {degradation['level']}{reasons}",
            f"ranked  {answer['debug']['ranked']} candidates, bundle {answer['bundle']}",
            f"ms      {timing}",
        ]
    )


def _ids(text: str) -> list[str]:
    return [part for part in (part.strip() for part in text.split(",")) if part]
