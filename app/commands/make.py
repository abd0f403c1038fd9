"""From a dataset folder to a published bundle: what the people do who bring data and models."""

from __future__ import annotations

import argparse
import json
import time

from app.commands.terminal import FAILED, echo, progress
from app.settings import Settings
from domain.errors import PublishError


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
        bundle = train_bundle(asked.data or settings.data, out, seed=asked.seed, echo=echo, engine=engine)
    from app.commands.evaluating import gate_and_track, told

    verdicts = gate_and_track(bundle, settings, echo)
    taken = time.monotonic() - started
    print(f"trained {bundle.version} into {bundle.path} in {taken:.0f} s\n{told(verdicts, bundle.path)}")
    return 0


def evaluate(asked: argparse.Namespace, settings: Settings) -> int:
    from app.commands.evaluating import Asked, evaluate_and_report
    from evaluation import report

    options = Asked(asked.data or settings.data, asked.bundle, asked.seeds, asked.part, asked.out)
    found = evaluate_and_report(options, settings, progress if asked.json else echo)
    if asked.json:
        print(json.dumps(report.document(found.evaluation, found.targets, found.notes), indent=1))
        return 0
    print(*found.notes, report.quality_table(found.evaluation), report.targets_table(found.targets), sep="\n\n")
    print(f"\nreport: {found.report}")
    return 0


def publish(asked: argparse.Namespace, settings: Settings) -> int:
    from app.commands.publishing import publish_folder, refreshed

    if asked.refresh_items:
        folder = refreshed(asked.folder or settings.bundle, asked.data or settings.data, settings, echo)
    elif asked.folder is None or asked.data is not None:
        raise PublishError("name the bundle's folder, or --refresh-items to renew the one that is served")
    else:
        folder = asked.folder
    publish_folder(folder, settings, echo, asked.accept_because)
    return 0


def synth(asked: argparse.Namespace, settings: Settings) -> int:
    from training.synth import synthetic, with_reference_graph

    del settings
    if asked.like:
        bundle = with_reference_graph(asked.like, asked.out, asked.seed, echo)
    else:
        bundle = synthetic(asked.items, asked.users, asked.out, asked.seed, echo)
    print(f"wrote {bundle.version} into {bundle.path}\npublish it with: streamrec publish {bundle.path}")
    return 0
