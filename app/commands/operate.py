"""The running service, as its operator handles it: start it, ask how it is, take items out, give keys."""

from __future__ import annotations

import argparse
import sys
import time
from typing import TYPE_CHECKING

from app import access
from app.commands.client import NotAnswering, call
from app.commands.terminal import FAILED, moment
from app.settings import Settings
from app.table import table
from domain.errors import BundleError

if TYPE_CHECKING:
    from domain.catalogue import IdTable


def serve(asked: argparse.Namespace, settings: Settings) -> int:
    from app.processes import supervisor

    del asked
    return supervisor.serve(settings)


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


def show_latency(asked: argparse.Namespace, settings: Settings) -> int:
    from app.commands import latency
    from release.bundle import Bundle

    ids = Bundle.load(settings.bundle).tables.users.ids
    users = [ids.text(row) for row in range(0, len(ids), max(1, len(ids) // 1000))]
    told = latency.ask(settings.http_address, users, asked.requests, key=settings.key)
    print(latency.report(told, latency.allotments(settings)))
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
    rows = [(item, moment(since)) for item, since in sorted(removed_items(settings.redis_address).items())]
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


def make_key(asked: argparse.Namespace, settings: Settings) -> int:
    del settings
    token, key = access.make_key(asked.name, asked.role, asked.rate, asked.burst)
    print(f"{token}\n^ the key: give it to its owner, it is kept nowhere", file=sys.stderr)
    print(key.line)
    return 0
