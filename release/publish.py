"""Publishing: a trained bundle becomes the one that every worker serves, or nothing changes.

    number -> version in Triton, loaded, warmed, its scores those of training -> user features in Redis
           -> bundles/<number> -> ``current`` renamed onto it -> workers move on -> what nobody uses any more is removed

The rename of ``current`` is the moment of the switch. Before it a failure leaves what is served as it is; after it
nothing can fail the publication, only its tidying up.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import shutil
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path

import redis

from domain.errors import DependencyError, PublishError, StreamRecError, Unreachable
from release import gates
from release.bundle import PUBLICATION, Bundle, Publication, read_publication
from release.triton_control import TritonControl
from release.triton_repository import TritonRepository, link_or_copy, numbered

KEPT_BUNDLES = 3
PATIENCE_SECONDS = 10.0  # with somebody else who publishes or restores
FEATURES_KEY = "streamrec:features"
"""In Redis: the version of the bundle whose user features are there. It goes when they go."""
FEATURES_SECONDS = 12 * 3600
"""And when they are due again: half of what the contract allows a value to stay fresh."""

Echo = Callable[[str], object]
WriteFeatures = Callable[[Bundle], object]


@dataclass(frozen=True, slots=True)
class PublishTarget:
    """Where a publication goes. ``triton_address`` is ``host:port`` of the gRPC endpoint, or None to do without."""

    home: Path
    redis_url: str
    triton_address: str | None
    repository: TritonRepository
    longest_deadline_seconds: float = 1.0  # a request that began before the switch may still ask for the old version
    workers_seconds: float = 60.0  # how long workers may take to move on before the old version is left where it is
    poll_seconds: float = 0.1
    clock: Callable[[], float] = time.time

    @property
    def bundles(self) -> Path:
        return self.home / "bundles"

    @property
    def current(self) -> Path:
        """The link that workers poll."""
        return self.home / "current"

    @property
    def workers(self) -> Path:
        return self.home / "workers"


def publish(
    folder: Path,
    target: PublishTarget,
    write_features: WriteFeatures,
    echo: Echo = print,
    accepted_because: str | None = None,
) -> Publication:
    """Publish the bundle in ``folder``, which moves into HOME/bundles; a published one is copied, which is a roll-back.

    A bundle that its gates refuse is published only with a reason, ``accepted_because``. A roll-back was judged when it
    was published first, the models of a refreshed catalogue when they were; both keep their reason. Raises
    ``BundleError``, ``PublishError`` or ``Unreachable``; then what is served is what was served.
    """
    with publishing(target.home):
        bundle = Bundle.load(folder)
        accepted_because = _pass_gates(bundle, target, echo, accepted_because)
        previous = current_number(target)
        number = 1 + max([0, *numbered(target.bundles), *target.repository.versions()])
        with _version_in_triton(bundle, number, target, echo):
            features_written(bundle, target.redis_url, write_features)
            published = _place(bundle, Publication(number, target.clock(), accepted_because), target)
            _switch(target, number)
        _remember(bundle, target, echo)
        echo(f"published {bundle.version} as {number}")
        _retire(target, number, previous, echo)
    return published


def _pass_gates(bundle: Bundle, target: PublishTarget, echo: Echo, accepted_because: str | None) -> str | None:
    """The reason to record, None where none was needed; raises ``PublishError`` when refused without one."""
    if bundle.publication is not None:
        return bundle.publication.accepted_because
    verdicts = gates.refused(gates.judge(bundle.manifest, gates.read_history(target.home)))
    told = "; ".join(f"{verdict.gate} is {verdict.found}, wanted {verdict.wanted}" for verdict in verdicts)
    if verdicts and not accepted_because:
        raise PublishError(f"{bundle.version} is refused by its gates: {told}")
    if verdicts:
        echo(f"WARNING: published although {told}; because: {accepted_because}")
    return accepted_because if verdicts else gates.inherited_reason(bundle.manifest)


def _remember(bundle: Bundle, target: PublishTarget, echo: Echo) -> None:
    """Once for the same models, and after the switch: so it may be lost, but fails nothing."""
    if bundle.publication is not None or gates.judged_before(bundle.manifest):
        return
    try:
        gates.remember(bundle.manifest, target.home)
    except OSError as error:
        echo(f"WARNING: the gates will not know of this publication: {error}")


@contextlib.contextmanager
def publishing(home: Path, patience_seconds: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Only one at a time may publish, while nobody restores; raises ``PublishError`` if another does for so long."""
    with _held(home / "publish.lock", fcntl.LOCK_EX, patience_seconds):
        yield


@contextlib.contextmanager
def undisturbed(home: Path, patience_seconds: float = PATIENCE_SECONDS) -> Iterator[None]:
    """Nobody publishes meanwhile; raises ``PublishError`` if somebody does for so long."""
    with _held(home / "publish.lock", fcntl.LOCK_SH, patience_seconds):
        yield


@contextlib.contextmanager
def restoring(home: Path, part: str) -> Iterator[None]:
    """Nobody publishes, and nobody else restores ``part``: a part that hangs keeps no other from what it lost.

    Raises ``PublishError`` if it has to wait too long.
    """
    with undisturbed(home), _held(home / f"restore-{part}.lock", fcntl.LOCK_EX, PATIENCE_SECONDS):
        yield


@contextlib.contextmanager
def _held(file: Path, how: int, patience_seconds: float) -> Iterator[None]:
    file.parent.mkdir(parents=True, exist_ok=True)
    end = time.monotonic() + patience_seconds
    with file.open("w") as lock:
        while not _locked(lock.fileno(), how):
            if time.monotonic() >= end:
                raise PublishError("another publication is going on")
            time.sleep(0.05)
        yield


def _locked(file: int, how: int) -> bool:
    try:
        fcntl.flock(file, how | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def current_number(target: PublishTarget) -> int | None:
    """The number that ``current`` names, or None before the first publication."""
    try:
        publication = read_publication(target.current.resolve())
    except StreamRecError:
        return None
    return publication.number if publication else None


def ensure_loaded(bundle: Bundle, target: PublishTarget, echo: Echo = print) -> bool:
    """Give Triton the published ``bundle`` if it does not have it: it forgets its models when it restarts.

    Whether anything had to be done; raises ``PublishError`` if the model does not load or differs from training, and
    ``Unreachable`` if Triton is not there.
    """
    if bundle.publication is None or target.triton_address is None:
        return False
    number = bundle.publication.number
    with TritonControl(target.triton_address) as triton:
        if triton.ready(number):
            return False
        if number not in target.repository.versions():
            target.repository.render(bundle, number)
        triton.load()
        worst = triton.check(number, bundle.tables.parity)
    echo(f"Triton has version {number} again, scores equal training's within {worst:.1e}")
    return True


def features_missing(version: str, redis_url: str) -> bool:
    """Whether Redis has lost the user features of bundle ``version``, or never had them; raises ``Unreachable``."""
    try:
        with redis.Redis.from_url(redis_url, socket_timeout=2.0, socket_connect_timeout=2.0) as client:
            return bool(client.get(FEATURES_KEY) != version.encode())
    except redis.RedisError as error:
        raise Unreachable(f"Redis does not answer: {error}") from error


def features_written(bundle: Bundle, redis_url: str, write_features: WriteFeatures) -> None:
    """Write the user features, and once all are there the mark that says whose they are."""
    try:
        with redis.Redis.from_url(redis_url, socket_timeout=2.0, socket_connect_timeout=2.0) as client:
            client.delete(FEATURES_KEY)  # whose they are is open until all are written
            write_features(bundle)
            client.set(FEATURES_KEY, bundle.version, ex=FEATURES_SECONDS)
    except redis.RedisError as error:
        raise Unreachable(f"Redis does not answer: {error}") from error


@contextlib.contextmanager
def _version_in_triton(bundle: Bundle, number: int, target: PublishTarget, echo: Echo) -> Iterator[None]:
    """The version, loaded and equal to training; taken out again if the block fails. Triton may be absent."""
    triton = TritonControl(target.triton_address) if target.triton_address else None
    with triton or contextlib.nullcontext():
        present = triton if triton and triton.alive() else None
        target.repository.render(bundle, number)
        try:
            if present is None:
                echo("WARNING: no Triton answers: until one does, answers are ranked at SIMPLE_RANKING")
            else:
                present.load()
                worst = present.check(number, bundle.tables.parity)
                echo(f"Triton has version {number}, scores equal training's within {worst:.1e}")
            yield
        except BaseException:
            target.repository.remove(number)
            if present is not None:
                with contextlib.suppress(StreamRecError):  # the reason to withdraw is what must be told
                    _synchronise(present, target)
            raise


def _synchronise(triton: TritonControl, target: PublishTarget) -> None:
    """Make Triton forget what is no longer in the repository; it refuses to load a model without versions."""
    if target.repository.versions():
        triton.load()
    else:
        triton.unload()


def _place(bundle: Bundle, publication: Publication, target: PublishTarget) -> Publication:
    """Put the bundle at ``bundles/<number>``, whole from the first moment."""
    scratch = target.bundles / f".unfinished-{publication.number}"
    target.bundles.mkdir(parents=True, exist_ok=True)
    shutil.rmtree(scratch, ignore_errors=True)
    if bundle.publication is None:
        shutil.move(bundle.path, scratch)
    else:
        ignored = shutil.ignore_patterns(PUBLICATION)
        shutil.copytree(bundle.path, scratch, copy_function=link_or_copy, ignore=ignored)
    (scratch / PUBLICATION).write_text(json.dumps(asdict(publication)) + "\n")
    scratch.rename(target.bundles / str(publication.number))
    return publication


def _switch(target: PublishTarget, number: int) -> None:
    """Rename ``current`` onto the new bundle: whoever looks sees the old or the new one, never none."""
    scratch = target.home / ".current"
    scratch.unlink(missing_ok=True)
    scratch.symlink_to(Path("bundles") / str(number))
    scratch.replace(target.current)


def _retire(target: PublishTarget, number: int, previous: int | None, echo: Echo) -> None:
    """Once every worker has moved on, unload and delete what nobody asks for any more."""
    if not await_workers(target, number):
        echo(f"WARNING: a worker has not moved on to {number}; older versions stay until the next publication")
        return
    time.sleep(target.longest_deadline_seconds)
    old = [version for version in target.repository.versions() if version not in {number, previous}]
    for version in old:
        target.repository.remove(version)
    if old and target.triton_address:
        with TritonControl(target.triton_address) as triton, contextlib.suppress(DependencyError, PublishError):
            triton.load()
    for bundle in numbered(target.bundles)[:-KEPT_BUNDLES]:
        if bundle not in {number, previous}:
            shutil.rmtree(target.bundles / str(bundle), ignore_errors=True)


def await_workers(target: PublishTarget, number: int) -> bool:
    """Whether all living workers use publication ``number`` or a later one, within ``workers_seconds``."""
    end = time.monotonic() + target.workers_seconds
    while not all(using >= number for using in workers_using(target.workers)):
        if time.monotonic() > end:
            return False
        time.sleep(target.poll_seconds)
    return True


def workers_using(folder: Path) -> list[int]:
    """The publication that each living worker on this machine uses; 0 for one that uses an unpublished bundle."""
    using = []
    for path in folder.glob("*.json"):
        with contextlib.suppress(OSError, ValueError, KeyError, TypeError):  # gone, or not a heartbeat
            heartbeat = json.loads(path.read_text())
            if _alive(int(heartbeat["pid"])):
                using.append(int(heartbeat["number"] or 0))
    return using


def _alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True
