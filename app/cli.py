"""``streamrec``: everything a person does with the service from a terminal.

What belongs to training and publishing is imported inside its own command, so that the serving image does without it.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import math
import os
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from app import access
from app.access import CLIENT, DEFAULT_RATE, ROLES
from app.client import NotAnswering, call
from app.settings import Settings, describe
from app.table import table
from domain.errors import BundleError, DatasetError, PublishError, StreamRecError

if TYPE_CHECKING:
    from domain.catalogue import IdTable
    from monitoring.exposure import ExposureReport
    from monitoring.skew import Skew
    from release.bundle import Bundle

Command = Callable[[argparse.Namespace, Settings], int]

FAILED = 1
UNUSABLE = 2


def main(arguments: Sequence[str] | None = None, environ: Mapping[str, str] | None = None) -> int:
    """The exit status: 0 done, 1 answered no, 2 could not be done; an error is one line, never a traceback."""
    asked = parser().parse_args(arguments)
    command: Command = asked.command
    try:
        status = command(asked, Settings.from_environment(os.environ if environ is None else environ))
        sys.stdout.flush()
        return status
    except DatasetError as error:
        print(f"streamrec: the dataset cannot be used; {len(error.problems)} problem(s):", file=sys.stderr)
        print(*(f"  {problem}" for problem in error.problems), sep="\n", file=sys.stderr)
    except StreamRecError as error:
        print(f"streamrec: {' '.join(str(error).split())}", file=sys.stderr)
    except ModuleNotFoundError as error:
        print(f"streamrec: this needs {error.name}, which is not installed here", file=sys.stderr)
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:  # `| head`: nobody reads on, and the interpreter must not complain of it at its end
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    return UNUSABLE


def parser() -> argparse.ArgumentParser:
    """All commands and their options."""
    whole = argparse.ArgumentParser(prog="streamrec", description="Recommendations that always answer")
    commands = whole.add_subparsers(required=True, metavar="COMMAND")

    def add(name: str, command: Command, text: str) -> argparse.ArgumentParser:
        added = commands.add_parser(name, help=text, description=text)
        added.set_defaults(command=command)
        return added

    add("validate", validate, "Say what is wrong with a dataset folder").add_argument("folder", type=Path)
    training = add("train", train, "Train a bundle from a dataset folder")
    training.add_argument("--data", type=Path, help="dataset folder (default: STREAMREC_DATA)")
    training.add_argument("--out", type=Path, help="new folder for the bundle (default: under HOME/training)")
    training.add_argument("--seed", type=int, default=0)
    training.add_argument("--engine", choices=["embedded", "spark"], default="embedded", help="of the batch features")
    _add_publish(add("publish", publish, "Give a bundle to Triton, Redis and every worker"))
    taken = "Take items out of every answer of every worker, within seconds, until they are restored"
    add("remove", remove, taken).add_argument("items", nargs="+", metavar="ITEM", help="item ids")
    back = "Offer removed items again"
    add("restore", restore, back).add_argument("items", nargs="+", metavar="ITEM", help="item ids")
    add("removed", show_removed, "List the items that `remove` took out, and since when")
    _add_synth(add("synth", synth, "Write a made-up bundle of any size, or one with DCN-V2 of the reference size"))
    _add_evaluate(add("evaluate", evaluate, "Measure models and baselines on what users did last; write a report"))
    add("serve", serve, "Start Redis, Triton and the workers, and keep them running")
    _add_recommend(add("recommend", recommend, "Ask the running service for a slate"))
    bundle = add("bundle", show_bundle, "Show what a bundle is and where it came from")
    bundle.add_argument("verb", choices=["show"])
    bundle.add_argument("folder", type=Path, nargs="?", help="default: the one that is served")
    add("health", health, "Exit 0 if the running service is ready; for sidecars and HEALTHCHECK")
    told = "Make an API key: the line for STREAMREC_API_KEYS on stdout, the key itself on stderr"
    _add_key(add("key", make_key, told))
    timed = add("latency", show_latency, "Ask the running service N times: what each stage took beside its allotment")
    timed.add_argument("--requests", type=int, default=500, metavar="N")
    add("settings", show_settings, "Every setting, its value and what it means")
    add("features", show_features, "The feature contract")
    asking_why = add("why", why, "Say why an item is in a user's slate, or at which step it fell out")
    asking_why.add_argument("user")
    asking_why.add_argument("item")
    asking_why.add_argument("--limit", type=int, default=20)
    again = add("replay", replay_request, "Make a recorded request's slate again; exit 1 where it comes out otherwise")
    again.add_argument("request", metavar="REQUEST_ID")
    again.add_argument("--rank", action="store_true", help="by the ranker itself, not by the scores it gave then")
    watched = add("skew", show_skew, "Compare what the rankers were given lately with training; exit 1 on an alert")
    watched.add_argument(
        "--hours", type=int, default=2, choices=range(1, 49), metavar="N", help="clock hours, this one included"
    )
    shown = add("exposure", show_exposure, "What was shown lately, by group; exit 1 on a promise not kept")
    shown.add_argument("--days", type=int, default=7, choices=range(1, 8), metavar="N", help="UTC days, today included")
    return whole


def _add_synth(making: argparse.ArgumentParser) -> None:
    making.add_argument("--items", type=int, default=1_000_000)
    making.add_argument("--users", type=int, default=1_000_000)
    making.add_argument("--like", type=Path, metavar="BUNDLE", help="this bundle with the reference graph instead")
    making.add_argument("--out", type=Path, required=True, help="new folder for the bundle")
    making.add_argument("--seed", type=int, default=0)


def _add_key(making: argparse.ArgumentParser) -> None:
    making.add_argument("name", help="whose it is: a-z, 0-9 and -, at most 32")
    making.add_argument("--role", choices=ROLES, default=CLIENT, help="what it is for (default: client)")
    making.add_argument("--rate", type=float, default=DEFAULT_RATE, help="requests a second on this machine")
    making.add_argument("--burst", type=float, help="requests at once after a rest (default: one second's)")


def _add_publish(publishing: argparse.ArgumentParser) -> None:
    publishing.add_argument("folder", type=Path, nargs="?", help="the bundle; with --refresh-items the one served now")
    publishing.add_argument(
        "--refresh-items", action="store_true", help="renew the bundle's items from a dataset folder, without training"
    )
    publishing.add_argument("--data", type=Path, help="that dataset folder (default: STREAMREC_DATA)")
    publishing.add_argument("--accept-because", metavar="REASON", help="publish although its gates refuse; is recorded")


def _add_evaluate(evaluating: argparse.ArgumentParser) -> None:
    evaluating.add_argument("--data", type=Path, help="dataset folder (default: STREAMREC_DATA)")
    evaluating.add_argument("--bundle", type=Path, help="say what holds of this bundle, and write beside it")
    evaluating.add_argument("--seeds", type=_seeds, default=(), metavar="0,1,2")
    evaluating.add_argument("--part", choices=["test", "validation"], default="test", help="validation: a rehearsal")
    evaluating.add_argument("--out", type=Path, help="folder of the report")
    evaluating.add_argument("--json", action="store_true", help="print the document instead of tables")


def _seeds(text: str) -> tuple[int, ...]:
    return tuple(int(part) for part in text.split(","))


def _add_recommend(asking: argparse.ArgumentParser) -> None:
    asking.add_argument("user", nargs="?", help="user id; may be left out with --recent")
    asking.add_argument("--limit", type=int, default=20)
    asking.add_argument("--recent", default="", metavar="IDS", help="what the user did last, oldest first: 296,318")
    asking.add_argument("--exclude", default="", metavar="IDS", help="items that must not come back")
    asking.add_argument("--device")
    asking.add_argument("--surface")


def validate(asked: argparse.Namespace, settings: Settings) -> int:
    from training import dataset

    del settings
    report = dataset.validate(asked.folder)
    print(report)
    return 0 if report.usable else FAILED


def train(asked: argparse.Namespace, settings: Settings) -> int:
    from training.train import train as train_bundle

    started = time.monotonic()
    out = asked.out or settings.home / "training" / time.strftime("bundle-%Y%m%d-%H%M%S")
    out.parent.mkdir(parents=True, exist_ok=True)
    from features.batch import open_engine

    with open_engine(asked.engine) as engine:
        bundle = train_bundle(asked.data or settings.data, out, seed=asked.seed, echo=_echo, engine=engine)
    from app.evaluating import gate_and_track, told

    verdicts = gate_and_track(bundle, settings, _echo)
    taken = time.monotonic() - started
    print(f"trained {bundle.version} into {bundle.path} in {taken:.0f} s\n{told(verdicts, bundle.path)}")
    return 0


def evaluate(asked: argparse.Namespace, settings: Settings) -> int:
    from app.evaluating import Asked, evaluate_and_report
    from evaluation import report

    options = Asked(asked.data or settings.data, asked.bundle, asked.seeds, asked.part, asked.out)
    found = evaluate_and_report(options, settings, _progress if asked.json else _echo)
    if asked.json:
        print(json.dumps(report.document(found.evaluation, found.targets, found.notes), indent=1))
        return 0
    print(*found.notes, report.quality_table(found.evaluation), report.targets_table(found.targets), sep="\n\n")
    print(f"\nreport: {found.report}")
    return 0


def publish(asked: argparse.Namespace, settings: Settings) -> int:
    from app.publishing import publish_folder, refreshed

    if asked.refresh_items:
        folder = refreshed(asked.folder or settings.bundle, asked.data or settings.data, settings, _echo)
    elif asked.folder is None or asked.data is not None:
        raise PublishError("name the bundle's folder, or --refresh-items to renew the one that is served")
    else:
        folder = asked.folder
    publish_folder(folder, settings, _echo, asked.accept_because)
    return 0


def remove(asked: argparse.Namespace, settings: Settings) -> int:
    from app.removals import remove_items

    known = _known_items(settings)
    strangers = [item for item in asked.items if known is not None and known.row(item) < 0]
    remove_items(settings.redis_address, asked.items, time.time())
    if strangers:
        print(f"not in the bundle that is served, but held for later ones: {', '.join(strangers)}")
    print(f"removed {len(asked.items)} item(s); no worker offers them in a few seconds' time")
    return 0


def restore(asked: argparse.Namespace, settings: Settings) -> int:
    from app.removals import restore_items

    count = restore_items(settings.redis_address, asked.items, time.time())
    print(f"restored {count} of {len(asked.items)} item(s)")
    return 0 if count == len(asked.items) else FAILED


def show_removed(asked: argparse.Namespace, settings: Settings) -> int:
    from app.removals import removed_items

    del asked
    rows = [(item, _moment(since)) for item, since in sorted(removed_items(settings.redis_address).items())]
    print(table(["item", "removed"], rows) if rows else "no item is removed")
    return 0


def _known_items(settings: Settings) -> IdTable | None:
    """The ids of the bundle that is served, None where there is none yet."""
    from domain.catalogue import IdTable
    from release import columns
    from release.bundle import read_manifest

    try:
        files = frozenset(read_manifest(settings.bundle).files)
        return columns.load(IdTable, settings.bundle, files, "items/ids/")
    except (BundleError, OSError):
        return None


def synth(asked: argparse.Namespace, settings: Settings) -> int:
    from training.synth import synthetic, with_reference_graph

    del settings
    if asked.like:
        bundle = with_reference_graph(asked.like, asked.out, asked.seed, _echo)
    else:
        bundle = synthetic(asked.items, asked.users, asked.out, asked.seed, _echo)
    print(f"wrote {bundle.version} into {bundle.path}\npublish it with: streamrec publish {bundle.path}")
    return 0


def serve(asked: argparse.Namespace, settings: Settings) -> int:
    from app import supervisor

    del asked
    return supervisor.serve(settings)


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
    status, answer = call(settings.http_address, "/v1/recommendations", body, key=settings.key)
    if status != 200:
        print(f"streamrec: refused ({status}): {answer.get('detail', 'no reason given')}", file=sys.stderr)
        return UNUSABLE
    print(_slate(answer))
    return 0


def why(asked: argparse.Namespace, settings: Settings) -> int:
    from app.why_text import why_text

    body: dict[str, object] = {"user_id": asked.user, "item_id": asked.item, "limit": asked.limit}
    status, answer = call(settings.http_address, "/v1/why", body, key=settings.key)
    if status != 200:
        print(f"streamrec: refused ({status}): {answer.get('detail', 'no reason given')}", file=sys.stderr)
        return UNUSABLE
    print(why_text(answer))
    return 0


def replay_request(asked: argparse.Namespace, settings: Settings) -> int:
    from app.replay import replay
    from app.why_text import replay_text

    record, came = replay(asked.request, settings, rank=asked.rank)
    print(replay_text(record, came))
    return FAILED if came.differences else 0


def show_bundle(asked: argparse.Namespace, settings: Settings) -> int:
    from release.bundle import Bundle

    print(_bundle_text(Bundle.load(asked.folder or settings.bundle)))
    return 0


def health(asked: argparse.Namespace, settings: Settings) -> int:
    del asked
    try:
        status, _ = call(settings.http_address, "/readyz")
        _, state = call(settings.http_address, "/healthz", key=settings.key)
    except NotAnswering as error:
        print(f"streamrec: {error}", file=sys.stderr)
        return FAILED
    bundle, dependencies = state.get("bundle", {}), state.get("dependencies", {})
    print(f"{'ready' if status == 200 else 'not ready'}: bundle {bundle.get('version')}, worker {state.get('worker')}")
    print(table(["dependency", "breaker"], [(name, str(breaker)) for name, breaker in dependencies.items()]))
    return 0 if status == 200 else FAILED


def make_key(asked: argparse.Namespace, settings: Settings) -> int:
    del settings
    token, key = access.make_key(asked.name, asked.role, asked.rate, asked.burst)
    print(f"{token}\n^ the key: give it to its owner, it is kept nowhere", file=sys.stderr)
    print(key.line)
    return 0


def show_latency(asked: argparse.Namespace, settings: Settings) -> int:
    from app import latency
    from release.bundle import Bundle

    ids = Bundle.load(settings.bundle).tables.users.ids
    users = [ids.text(row) for row in range(0, len(ids), max(1, len(ids) // 1000))]
    told = latency.ask(settings.http_address, users, asked.requests, key=settings.key)
    print(latency.report(told, latency.allotments(settings)))
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

    from app.exposure_watch import Shelf
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


def _bundle_text(bundle: Bundle) -> str:
    from evaluation.tracking import read_tracking

    manifest, tables, published = bundle.manifest, bundle.tables, bundle.publication
    dataset, lineage = manifest.dataset, manifest.lineage
    size = sum(int(file["bytes"]) for file in manifest.files.values())
    facts = {
        "bundle": f"{bundle.version}, every file as the manifest says",
        "published": f"as {published.number} at {_moment(published.published_at)}" if published else "no",
        "dataset": f"{dataset.name}, clock {dataset.clock}, until {_moment(dataset.ended_at)}",
        "made": f"{_moment(lineage.created_at)} from commit {lineage.commit}, data {lineage.data_sha256[:12]}",
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


def _moment(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M UTC", time.gmtime(seconds))


def _ids(text: str) -> list[str]:
    return [part for part in (part.strip() for part in text.split(",")) if part]


def _echo(line: str) -> None:
    print(line, flush=True)


def _progress(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
