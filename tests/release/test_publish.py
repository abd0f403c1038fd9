"""Publishing to a real Triton and a real Redis: all of it, or nothing."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import ANY

import numpy as np
import pytest
import redis

from domain.errors import BundleError, PublishError, Unreachable
from release.bundle import Bundle, read_publication, write
from release.gates import HISTORY, read_history
from release.publish import (
    FEATURES_KEY,
    PublishTarget,
    current_number,
    ensure_loaded,
    features_missing,
    publish,
    publishing,
    restoring,
    undisturbed,
    workers_using,
)
from release.refresh import renew
from release.triton_control import TritonControl
from release.triton_repository import TritonRepository
from tests import tiny_bundle as tiny
from tests.release.test_refresh import with_new_items

Made = Callable[[int], Bundle]


class Features:
    """Stands in for Feast: remembers whose features it was given."""

    def __init__(self, fault: Exception | None = None) -> None:
        self.written: list[str] = []
        self.fault = fault

    def __call__(self, bundle: Bundle) -> None:
        if self.fault is not None:
            raise self.fault
        self.written.append(bundle.version)


@pytest.fixture
def said() -> list[str]:
    return []


@pytest.fixture
def target(triton: Any, redis_url: str) -> Iterator[PublishTarget]:
    """The shared Triton, under its home: numbers go on from test to test."""
    yield target_at(triton.home, redis_url, triton.address)
    for path in (triton.home / "workers").glob("*"):
        path.unlink()


@pytest.fixture
def alone(tmp_path: Path, redis_url: str) -> PublishTarget:
    """A home without Triton."""
    return target_at(tmp_path / "home", redis_url, None)


def target_at(home: Path, redis_url: str, address: str | None) -> PublishTarget:
    return PublishTarget(
        home,
        redis_url,
        address,
        TritonRepository(home),
        longest_deadline_seconds=0.0,
        workers_seconds=0.2,
        poll_seconds=0.01,
    )


def beat(target: PublishTarget, number: int, pid: int | None = None) -> Path:
    target.workers.mkdir(exist_ok=True)
    path = target.workers / f"{pid or os.getpid()}.json"
    path.write_text(json.dumps({"pid": pid or os.getpid(), "number": number}))
    return path


def ready(target: PublishTarget, number: int) -> bool:
    with TritonControl(str(target.triton_address)) as triton:
        return triton.ready(number)


def test_a_bundle_becomes_current_with_its_model_and_its_features(
    target: PublishTarget, make_bundle: Made, said: list[str]
) -> None:
    features, bundle = Features(), make_bundle(1)
    published = publish(bundle.path, target, features, said.append)
    assert Bundle.load(target.current).publication == published
    assert Bundle.load(target.current).version == bundle.version
    assert not bundle.path.exists()
    assert target.current.readlink() == Path("bundles") / str(published.number)
    assert ready(target, published.number)
    assert features.written == [bundle.version]
    assert not features_missing(bundle.version, target.redis_url)
    assert any("scores equal" in line for line in said)


def test_numbers_only_go_up(target: PublishTarget, make_bundle: Made) -> None:
    first = publish(make_bundle(1).path, target, Features(), print)
    second = publish(make_bundle(2).path, target, Features(), print)
    assert second.number == first.number + 1


def test_loading_a_version_neither_fails_nor_reloads_the_one_in_use(
    target: PublishTarget, make_bundle: Made, triton: Any
) -> None:
    first = publish(make_bundle(1).path, target, Features(), print)
    loaded = triton.part.log.read_text().count("TRITONBACKEND_ModelInstanceInitialize")
    parity = Bundle.load(target.current).tables.parity
    stop, checked = threading.Event(), []

    def ask() -> None:
        with TritonControl(triton.address) as control:
            while not stop.is_set():
                checked.append(control.check(first.number, parity))

    with_requests = threading.Thread(target=ask)
    with_requests.start()
    try:
        publish(make_bundle(2).path, target, Features(), print)
    finally:
        stop.set()
        with_requests.join()
    assert len(checked) > 10
    assert max(checked) < 1e-4
    assert triton.part.log.read_text().count("TRITONBACKEND_ModelInstanceInitialize") == loaded + 1


def test_scores_that_differ_from_training_change_nothing(
    target: PublishTarget, make_bundle: Made, tmp_path: Path
) -> None:
    before = publish(make_bundle(1).path, target, Features(), print)
    parity = make_bundle(2).tables.parity
    wrong = tiny.make(tmp_path / "wrong", 3, {"parity": replace(parity, score=parity.score + np.float32(0.01))})
    features = Features()
    with pytest.raises(PublishError, match="differs from training"):
        publish(wrong.path, target, features, print)
    assert current_number(target) == before.number
    assert features.written == []
    assert wrong.path.exists()
    assert read_publication(wrong.path) is None
    assert before.number + 1 not in target.repository.versions()
    assert not ready(target, before.number + 1)
    assert ready(target, before.number)


def test_a_model_that_does_not_load_changes_nothing(target: PublishTarget, make_bundle: Made, tmp_path: Path) -> None:
    before = publish(make_bundle(1).path, target, Features(), print)
    whole = make_bundle(2)
    broken = tmp_path / "not-a-model"
    broken.write_bytes(b"nothing that ONNX knows")
    bundle = write(tmp_path / "broken", replace(whole.manifest, files={}), whole.tables, whole.index_path, broken)
    with pytest.raises(PublishError, match="refuses the model"):
        publish(bundle.path, target, Features(), print)
    assert current_number(target) == before.number
    assert ready(target, before.number)


def test_features_that_cannot_be_written_change_nothing(target: PublishTarget, make_bundle: Made) -> None:
    before = publish(make_bundle(1).path, target, Features(), print)
    with pytest.raises(Unreachable, match="gone"):
        publish(make_bundle(2).path, target, Features(Unreachable("gone")), print)
    assert current_number(target) == before.number
    assert not ready(target, before.number + 1)
    assert features_missing(Bundle.load(target.current).version, target.redis_url)  # so they are written again


def test_a_flipped_byte_is_refused_before_anything_happens(alone: PublishTarget, make_bundle: Made) -> None:
    bundle = make_bundle(1)
    content = bytearray(bundle.model_path.read_bytes())
    content[len(content) // 2] ^= 1
    bundle.model_path.write_bytes(content)
    with pytest.raises(BundleError, match="changed"):
        publish(bundle.path, alone, Features(), print)
    assert alone.repository.versions() == ()


def test_the_version_before_is_kept_and_older_ones_go_once_the_workers_moved_on(
    target: PublishTarget, make_bundle: Made
) -> None:
    numbers = [publish(make_bundle(seed).path, target, Features(), print).number for seed in range(4)]
    assert target.repository.versions() == tuple(numbers[-2:])
    assert [ready(target, number) for number in numbers] == [False, False, True, True]
    assert sorted(path.name for path in target.bundles.iterdir()) == sorted(str(number) for number in numbers[-3:])


def test_a_worker_that_stays_behind_keeps_its_version(
    target: PublishTarget, make_bundle: Made, said: list[str]
) -> None:
    old = publish(make_bundle(0).path, target, Features(), print).number
    heartbeat = beat(target, old)
    for seed in (1, 2):
        publish(make_bundle(seed).path, target, Features(), said.append)
    assert ready(target, old)
    assert any("has not moved on" in line for line in said)
    heartbeat.unlink()
    publish(make_bundle(3).path, target, Features(), print)
    assert not ready(target, old)


def test_a_dead_workers_heartbeat_holds_nobody_up(target: PublishTarget) -> None:
    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    beat(target, 0, dead.pid)
    beat(target, 7)
    (target.workers / "1234567.json").write_text("{half")
    assert workers_using(target.workers) == [7]


def test_without_triton_it_still_publishes_and_says_what_that_means(
    alone: PublishTarget, make_bundle: Made, said: list[str]
) -> None:
    published = publish(make_bundle(1).path, alone, Features(), said.append)
    assert current_number(alone) == published.number == 1
    assert alone.repository.versions() == (1,)
    assert any("SIMPLE_RANKING" in line for line in said)


def test_a_triton_that_is_away_counts_as_none(
    alone: PublishTarget, make_bundle: Made, said: list[str], free_port: Callable[[], int]
) -> None:
    away = replace(alone, triton_address=f"127.0.0.1:{free_port()}")
    publish(make_bundle(1).path, away, Features(), said.append)
    assert current_number(away) == 1
    assert any("SIMPLE_RANKING" in line for line in said)


def test_publishing_a_published_bundle_goes_back_to_it_under_a_new_number(
    alone: PublishTarget, make_bundle: Made
) -> None:
    first, second = make_bundle(1), make_bundle(2)
    publish(first.path, alone, Features(), print)
    publish(second.path, alone, Features(), print)
    back = publish(alone.bundles / "1", alone, Features(), print)
    assert back.number == 3
    assert Bundle.load(alone.current).version == first.version
    assert read_publication(alone.bundles / "1") != back


def test_only_one_publishes_at_a_time(alone: PublishTarget) -> None:
    with (
        publishing(alone.home),
        pytest.raises(PublishError, match="another publication"),
        publishing(alone.home, patience_seconds=0.0),
    ):
        pass


def test_a_part_that_hangs_while_it_is_restored_keeps_only_publishing_waiting(alone: PublishTarget) -> None:
    with restoring(alone.home, "triton"):
        with restoring(alone.home, "redis"), undisturbed(alone.home, patience_seconds=0.0):
            pass
        with pytest.raises(PublishError), publishing(alone.home, patience_seconds=0.0):
            pass
    with publishing(alone.home, patience_seconds=0.0), pytest.raises(PublishError):
        undisturbed(alone.home, patience_seconds=0.0).__enter__()


def test_whoever_follows_current_never_finds_nothing(alone: PublishTarget, make_bundle: Made) -> None:
    publish(make_bundle(0).path, alone, Features(), print)
    stop, seen = threading.Event(), set()

    def follow() -> None:
        while not stop.is_set():
            seen.add(current_number(alone))

    follower = threading.Thread(target=follow)
    follower.start()
    try:
        for seed in (1, 2):
            publish(make_bundle(seed).path, alone, Features(), print)
    finally:
        stop.set()
        follower.join()
    assert seen <= {1, 2, 3}


def test_features_are_missing_when_redis_has_lost_them(alone: PublishTarget, make_bundle: Made) -> None:
    bundle = make_bundle(1)
    publish(bundle.path, alone, Features(), print)
    with redis.Redis.from_url(alone.redis_url) as client:
        client.delete(FEATURES_KEY)
    assert features_missing(bundle.version, alone.redis_url)


def test_a_triton_that_was_killed_gets_its_model_again(
    make_bundle: Made, start_own_triton: Callable[..., Any], tmp_path: Path, redis_url: str, said: list[str]
) -> None:
    running = start_own_triton(tmp_path / "home")
    target = target_at(running.home, redis_url, running.address)
    number = publish(make_bundle(1).path, target, Features(), print).number
    bundle = Bundle.load(target.current)
    assert not ensure_loaded(bundle, target, said.append)
    running.part.kill()
    with pytest.raises(Unreachable):
        ensure_loaded(bundle, target, said.append)
    target.repository.remove(number)  # a repository may be lost, too
    again = start_own_triton(running.home)
    target = replace(target, triton_address=again.address)
    assert ensure_loaded(bundle, target, said.append)
    assert ready(target, number)
    again.part.stop()


def test_the_repository_holds_nothing_that_triton_would_reload(target: PublishTarget, make_bundle: Made) -> None:
    number = publish(make_bundle(1).path, target, Features(), print).number
    version = target.repository.model / str(number)
    assert {path.name for path in version.iterdir()} == {"model.py", "dcn_v2.onnx", "__pycache__"}
    assert (version / "__pycache__").is_file()


def test_for_nvidias_image_a_version_is_the_model_alone(tmp_path: Path, tiny_bundle: Bundle) -> None:
    folder = TritonRepository(tmp_path, platform="onnxruntime").render(tiny_bundle, 5)
    assert [path.name for path in folder.iterdir()] == ["model.onnx"]
    config = (tmp_path / "triton" / "dcn_v2" / "config.pbtxt").read_text()
    assert "$" not in config
    assert f"dims: [ -1, {len(tiny.COLUMNS)} ]" in config


def test_a_number_is_rendered_once(tmp_path: Path, tiny_bundle: Bundle) -> None:
    repository = TritonRepository(tmp_path)
    repository.render(tiny_bundle, 1)
    with pytest.raises(PublishError, match="exists already"):
        repository.render(tiny_bundle, 1)


def test_the_model_has_no_queue_policy_because_it_stalls_requests(tmp_path: Path, tiny_bundle: Bundle) -> None:
    """Any policy turns prefetching off; without it tritonserver 2.51 lets a request wait 500 ms now and then."""
    config = TritonRepository(tmp_path).config(tiny_bundle)
    settings = [line for line in config.splitlines() if not line.startswith("#")]
    assert "dynamic_batching { }" in settings
    assert not any("queue_policy" in line for line in settings)


def refused_bundle(folder: Path, make_bundle: Made) -> Bundle:
    """One whose dataset asks for quality that nobody measured."""
    whole = make_bundle(5)
    lineage = replace(whole.manifest.lineage, parameters={"gates": {}})
    manifest = replace(whole.manifest, lineage=lineage, files={})
    return write(folder / "refused", manifest, whole.tables, whole.index_path, whole.model_path)


def test_a_bundle_that_its_gates_refuse_is_published_only_with_a_reason(
    target: PublishTarget, make_bundle: Made, tmp_path: Path, said: list[str]
) -> None:
    bundle = refused_bundle(tmp_path, make_bundle)
    before = publish(make_bundle(1).path, target, Features(), print)
    with pytest.raises(PublishError, match=r"retrieval\.recall_at_500 is not measured"):
        publish(bundle.path, target, Features(), print)
    assert current_number(target) == before.number
    publish(bundle.path, target, Features(), said.append, "the old one offends the law")
    published = read_publication(target.current)
    assert published is not None
    assert published.accepted_because == "the old one offends the law"
    assert any("published although" in line for line in said)


def test_each_first_publication_enters_the_history_and_a_roll_back_does_not(
    target: PublishTarget, make_bundle: Made
) -> None:
    before = len(read_history(target.home))
    first = publish(make_bundle(1).path, target, Features(), print)
    publish(make_bundle(2).path, target, Features(), print, "not needed, so not recorded")
    publish(target.bundles / str(first.number), target, Features(), print)
    assert len(read_history(target.home)) == before + 2
    assert Bundle.load(target.current).publication == replace(first, number=first.number + 2, published_at=ANY)


def refreshed(served: Path, folder: Path) -> Path:
    """The bundle at ``served`` with a new item, as ``publish --refresh-items`` makes it."""
    bundle = Bundle.load(served)
    return renew(bundle, with_new_items(bundle, folder.name), folder).path


def test_a_catalogue_is_refreshed_after_an_accepted_bundle_and_keeps_its_reason(
    alone: PublishTarget, make_bundle: Made, tmp_path: Path
) -> None:
    publish(refused_bundle(tmp_path, make_bundle).path, alone, Features(), print, "the old one offends the law")
    first = refreshed(alone.current, tmp_path / "first")
    assert publish(first, alone, Features(), print).accepted_because == "the old one offends the law"
    second = refreshed(alone.current, tmp_path / "second")
    assert publish(second, alone, Features(), print).accepted_because == "the old one offends the law"
    assert len(read_history(alone.home)) == 1  # the same models were published once


def test_a_catalogue_whose_models_were_never_published_is_judged_whole(
    alone: PublishTarget, make_bundle: Made, tmp_path: Path
) -> None:
    never = refreshed(refused_bundle(tmp_path, make_bundle).path, tmp_path / "renewed")
    with pytest.raises(PublishError, match="not measured"):
        publish(never, alone, Features(), print)


def test_a_history_that_cannot_be_written_fails_no_publication(
    alone: PublishTarget, make_bundle: Made, said: list[str]
) -> None:
    alone.home.mkdir()
    (alone.home / HISTORY).symlink_to("nowhere/at-all")
    published = publish(make_bundle(1).path, alone, Features(), said.append)
    assert current_number(alone) == published.number
    assert any("gates will not know" in line for line in said)
