"""Publishing and restoring with this machine's settings.

    python -m app.publishing publish FOLDER     what `streamrec publish FOLDER` does
    python -m app.publishing restore            give Triton and Redis again what they lost of the current bundle

The supervisor runs these as programs of their own: Feast takes seconds to import and memory to keep.
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from app.settings import Settings
from domain.errors import BundleError, PublishError, StreamRecError, Unreachable
from release.bundle import Bundle, Publication, read_manifest, read_publication
from release.publish import (
    Echo,
    PublishTarget,
    ensure_loaded,
    features_missing,
    features_written,
    publish,
    publishing,
)
from release.triton_control import TritonControl
from release.triton_repository import TritonRepository


def target_of(settings: Settings) -> PublishTarget:
    """Where these settings publish to."""
    return PublishTarget(
        home=settings.home,
        redis_url=settings.redis_address,
        triton_address=settings.triton_address,
        repository=TritonRepository(settings.home, settings.triton_platform, settings.triton_instances),
        longest_deadline_seconds=settings.max_deadline_seconds,
    )


def publish_folder(folder: Path, settings: Settings, echo: Echo = print) -> Publication:
    """Publish the bundle in ``folder``; raises ``StreamRecError``, and then nothing that is served has changed."""
    return publish(folder, target_of(settings), lambda bundle: _write(bundle, settings, echo), echo)


def refreshed(folder: Path, data: Path, settings: Settings, echo: Echo = print) -> Path:
    """The bundle in ``folder`` with the items of the dataset folder ``data``, in a new folder; nothing is trained.

    Raises ``BundleError`` or ``DatasetError``.
    """
    from release.refresh import renew
    from training.catalogue import catalogue

    started = time.time()
    bundle = Bundle.load(folder)
    out = settings.home / "training" / time.strftime("refreshed-%Y%m%d-%H%M%S")
    out.parent.mkdir(parents=True, exist_ok=True)
    before, renewed = bundle.tables.items, renew(bundle, catalogue(data, bundle), out)
    now = renewed.tables.items
    echo(
        f"{renewed.version}: {len(now) - len(before):,} new items, {int(now.removed.sum()):,} no longer offered, "
        f"in {time.time() - started:.0f} s"
    )
    return renewed.path


def restore(settings: Settings, echo: Echo = print) -> bool:
    """Load the current model and write the current features where they are missing; whether all is in place.

    What one part refuses does not keep the other from its own. Raises ``StreamRecError`` if the bundle cannot be read.
    """
    target = target_of(settings)
    with publishing(settings.home):
        bundle = Bundle.load(settings.bundle)
        model = _give("Triton", lambda: ensure_loaded(bundle, target, echo), echo)
        features = _give("Redis", lambda: _ensure_features(bundle, settings, echo), echo)
    return model and features


def _give(part: str, what: Callable[[], bool], echo: Echo) -> bool:
    try:
        what()
    except (Unreachable, PublishError) as error:
        echo(f"{part} cannot be given what it lost: {error}")
        return False
    return True


def lost(settings: Settings) -> bool:
    """Whether Triton or Redis answers and does not have what the current bundle gave it.

    Not while somebody publishes: what they hold is then between two bundles.
    """
    with contextlib.suppress(PublishError, BundleError), publishing(settings.home, patience_seconds=0):
        version = read_manifest(settings.bundle).version
        publication = read_publication(settings.bundle)
        if publication and _model_lost(publication.number, settings.triton_address):
            return True
        return _features_lost(version, settings.redis_address)
    return False


def _model_lost(number: int, address: str) -> bool:
    with TritonControl(address) as triton, contextlib.suppress(Unreachable):
        return not triton.ready(number)
    return False


def _features_lost(version: str, redis_url: str) -> bool:
    with contextlib.suppress(Unreachable):
        return features_missing(version, redis_url)
    return False


def _ensure_features(bundle: Bundle, settings: Settings, echo: Echo) -> bool:
    missing = features_missing(bundle.version, settings.redis_address)
    if missing:
        features_written(bundle, settings.redis_address, lambda given: _write(given, settings, echo))
    return missing


def _write(bundle: Bundle, settings: Settings, echo: Echo) -> int:
    from features.materialise import write_user_features

    return write_user_features(bundle, settings.redis_address, settings.home, offline=settings.offline_store, echo=echo)


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0 done, 2 could not be done."""
    try:
        settings = Settings.from_environment(os.environ)
        match list(arguments):
            case ["publish", folder]:
                publish_folder(Path(folder), settings, _say)
            case ["restore"]:
                return 0 if restore(settings, _say) else 2
            case _:
                _say(__doc__ or "")
                return 2
    except StreamRecError as error:
        _say(f"streamrec: {error}")
        return 2
    return 0


def _say(line: str) -> None:
    print(line, flush=True)  # noqa: T201 - a program


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
