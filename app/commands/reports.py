"""What is there: the bundle, the settings, the contract, and what the watches have seen."""

from __future__ import annotations

import argparse
import contextlib
import math
import time
from collections.abc import Iterator, Mapping
from typing import TYPE_CHECKING, Any

from app.commands.terminal import FAILED, moment
from app.settings import Settings, describe
from app.table import table
from domain.errors import BundleError

if TYPE_CHECKING:
    from monitoring.exposure import ExposureReport
    from monitoring.skew import Skew
    from release.bundle import Bundle


def show_bundle(asked: argparse.Namespace, settings: Settings) -> int:
    from release.bundle import Bundle

    print(_bundle_text(Bundle.load(asked.folder or settings.bundle)))
    return 0


def show_settings(asked: argparse.Namespace, settings: Settings) -> int:
    del asked
    rows = [(row.variable, row.value, row.default, row.text) for row in describe(settings)]
    print(table(["variable", "value", "default", "meaning"], rows))
    return 0


def show_features(asked: argparse.Namespace, settings: Settings) -> int:
    from release.bundle import read_manifest

    del asked
    untrained: tuple[str, ...] = ()
    with contextlib.suppress(BundleError):  # there may be none yet
        untrained = tuple(read_manifest(settings.bundle).lineage.parameters.get("untrained_features", ()))
    print(features_text(untrained))
    return 0


def features_text(untrained: tuple[str, ...] = ()) -> str:
    """The feature contract as a table; ``untrained`` names what the dataset does not have, so no model learnt it."""
    from features.contract import CONTRACT

    groups = {"user": CONTRACT.user, "session": CONTRACT.session, "moment": CONTRACT.moment, "item": CONTRACT.item}
    rows = [
        (
            group,
            part.name,
            str(part.width),
            part.unit,
            f"{part.low:g} to {part.high:g}",
            f"{part.default:g}",
            "no" if part.name in untrained else "yes",
            part.description,
        )
        for group, columns in groups.items()
        for part in columns.features
    ]
    rows += [
        (
            "context",
            part.name,
            "1",
            "code",
            f"{len(part.values)} values",
            "unknown",
            "no" if part.name in untrained else "yes",
            part.description,
        )
        for part in CONTRACT.context
    ]
    headings = ["of", "feature", "width", "unit", "range", "default", "trained", "meaning"]
    return f"{table(headings, rows)}\n\ncontract {CONTRACT.hash}"


def show_skew(asked: argparse.Namespace, settings: Settings) -> int:
    import asyncio

    from features.online import connect
    from monitoring.skew import Verdict
    from monitoring.window import skew_of
    from release.bundle import Bundle

    async def read() -> Skew:
        async with connect(settings.redis_address) as client:
            return await skew_of(bundle, client, time.time(), asked.hours)

    bundle = Bundle.load(settings.bundle)
    skew = asyncio.run(read())
    print(_skew_text(skew, bundle.version))
    return FAILED if skew.verdict is Verdict.ALERT else 0


def show_exposure(asked: argparse.Namespace, settings: Settings) -> int:
    import asyncio

    from app.beside.exposure_watch import Shelf
    from app.removals import removed_items, without
    from features.online import connect
    from monitoring.exposure import Counted, read_counts, report
    from release.bundle import Bundle
    from reranking.ledger import DAY

    async def read() -> Counted:
        async with connect(settings.redis_address) as client:
            return await read_counts(client, items.ids, int(time.time() // DAY), asked.days)

    items = without(Bundle.load(settings.bundle).tables.items, removed_items(settings.redis_address))
    shelf = Shelf.of(items, settings.exposure_columns, settings.exposure_share)
    told = report(asyncio.run(read()), shelf.groups, items.eligible)
    print(_exposure_text(told))
    return 0 if told.kept else FAILED


def _exposure_text(told: ExposureReport) -> str:
    lines = [
        f"{told.slates:,} slates with {told.places:,} places, {told.lost:,} slates not counted",
        f"promised {told.promised_ratio:.3f} of the places, delivered {told.delivered_ratio:.3f}",
        f"coverage {told.coverage_ratio:.3f}, Gini {told.gini:.3f}, worst equity {told.worst_equity:.2f}",
        "",
    ]
    rows = [(group.name, f"{group.items:,}", f"{group.shown:,}", f"{group.equity:.2f}") for group in told.groups]
    return "\n".join(lines) + "\n" + table(("group", "items", "shown", "equity"), rows, frozenset({1, 2, 3}))


def _bundle_text(bundle: Bundle) -> str:
    from evaluation.tracking import read_tracking

    manifest, tables, published = bundle.manifest, bundle.tables, bundle.publication
    dataset, lineage = manifest.dataset, manifest.lineage
    size = sum(int(file["bytes"]) for file in manifest.files.values())
    facts = {
        "bundle": f"{bundle.version}, every file as the manifest says",
        "published": f"as {published.number} at {moment(published.published_at)}" if published else "no",
        "dataset": f"{dataset.name}, clock {dataset.clock}, until {moment(dataset.ended_at)}",
        "made": f"{moment(lineage.created_at)} from commit {lineage.commit}, data {lineage.data_sha256[:12]}",
        "holds": f"{len(tables.items):,} items, {len(tables.users):,} users",
        "size": f"{len(manifest.files)} files, {size / 1e6:.1f} MB",
        "sources": ", ".join(f"{part.name} ({part.depth} deep, {part.quota} sure)" for part in manifest.sources),
        "contract": manifest.contract_hash,
    }
    tracked = read_tracking(bundle.path)
    facts |= {"recorded": f"{tracked.model} {tracked.version}, run {tracked.run_id}"} if tracked else {}
    facts |= {f"metric {name}": _figure(value) for name, value in _leaves(lineage.metrics)}
    return table(["what", "value"], facts.items())


def _skew_text(skew: Skew, version: str) -> str:
    rows = [
        (
            part.feature,
            "-" if math.isnan(part.psi) else f"{part.psi:.3f}",
            "" if part.column is None else str(part.column),
            f"{part.default_ratio:.3f}",
            f"{part.reference_default_ratio:.3f}",
            part.verdict.name.lower(),
        )
        for part in skew.features
    ]
    headings = ["feature", "PSI", "worst column", "default or unknown", "in training", "verdict"]
    return "\n".join(
        [
            table(headings, rows, right=frozenset({1, 2, 3, 4})),
            "",
            f"requests  {skew.requests:,}" + ("" if skew.enough else ": too few to judge"),
            f"hit rate  {skew.hit_ratio:.4f} of {skew.reads:,} reads: {skew.hit_verdict.name.lower()}",
            f"bundle    {version}",
        ]
    )


def _leaves(values: Mapping[str, Any], path: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, dict):
            yield from _leaves(value, f"{path}{name} ")
        else:
            yield path + name, value


def _figure(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
