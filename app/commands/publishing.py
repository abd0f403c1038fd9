"""Publishing and restoring with this machine's settings.

    python -m app.commands.publishing publish FOLDER  what `streamrec publish FOLDER` does
    python -m app.commands.publishing restore         give Triton and Redis again what they lost of the current bundle

The supervisor publishes by a program of its own: Feast takes seconds to import and memory to keep. To restore takes no
Feast (``app.processes.restoring``).
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import redis.exceptions

from app.commands.terminal import echo
from app.settings import Settings
from domain.errors import BundleError, PublishError, StreamRecError, Unreachable
from features.sentinel import primary_url
from release.bundle import Bundle, Publication, read_manifest, read_publication
from release.publish import (
    Echo,
    PublishTarget,
    ensure_loaded,
    features_missing,
    features_written,
    publish,
    restoring,
    undisturbed,
)
from release.triton_control import TritonControl
from release.triton_repository import TritonRepository


def target_of(settings: Settings) -> PublishTarget:
    """Where these settings publish to."""
    return PublishTarget(
        home=settings.home,
        redis_url=_redis_of(settings),
        triton_address=settings.triton_address,
        repository=TritonRepository(
            settings.home, settings.triton_platform, settings.triton_instances, settings.triton_device
        ),
        longest_deadline_seconds=settings.max_deadline_seconds,
    )


def publish_folder(
    folder: Path, settings: Settings, echo: Echo = print, accepted_because: str | None = None
) -> Publication:
    """Publish the bundle in ``folder``; raises ``StreamRecError``, and then nothing that is served has changed."""
    started, target = time.monotonic(), target_of(settings)
    published = publish(folder, target, lambda bundle: _write(bundle, settings, echo), echo, accepted_because)
    echo(f"published in {time.monotonic() - started:.1f} s")
    return published


def refreshed(folder: Path, data: Path, settings: Settings, echo: Echo = print) -> Path:
    """The bundle in ``folder`` with the items of the dataset folder ``data``, in a new folder; nothing is trained.

    Raises ``BundleError`` or ``DatasetError``.
    """
    started = time.monotonic()  # before what takes seconds to import
    from release.refresh import renew
    from training.catalogue import catalogue

    bundle = Bundle.load(folder)
    out = settings.home / "training" / time.strftime("refreshed-%Y%m%d-%H%M%S")
    out.parent.mkdir(parents=True, exist_ok=True)
    before, renewed = bundle.tables.items, renew(bundle, catalogue(data, bundle), out)
    now = renewed.tables.items
    echo(
        f"{renewed.version}: {len(now) - len(before):,} new items, {int(now.removed.sum()):,} no longer offered, "
        f"renewed in {time.monotonic() - started:.1f} s"
    )
    return renewed.path


def restore(settings: Settings, echo: Echo = print) -> bool:
    """Load the current model and write the current features where they are missing; whether all is in place.

    What one part refuses does not keep the other from its own. Raises ``StreamRecError`` if the bundle cannot be read.
    """
    read_manifest(settings.bundle)
    model = _give("Triton", lambda: give_model(settings, echo), echo)
    features = _give("Redis", lambda: give_features(settings, echo), echo)
    return model and features


def _redis_of(settings: Settings) -> str:
    """The Redis to write to: behind Sentinel, the primary of this moment. Raises ``Unreachable``."""
    try:
        return primary_url(settings.redis_address)
    except redis.exceptions.RedisError as error:
        raise Unreachable("no Sentinel names a primary") from error


def _give(part: str, what: Callable[[], object], echo: Echo) -> bool:
    try:
        what()
    except (Unreachable, PublishError) as error:
        echo(f"{part} cannot be given what it lost: {error}")
        return False
    return True


def give_model(settings: Settings, echo: Echo = print) -> None:
    """Load the current model in Triton if it is not there; raises ``StreamRecError``."""
    with restoring(settings.home, "triton"):
        ensure_loaded(Bundle.load(settings.bundle), target_of(settings), echo)


def give_features(settings: Settings, echo: Echo = print) -> None:
    """Write the current user features into Redis if they are not there; raises ``StreamRecError``."""
    with restoring(settings.home, "redis"):
        bundle = Bundle.load(settings.bundle)
        if features_missing(bundle.version, _redis_of(settings)):
            features_written(bundle, _redis_of(settings), lambda given: _restore(given, settings, echo))


def lost(settings: Settings) -> bool:
    """Whether Triton or Redis answers and does not have what the current bundle gave it."""
    return model_lost(settings) or features_lost(settings)


def model_lost(settings: Settings) -> bool:
    """Whether Triton answers without the current model. Not while somebody publishes: it is then between two."""
    with contextlib.suppress(PublishError, BundleError, Unreachable):
        with undisturbed(settings.home, patience_seconds=0):
            publication = read_publication(settings.bundle)
        if publication is not None:  # asked without the lock: a Triton that hangs must keep nobody from it
            with TritonControl(settings.triton_address) as triton:
                return not triton.ready(publication.number)
    return False


def features_lost(settings: Settings) -> bool:
    """Whether Redis answers without the current user features. Not while somebody publishes."""
    with contextlib.suppress(PublishError, BundleError, Unreachable):
        with undisturbed(settings.home, patience_seconds=0):
            version = read_manifest(settings.bundle).version
        return features_missing(version, _redis_of(settings))
    return False


def _restore(bundle: Bundle, settings: Settings, echo: Echo) -> int:
    from features.materialise import restore_user_features

    return restore_user_features(bundle, _redis_of(settings), echo=echo)


def _write(bundle: Bundle, settings: Settings, echo: Echo) -> int:
    from features.materialise import write_user_features

    return write_user_features(bundle, _redis_of(settings), settings.home, offline=settings.offline_store, echo=echo)


def main(arguments: Sequence[str]) -> int:
    """The exit status: 0 done, 2 could not be done."""
    try:
        settings = Settings.from_environment(os.environ)
        match list(arguments):
            case ["publish", folder]:
                publish_folder(Path(folder), settings, echo)
            case ["restore"]:
                return 0 if restore(settings, echo) else 2
            case _:
                echo(__doc__ or "")
                return 2
    except StreamRecError as error:
        echo(f"streamrec: {error}")
        return 2
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
