"""What a user of the service sees, through its public doors, with every part real."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import signal
from collections import Counter
from pathlib import Path
from typing import cast

import grpc
import httpx
import pytest
import redis

from features import layout
from features.contract import CONTRACT
from release.bundle import Bundle, replace_tables
from tests.e2e.conftest import Service, eventually, start, stop

USERS = ("1", "15", "42", "73", "213", "547")


def seen_by(bundle: Bundle, user_id: str) -> set[str]:
    users, items = bundle.tables.users, bundle.tables.items
    return {items.ids.text(row) for row in users.history(users.ids.row(user_id)).item_row}


@pytest.mark.parametrize("user_id", USERS)
def test_a_known_user_gets_20_distinct_unseen_titled_items_at_full(
    service: Service, trained_bundle: Bundle, user_id: str
) -> None:
    answer = service.ask_at_full(user_id=user_id)
    ids = [item["item_id"] for item in answer["items"]]
    assert answer["degradation"] == {"level": "FULL", "reasons": []}
    assert len(ids) == len(set(ids)) == 20
    assert not set(ids) & seen_by(trained_bundle, user_id)
    assert all(item["title"] for item in answer["items"])
    assert answer["debug"]["ranked"] == 500


def test_all_four_sources_are_at_work_over_a_few_users(service: Service) -> None:
    by = Counter(
        source for user in USERS for item in service.ask_at_full(user_id=user)["items"] for source in item["sources"]
    )
    assert set(by) == {"two_tower", "collaborative", "content", "popularity", "preference"}


def test_users_get_slates_of_their_own(service: Service) -> None:
    slates = {tuple(item["item_id"] for item in service.ask(user_id=user)["items"]) for user in USERS}
    assert len(slates) == len(USERS)


def test_a_late_batch_is_stale_features_kept_until_they_are_too_old(service: Service, trained_bundle: Bundle) -> None:
    """The row is rewritten in the real Redis with an older watermark, as a batch step that did not run leaves it."""
    user, tables = "73", trained_bundle.tables
    key = layout.row_key(layout.project_name(CONTRACT, tables.items.genre_names), user)
    watermark, count = layout.batch_fields(CONTRACT)[0], CONTRACT.user.features[0].name
    limit, too_old = CONTRACT.user.features[0].freshness_seconds, CONTRACT.user.features[0].max_age_seconds
    with redis.Redis(port=int(service.environ["STREAMREC_REDIS_PORT"])) as client:
        written = cast("bytes", client.hget(key, watermark))
        now = layout.decode_time(written)
        try:
            for age, expired in ((2 * limit, 0.0), (too_old + limit, 1.0)):
                before = expired_total(service, count)
                client.hset(key, mapping={watermark: layout.encode_time(now - age)})
                answer = service.ask(user_id=user)
                assert answer["degradation"] == {"level": "STALE_FEATURES", "reasons": ["features.stale"]}
                assert len(answer["items"]) == 20
                assert expired_total(service, count) - before == expired
        finally:
            client.hset(key, mapping={watermark: written})
    assert service.ask_at_full(user_id=user)["degradation"]["reasons"] == []


def expired_total(service: Service, feature: str) -> float:
    """How often the feature's value was past its maximum age, so that its default served."""
    text = httpx.get(f"{service.address}/metrics", timeout=10).text
    labels = rf'feature="{feature}",reason="expired"'
    return sum(map(float, re.findall(rf"^streamrec_feature_problems_total\{{{labels}\}} (\S+)", text, re.MULTILINE)))


def test_an_unknown_user_is_a_cold_start_not_an_error(service: Service) -> None:
    answer = service.ask_at_full(user_id="nobody has this id")
    assert answer["degradation"] == {"level": "FULL", "reasons": ["cold_start"]}
    assert len(answer["items"]) == 20


def test_recent_items_alone_steer_the_slate(service: Service, trained_bundle: Bundle) -> None:
    toy_story_and_kin = ["1", "2355", "3114"]  # Toy Story, A Bug's Life, Toy Story 2
    answer = service.ask(recent_item_ids=toy_story_and_kin)
    ids = {item["item_id"] for item in answer["items"]}
    assert not ids & set(toy_story_and_kin)
    items = trained_bundle.tables.items
    animation = items.genre_names.index("Animation")
    share = items.genres[items.ids.rows(sorted(ids)), animation].mean()
    stranger = service.ask(user_id="nobody has this id")
    without = items.genres[items.ids.rows([item["item_id"] for item in stranger["items"]]), animation].mean()
    assert share > without


def test_grpc_gives_the_same_slate_as_http(service: Service) -> None:
    from app.proto.streamrec.v1 import recommender_pb2 as proto

    with grpc.insecure_channel(service.grpc_address) as channel:
        ask = channel.unary_unary(
            "/streamrec.v1.Recommender/Recommend",
            request_serializer=proto.RecommendRequest.SerializeToString,
            response_deserializer=proto.RecommendResponse.FromString,
        )

        def same() -> bool:
            answer = ask(proto.RecommendRequest(user_id="42", limit=20), timeout=5)
            over_http = service.ask(user_id="42")["items"]
            return [item.item_id for item in answer.items] == [item["item_id"] for item in over_http]

        eventually(same, seconds=10)  # one of the two may have been late and at another level


def test_metrics_count_every_request_once_over_all_workers(service: Service) -> None:
    def counted() -> float:
        series = re.compile(r'^streamrec_requests_total\{.*transport="http"\} (\S+)', re.MULTILINE)
        return sum(map(float, series.findall(httpx.get(f"{service.address}/metrics").text)))

    async def ask_many() -> None:
        alone = httpx.Limits(max_keepalive_connections=0)  # a connection a request, so that both workers get some
        async with httpx.AsyncClient(base_url=service.address, limits=alone) as client:
            for _ in range(25):
                await asyncio.gather(*(client.get("/v1/recommendations/42") for _ in range(2)))

    before = counted()
    asyncio.run(ask_many())
    assert counted() - before == 50


def test_the_command_line_shows_titles_sources_and_health(service: Service) -> None:
    shown = service.run("recommend", "42", "--limit", "5")
    assert shown.returncode == 0, shown.stderr
    assert "collaborative" in shown.stdout
    assert service.run("health").returncode == 0
    bundle = service.run("bundle", "show")
    assert bundle.returncode == 0, bundle.stderr
    assert "movielens-small" in bundle.stdout


@pytest.mark.parametrize(
    ("port", "level"), [("STREAMREC_TRITON_GRPC_PORT", "SIMPLE_RANKING"), ("STREAMREC_REDIS_PORT", "STALE_FEATURES")]
)
def test_killing_a_part_changes_the_level_never_the_status_and_full_returns(
    service: Service, port: str, level: str
) -> None:
    os.kill(service.pid_of(port), signal.SIGKILL)
    assert service.level() == level
    eventually(lambda: service.level() == "FULL", seconds=60)


def test_a_new_bundle_under_traffic_fails_nothing_and_mixes_nothing(
    service: Service, trained_bundle: Bundle, tmp_path: Path
) -> None:
    # The new bundle knows other titles: an answer made from both would show one under the wrong name.
    new = retitled(trained_bundle, tmp_path / "new")
    wrong: list[str] = []
    seen: Counter[str] = Counter()

    async def traffic(until: asyncio.Event) -> None:
        async with httpx.AsyncClient(base_url=service.address, timeout=5) as client:
            while not until.is_set():
                response = await client.get(f"/v1/recommendations/{USERS[sum(seen.values()) % len(USERS)]}")
                answer = response.json() if response.status_code == 200 else {}
                seen[answer.get("bundle", "failed")] += 1
                titles = {item["title"].startswith("New ") for item in answer.get("items", [])}
                if response.status_code != 200:
                    wrong.append(response.text[:300])
                # A machine busy with publishing may be late now and then; the swap itself must cost nothing.
                reasons = answer.get("degradation", {}).get("reasons", [])
                wrong.extend(
                    reason for reason in reasons if not reason.endswith((".timeout", ".near", ".shed", "narrowed"))
                )
                if titles != {answer.get("bundle") == new.version}:
                    wrong.append(f"mixed titles in {answer.get('bundle')}")
                await asyncio.sleep(0.01)

    async def publish() -> None:
        done = asyncio.Event()
        asking = [asyncio.create_task(traffic(done)) for _ in range(3)]
        try:
            child = await asyncio.to_thread(service.run, "publish", str(new.path))
            assert child.returncode == 0, child.stdout + child.stderr
            await asyncio.sleep(1.0)
        finally:
            done.set()
            await asyncio.gather(*asking)

    asyncio.run(publish())
    assert not wrong
    assert set(seen) == {trained_bundle.version, new.version}
    assert service.ask(user_id="42")["bundle"] == new.version


def retitled(bundle: Bundle, folder: Path) -> Bundle:
    """The same models under other titles: another bundle, made in a second."""
    from dataclasses import replace

    from domain.catalogue import TextTable

    items = bundle.tables.items
    titles = TextTable.of(f"New {items.titles.text(row)}" for row in range(len(items)))
    return replace_tables(bundle, folder, items=replace(items, titles=titles))


def test_sigterm_stops_every_child_and_frees_every_port(
    trained_bundle: Bundle, tmp_path: Path, free_port, triton_venv: Path
) -> None:
    from tests.e2e.conftest import _place

    home = tmp_path / "home"
    home.mkdir()
    shutil.copytree(trained_bundle.path, home / "bundle")
    _place(home / "bundle", home)
    service = start(home, free_port, triton_venv)
    ports = [name for name in service.environ if re.fullmatch("STREAMREC_.*_PORT", name)]
    pids = {service.pid_of(port) for port in ports}
    assert len(pids) >= 3
    assert stop(service) == 0
    for pid in pids:
        assert not Path(f"/proc/{pid}").exists()
    for port in ports:
        with pytest.raises(AssertionError, match="nobody listens"):
            service.pid_of(port)


def test_a_port_already_taken_is_said_in_one_line(service: Service, tmp_path: Path) -> None:
    other = Service(service.process, {**service.environ, "STREAMREC_HOME": str(tmp_path)}, tmp_path)
    refused = other.run("serve", seconds=30)
    assert refused.returncode == 2
    assert service.environ["STREAMREC_HTTP_PORT"] in refused.stderr
    assert "STREAMREC_HTTP_PORT" in refused.stderr
    assert "Traceback" not in refused.stderr
