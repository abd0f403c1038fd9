"""Experiments: even, independent, stable buckets; arms that change the slate; a holdout that nothing changes."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import pytest

from app.events_api import ArmedLog
from app.experiments import CONTROL, HOLDOUT, Experiments, bucket, read_experiments
from app.metrics import REGISTRY
from app.pipeline import Pipeline
from app.wiring import SOURCES
from domain.errors import StartError
from domain.request import Query
from events.event import Event, decode, encode
from events.redis_log import FIELD, shard_of, streams
from release.bundle import Bundle
from tests.app.fake_serving import FakeLog
from tests.app.fake_stages import Source
from tests.app.test_recommend import KNOWN, ask, pipeline, process
from tests.app.test_slates_go_on import working

__all__ = ["pipeline", "process"]  # fixtures

USERS = [f"user-{n}" for n in range(20_000)]
CHI_SQUARE = {1: 10.83, 9: 27.88, 3: 16.27}  # one in a thousand, by degrees of freedom

RULES = ("plain", CONTROL)
FILE = """
salt = "2026"
holdout = 0.05

[[layer]]
name = "rules"
salt = "rules-1"
[[layer.arm]]
name = "plain"
share = 0.5
rules = "none"

[[layer]]
name = "sources"
salt = "sources-1"
[[layer.arm]]
name = "lonely"
share = 0.3
without = ["two_tower", "content"]
[[layer.arm]]
name = "wide"
share = 0.2
quotas = {popularity = 400}
"""


@pytest.fixture
def experiments(tmp_path: Path) -> Experiments:
    return read(tmp_path, FILE)


def read(folder: Path, text: str) -> Experiments:
    path = folder / "experiments.toml"
    path.write_text(text)
    return read_experiments(path, SOURCES)


def chi_square(counts: np.ndarray, expected: np.ndarray) -> float:
    return float(((counts - expected) ** 2 / expected).sum())


def user_in(experiments: Experiments, **wanted: str) -> str:
    return next(user for user in USERS if wanted.items() <= dict(experiments.arms(user)).items())


def test_buckets_are_even() -> None:
    counts, _ = np.histogram([bucket("salt", user) for user in USERS], 10, (0, 1))
    assert chi_square(counts, np.full(10, len(USERS) / 10)) < CHI_SQUARE[9]


def test_arms_get_their_shares_of_who_is_not_held_out(experiments: Experiments) -> None:
    drawn = [experiments.arms(user)["sources"] for user in USERS]
    counts = np.array([drawn.count(arm) for arm in ("lonely", "wide", CONTROL, HOLDOUT)])
    shares = np.array([0.95 * 0.3, 0.95 * 0.2, 0.95 * 0.5, 0.05])
    assert chi_square(counts, shares * len(USERS)) < CHI_SQUARE[3]


def test_layers_are_independent_of_each_other(experiments: Experiments) -> None:
    arms = [experiments.arms(user) for user in USERS]
    treated = [each for each in arms if each["rules"] != HOLDOUT]
    in_control = {rules: [each["sources"] == CONTROL for each in treated if each["rules"] == rules] for rules in RULES}
    table = np.array([[sum(each), len(each) - sum(each)] for each in in_control.values()])
    expected = table.sum(1, keepdims=True) * table.sum(0, keepdims=True) / table.sum()
    assert chi_square(table, expected) < CHI_SQUARE[1]


def test_a_user_stays_in_their_arm_whatever_process_asks(tmp_path: Path) -> None:
    first, second = read(tmp_path, FILE), read(tmp_path, FILE)
    assert all(first.arms(user) == second.arms(user) for user in USERS[:500])
    assert bucket("salt", "user-1") == pytest.approx(0.8298020, abs=1e-6)  # of all times and machines


def test_who_is_held_out_is_held_out_of_every_layer_and_never_treated(
    experiments: Experiments, pipeline: Pipeline
) -> None:
    held = [user for user in USERS if HOLDOUT in experiments.arms(user).values()]
    assert 0.04 < len(held) / len(USERS) < 0.06
    for user in held[:200]:
        assert dict(experiments.arms(user)) == {"rules": HOLDOUT, "sources": HOLDOUT}
        whole = experiments.applied(pipeline, user)
        assert (whole.rules, whole.sources, whole.quotas) == (pipeline.rules, pipeline.sources, pipeline.quotas)


def test_nobody_without_an_id_is_in_an_experiment(experiments: Experiments, pipeline: Pipeline) -> None:
    assert experiments.applied(pipeline, None) is pipeline
    assert experiments.arms(None) == {}


async def test_an_arm_changes_the_slate_and_the_answer_names_it(experiments: Experiments, pipeline: Pipeline) -> None:
    lonely = user_in(experiments, sources="lonely", rules=CONTROL)
    control = user_in(experiments, sources=CONTROL, rules=CONTROL)
    query = Query(limit=10, recent_item_ids=("item-03",))
    treated = await ask(experiments.applied(pipeline, lonely), replace(query, user_id=lonely))
    plain = await ask(experiments.applied(pipeline, control), replace(query, user_id=control))
    assert dict(treated.arms) == {"rules": CONTROL, "sources": "lonely"}
    assert dict(plain.arms) == {"rules": CONTROL, "sources": CONTROL}
    assert {source for item in treated.items for source in item.sources} <= {
        "collaborative",
        "popularity",
        "preference",
    }
    assert {"two_tower", "content"} <= {source for item in plain.items for source in item.sources}
    assert [item.item_id for item in treated.items] != [item.item_id for item in plain.items]


async def test_another_rule_set_is_another_slate(experiments: Experiments, pipeline: Pipeline) -> None:
    user = user_in(experiments, rules="plain")
    treated = experiments.applied(pipeline, user)
    assert treated.rules == ()
    assert all(item.rule is None for item in (await ask(treated, Query(user, limit=10))).items)


async def test_a_source_that_is_left_out_is_no_failure_and_tells_its_breaker_nothing(
    experiments: Experiments, pipeline: Pipeline
) -> None:
    def down(name: str) -> Source:
        return Source(name, ZeroDivisionError())

    known = next(user for user in USERS if experiments.arms(user)["sources"] == "lonely")
    broken = replace(
        pipeline,
        sources=tuple(down(s.name) if s.name in {"two_tower", "content"} else s for s in pipeline.sources),
    )
    answer = await ask(experiments.applied(broken, known), Query(KNOWN, limit=5))
    assert answer.reasons == ()


async def test_the_event_log_carries_the_arm_of_who_did_it(experiments: Experiments) -> None:
    log, user = FakeLog(), user_in(experiments, sources="wide")
    await ArmedLog(log, experiments.arms).append([Event("e", user, "1", "play", 1.0)])
    event = decode(encode(log.held[0]))
    assert event.arms == dict(experiments.arms(user))
    assert event.arms is not None
    assert event.arms["sources"] == "wide"


def test_arms_that_are_none_spoil_no_event() -> None:
    raw = encode(Event("e", "u", "1", "play", 1.0)).replace(b"}", b',"arms":[1]}')
    assert decode(raw) == Event("e", "u", "1", "play", 1.0)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('salt = "rules-1"', 'salt = "sources-1"'),
        ("share = 0.5", "share = 1.5"),
        ("share = 0.3", "share = 0.9"),
        ('name = "wide"', 'name = "control"'),
        ('name = "wide"', 'name = "Wide arm"'),
        ("popularity = 400", "unknown = 400"),
        ("popularity = 400", "popularity = -1"),
        ('rules = "none"', 'rules = "nonsense"'),
        ('rules = "none"', "quotas = {content = 3}"),
        ("holdout = 0.05", "holdout = 0.5"),
        ("holdout = 0.05", "hold = 0.5"),
        ('salt = "2026"', ""),
        ('["two_tower", "content"]', '["two_tower", "content", "collaborative", "popularity", "preference"]'),
    ],
)  # fmt: skip
def test_a_file_that_makes_no_sense_is_refused(tmp_path: Path, old: str, new: str) -> None:
    assert old in FILE
    with pytest.raises(StartError, match="experiment"):
        read(tmp_path, FILE.replace(old, new, 1))


def test_no_file_is_no_experiment_and_an_unreadable_one_is_told(tmp_path: Path) -> None:
    assert read_experiments(None, SOURCES).layers == ()
    with pytest.raises(StartError, match="experiment file"):
        read_experiments(tmp_path / "nowhere.toml", SOURCES)


async def test_answers_are_counted_by_arm(tiny_bundle: Bundle, redis_url: str, tmp_path: Path) -> None:
    experiments = read(tmp_path, FILE)
    user = user_in(experiments, sources="lonely", rules=CONTROL)
    told = [{"layer": "rules", "arm": CONTROL}, {"layer": "sources", "arm": "lonely"}]

    def counted() -> list[float]:
        return [REGISTRY.get_sample_value("streamrec_arm_answers_total", labels) or 0.0 for labels in told]

    async with working(tiny_bundle, redis_url, tmp_path, experiments=tmp_path / "experiments.toml") as worker:
        before = counted()
        assert (await worker.ask(user_id=user))["arms"] == {"rules": CONTROL, "sources": "lonely"}
        await worker.ask(user_id=user)
        assert [now - was for now, was in zip(counted(), before, strict=True)] == [2, 2]


async def test_over_http_an_arm_changes_the_slate_and_follows_the_user_into_the_event_log(
    tiny_bundle: Bundle, redis_url: str, tmp_path: Path
) -> None:
    experiments = read(tmp_path, FILE)
    treated = user_in(experiments, sources="lonely", rules=CONTROL)
    unruled = user_in(experiments, sources=CONTROL, rules="plain")
    control = user_in(experiments, sources=CONTROL, rules=CONTROL)
    settings = {"rules": "memory", "experiments": tmp_path / "experiments.toml"}
    async with working(tiny_bundle, redis_url, tmp_path, **settings) as worker:
        first = {user: await worker.ask(user_id=user, limit=10) for user in (treated, unruled, control)}
        proposed = {user: {source for item in first[user]["items"] for source in item["sources"]} for user in first}
        assert set() < proposed[treated] <= {"collaborative", "popularity", "preference"}
        assert {"two_tower", "content"} <= proposed[control]
        for user in (unruled, control):
            await worker.remembered(user, 1)
        again = {user: await worker.slate(user_id=user, limit=10) for user in (unruled, control)}
        same = {user: again[user] == [item["item_id"] for item in first[user]["items"]] for user in again}
        assert same == {unruled: True, control: False}  # only an arm without rules forgets what it has shown

        event = {"event_id": uuid4().hex, "user_id": treated, "item_id": "item-03", "kind": "play"}
        taken = await worker.client.post("/v1/events", json={"events": [event]})
        assert taken.status_code == 202
        shards = worker.settings.event_shards
        stream = streams(shards)[shard_of(treated, shards)]
        client: Any = worker.serving.process.redis  # its types know both kinds of client
        held = [decode(fields[FIELD]) for _, fields in await client.xrange(stream)]
        (logged,) = [event.arms for event in held if event.user_id == treated]
        assert logged == {"rules": CONTROL, "sources": "lonely"}
