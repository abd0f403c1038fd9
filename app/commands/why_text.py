"""What `streamrec why` and `streamrec replay` print."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from app.table import table

if TYPE_CHECKING:
    from app.replay import Replayed

SAID = {
    "shown": "is shown",
    "displaced": "was moved out of the slate by the rule {reason}",
    "below_the_slate": "was ranked, below the slate",
    "dropped": "was ranked, and taken out by the rule {reason}",
    "below_the_cut": "was proposed, below the cut of what is ranked",
    "filtered": "may not be shown: {reason}",
    "not_retrieved": "was proposed by no source",
    "not_on_the_list": "is not on the precomputed list that was answered with",
    "unknown": "is not in this bundle",
}


def why_text(answer: Mapping[str, Any]) -> str:
    """The answer of ``/v1/why``. Places are told as in the JSON, from 0."""
    item, funnel = answer["item"], answer["funnel"]
    rows = [
        (f"source {source['source']}", f"rank {source['rank']}, score {source['score']:.4g}")
        for source in item["sources"]
    ]
    if item["ranked_place"] is not None:
        rows.append(("ranker", f"place {item['ranked_place']}, score {item['ranker_score']:.4g}"))
    rows += [(f"rule {move['rule']}", _move(move)) for move in item["moves"]]
    if item["place"] is not None:
        rows.append(("slate", f"place {item['place']}"))
    counts = {**funnel["sources"], **{name: n for name, n in funnel.items() if name != "sources"}}
    lines = [f"{item['item_id']} {item['title']}".strip(), SAID[item["step"]].format(reason=item["reason"])]
    lines += ["", table(["step", "came to"], rows)] if rows else []
    lines += ["", "funnel  " + ", ".join(f"{name} {n}" for name, n in counts.items())]
    degradation = answer["degradation"]
    lines.append(f"level   {' '.join([degradation['level'], *degradation['reasons']])}, bundle {answer['bundle']}")
    if answer["arms"]:
        lines.append("arms    " + ", ".join(f"{layer} {arm}" for layer, arm in answer["arms"].items()))
    return "\n".join(lines)


def _move(move: Mapping[str, Any]) -> str:
    return f"from {move['before']} " + ("out" if move["after"] is None else f"to {move['after']}")


def replay_text(record: Mapping[str, Any], came: Replayed) -> str:
    """The slate as it was and as it came out."""
    was = dict(enumerate(record["slate"]))
    rows = [
        (str(place), item, rule or "", "" if was.get(place) == [item, rule] else f"was {was.get(place)}")
        for place, (item, rule) in enumerate(came.slate)
    ]
    same = "the same slate" if not came.differences else "another slate"
    lines = [table(["#", "item", "rule", ""], rows, frozenset({0})), ""]
    lines += [f"{same}, ranked by {came.ranker}, bundle {record['bundle']}, level {record['level']}"]
    return "\n".join([*lines, *came.differences])
