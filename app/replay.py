"""`streamrec replay`: a recorded request gone through again, over the same bundle.

The merge and the rules run as they did. The ranker's scores are the recorded ones, so that the rest can be told from
it; asked to, the same ranker scores anew: DCN-V2 on Triton, or the logistic regression if that ranked.
"""

from __future__ import annotations

import asyncio
import gzip
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import orjson

from app.beside.recorder import FORMAT, path_of
from app.settings import Settings
from domain.arrays import Floats, Rows
from domain.candidates import Candidates
from domain.catalogue import History, IdTable
from domain.deadline import Deadline
from domain.degradation import DegradationLevel
from domain.errors import BundleError
from domain.slate import Audience, Campaign, ExposureQuota, Slate, SlateContext, Spent
from domain.stages import Ranker
from domain.user import Freshness, Shown, UserFeatures
from ranking.logistic import LogisticRanker
from ranking.strangers import merged_order_stays
from ranking.triton import TritonChannel, TritonRanker
from release.bundle import Bundle, read_manifest
from reranking.configured import RULES
from retrieval.filters import allowed
from retrieval.merge import merge, with_forced

RANK_SECONDS = 5.0
SAME_SCORE = 1e-5


@dataclass(frozen=True, slots=True)
class Replayed:
    """The slate made again, as item ids and rules, who scored it, and everything that came out otherwise."""

    slate: tuple[tuple[str, str | None], ...]
    ranker: str
    differences: tuple[str, ...]


def read(folder: Path, request_id: str) -> Mapping[str, Any]:
    """The record of a request; raises ``BundleError`` if there is none that this code reads."""
    try:
        record = orjson.loads(gzip.decompress(path_of(folder, Path(request_id).name).read_bytes()))
    except FileNotFoundError:
        raise BundleError("no such request is kept: a share of them is, for a while (STREAMREC_REPLAY_RATIO)") from None
    except (OSError, EOFError, ValueError) as error:
        raise BundleError(f"the record cannot be read: {error}") from error
    if record["format"] != FORMAT:
        raise BundleError(f"the record has format {record['format']}, this code reads {FORMAT}")
    return dict(record)


def bundle_of(record: Mapping[str, Any], settings: Settings) -> Bundle:
    """The bundle that made the slate; raises ``BundleError`` if it is not here any more."""
    for path in (settings.bundle.resolve(), *sorted((settings.home / "bundles").glob("[0-9]*"))):
        try:
            version = read_manifest(path).version
        except (BundleError, OSError):
            continue
        if version == record["bundle"]:
            return Bundle.load(path, model=False)
    raise BundleError(f"bundle {record['bundle']}, which made the slate, is not kept any more")


async def ranked_anew(record: Mapping[str, Any], bundle: Bundle, settings: Settings) -> tuple[str, Floats]:
    """The ranker's name and its scores of the merged candidates, as of now; raises ``DependencyError``."""
    candidates, user = _merged(record, bundle), _user(record, bundle)
    if merged_order_stays(user):
        return "the merge", candidates.score
    channel = TritonChannel(settings.triton_address)
    ranker: Ranker = LogisticRanker(bundle.tables.logistic, bundle.tables.items)
    if record["level"] != DegradationLevel.SIMPLE_RANKING.name and bundle.publication is not None:
        ranker = TritonRanker(channel, str(bundle.publication.number), bundle.tables.items)
    try:
        return ranker.name, await ranker.score(user, candidates, Deadline.after(RANK_SECONDS))
    finally:
        await channel.close()


def replayed(record: Mapping[str, Any], bundle: Bundle, anew: tuple[str, Floats] | None = None) -> Replayed:
    """The slate, made again from the record with its own scores or those given for the merged candidates."""
    ids, candidates = bundle.tables.items.ids, _merged(record, bundle)
    told = dict(zip(record["ranked"], _floats(record["ranker_scores"]).tolist(), strict=True))
    merged = ids.texts(candidates.item_row)
    ranker, scores = anew or ("recorded scores", np.array([told.get(item, -np.inf) for item in merged], np.float32))
    scored = candidates.scored(scores)
    ranked = scored.take(
        np.isin(candidates.item_row, ids.rows(record["ranked"]))
    )  # what there was no memory for is out
    slate = Slate(ranked.top(len(ranked)), record["limit"], _context(record, bundle))
    order = ids.texts(slate.candidates.item_row)
    for rule in record["rules"]:
        if rule["name"] not in record["skipped"]:
            slate = RULES[rule["name"]](**rule).apply(slate)
    shown = slate.shown.item_row.tolist()
    made = tuple((ids.text(row), slate.moved.get(row)) for row in shown)
    was = dict(zip(merged, scores.tolist(), strict=True))
    return Replayed(made, ranker, tuple(_differences(record, merged, was, order, made)))


def _differences(
    record: Mapping[str, Any],
    merged: Sequence[str],
    scores: Mapping[str, float],
    ranked: Sequence[str],
    slate: Sequence[tuple[str, str | None]],
) -> Iterator[str]:
    told = dict(zip(record["ranked"], _floats(record["ranker_scores"]).tolist(), strict=True))
    if list(merged) != record["candidates"]:
        other = len(set(merged) ^ set(record["candidates"]))
        yield f"merge: {other} candidates are others" if other else "merge: the same candidates in another order"
    off = [item for item, score in told.items() if abs(scores.get(item, np.inf) - score) > SAME_SCORE]
    if off:
        yield f"ranking: {len(off)} of {len(told)} scores differ by more than {SAME_SCORE:g}"
    if list(ranked) != record["ranked"]:
        place = _first_difference(ranked, record["ranked"])
        yield f"ranking: another order from place {place} on"
    was = [tuple(place) for place in record["slate"]]
    if list(slate) != was:
        place = _first_difference(slate, was)
        yield f"slate: place {place} is {_at(slate, place)}, was {_at(was, place)}"


def _first_difference(one: Sequence[object], other: Sequence[object]) -> int:
    pairs = enumerate(zip(one, other, strict=False))
    return next((at for at, (a, b) in pairs if a != b), min(len(one), len(other)))


def _at(slate: Sequence[Any], place: int) -> str:
    if place >= len(slate):
        return "empty"
    item, rule = slate[place]
    return f"{item} ({rule})" if rule else str(item)


def _merged(record: Mapping[str, Any], bundle: Bundle) -> Candidates:
    items = bundle.tables.items
    history, exclude = record["user"]["history"]["item_ids"], record["exclude"]
    blocked = items.ids.rows([*history, *exclude, *record["not_offered"]])
    keep = allowed(items.eligible, blocked[blocked >= 0])
    found = [
        Candidates.proposed(_rows(items.ids, source["item_ids"]), _floats(source["scores"]))
        for source in record["sources"]
    ]
    candidates = merge(found, record["quotas"], keep, record["wanted"])
    return with_forced(candidates, _rows(items.ids, record["forced"]), record["wanted"])


def _user(record: Mapping[str, Any], bundle: Bundle) -> UserFeatures:
    told, ids = record["user"], bundle.tables.items.ids
    past = told["history"]
    rows = _rows(ids, past["item_ids"])
    return UserFeatures(
        row=-1 if record["user_id"] is None else bundle.tables.users.ids.row(record["user_id"]),
        numeric=_floats(told["numeric"]),
        codes=np.array(told["codes"], np.int32),
        history=History(rows, _floats(past["rating"]), np.array(past["timestamp"], np.float64)),
        as_of=told["as_of"],
        freshness=Freshness(told["freshness"]),
    )


def _context(record: Mapping[str, Any], bundle: Bundle) -> SlateContext:
    told, tables = record["context"], bundle.tables
    items = tables.items
    shown, ages = told["shown"]
    return SlateContext(
        told["now"],
        items.genres,
        tuple(_campaign(campaign, items.ids) for campaign in told["campaigns"]),
        {name: Spent(*spent) for name, spent in told["spent"].items()},
        moment=told["moment"],
        seed=told["seed"],
        vectors=tables.user_tower.embedding,
        removed=items.removed,
        facets=items.facets,
        audience=Audience(*told["audience"]),
        quota=None if told["quota"] is None else _quota(told["quota"], record["ranked"], items.ids),
        shown=Shown(_rows(items.ids, shown), np.array(ages, np.float64)),
    )


def _quota(told: Mapping[str, Any], ranked: Sequence[str], ids: IdTable) -> ExposureQuota:
    group = np.full(len(ids), -1, np.int32)
    group[ids.rows(ranked)] = told["group"]
    return ExposureQuota(told["share"], group, _floats(told["owed"]))


def _campaign(told: Mapping[str, Any], ids: IdTable) -> Campaign:
    given = dict(told)
    return Campaign(**given | {"item_row": _rows(ids, told["item_row"]), "slots": tuple(told["slots"])})


def _rows(ids: IdTable, item_ids: Sequence[str]) -> Rows:
    return ids.rows(item_ids)


def _floats(values: Sequence[float | None]) -> Floats:
    """JSON has no NaN: it is a null."""
    return np.array(values, np.float32)


def replay(request_id: str, settings: Settings, *, rank: bool) -> tuple[Mapping[str, Any], Replayed]:
    """The record and what came of it; raises ``BundleError`` and, when ranking anew, ``DependencyError``."""
    record = read(settings.home / "replay", request_id)
    bundle = bundle_of(record, settings)
    anew = asyncio.run(ranked_anew(record, bundle, settings)) if rank else None
    return record, replayed(record, bundle, anew)
