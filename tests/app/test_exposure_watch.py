"""The serving side of the exposure ledger: bounded, off the request path, added up over workers."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest
import redis.asyncio as aioredis

from app import metrics
from app.beside.exposure_watch import ExposureWatch, Shelf, keep_counting
from app.cli import main
from app.removals import remove_items, without
from domain.answer import Answer, Item
from domain.catalogue import IdTable
from domain.degradation import DegradationLevel
from domain.errors import DependencyError
from domain.slate import Campaign
from features.online import connect
from monitoring.exposure import FEW_PLACES, FIELDS_AT_ONCE, read_counts, report
from release.bundle import Bundle
from reranking.ledger import CAMPAIGNS_KEY, DAY, items_key

FAR_FUTURE = 4_000_000_000.0


class Wall:
    """A day that no other test counts into."""

    days = 30_000

    def __init__(self) -> None:
        Wall.days += 20
        self.now = Wall.days * DAY

    def __call__(self) -> float:
        return self.now


@pytest.fixture
async def client(redis_url: str):
    client = connect(redis_url)
    yield client
    await client.aclose()


def shelf_of(bundle: Bundle, promised: float = 0.05) -> Shelf:
    return Shelf.of(bundle.tables.items, ("genre",), promised)


def answer(*rows: int, campaign: str | None = None) -> Answer:
    items = tuple(Item(f"item-{row:02d}", "", 0.5, (), "diversity") for row in rows)
    return Answer(
        "r", "b", items, DegradationLevel.FULL, (), {}, {}, 0, promoted={campaign: len(rows)} if campaign else {}
    )


async def test_slates_of_all_workers_add_up_by_item_and_in_all(client: aioredis.Redis, tiny_bundle: Bundle) -> None:
    wall, shelf = Wall(), shelf_of(tiny_bundle)
    for worker in (ExposureWatch(wall), ExposureWatch(wall)):
        worker.saw("u", answer(1, 2, 3))
        worker.saw(None, answer(1, 4))
        await worker.flush(client, shelf)
    counted = await read_counts(client, tiny_bundle.tables.items.ids, int(wall() // DAY))
    assert counted.shown[[1, 2, 3, 4, 5]].tolist() == [4, 2, 2, 2, 0]
    assert (counted.totals.slates, counted.totals.places) == (4, 10)


async def test_only_the_last_seven_days_count(client: aioredis.Redis, tiny_bundle: Bundle) -> None:
    wall, shelf = Wall(), shelf_of(tiny_bundle)
    watch = ExposureWatch(wall)
    for row in (1, 2):
        watch.saw("u", answer(row))
        await watch.flush(client, shelf)
        wall.now += 6 * DAY
    counted = await read_counts(client, tiny_bundle.tables.items.ids, int(wall() // DAY) - 5)
    assert counted.shown[[1, 2]].tolist() == [0, 1]


async def test_a_large_ledger_is_read_in_parts_and_decoded_beside_the_event_loop(client: aioredis.Redis) -> None:
    n, day = 3 * FIELDS_AT_ONCE, int(Wall()() // DAY)
    ids, asked = IdTable.of(f"item-{row:05d}" for row in range(n)), []

    class Watched:
        def __len__(self) -> int:
            return n

        def rows(self, wanted):
            asked.append((threading.get_ident(), len(wanted)))
            return ids.rows(wanted)

    await client.hset(items_key(day), mapping={f"item-{row:05d}": row + 1 for row in range(n)})
    counted = await read_counts(client, Watched(), day)  # type: ignore[arg-type]
    await client.delete(items_key(day))
    assert counted.shown.tolist() == list(range(1, n + 1))
    assert threading.get_ident() not in {thread for thread, _ in asked}
    assert max(size for _, size in asked) < 2 * FIELDS_AT_ONCE


async def test_a_full_queue_drops_and_counts_what_it_drops(client: aioredis.Redis, tiny_bundle: Bundle) -> None:
    wall, shelf = Wall(), shelf_of(tiny_bundle)
    watch = ExposureWatch(wall, size=2)
    for row in range(5):
        watch.saw("u", answer(row))
    assert watch.dropped == 3
    await watch.flush(client, shelf)
    counted = await read_counts(client, tiny_bundle.tables.items.ids, int(wall() // DAY))
    assert (counted.totals.slates, counted.totals.lost) == (2, 3)
    assert watch.dropped == 0


async def test_what_redis_does_not_take_is_told_as_lost_later(
    client: aioredis.Redis, tiny_bundle: Bundle, free_port
) -> None:
    wall, shelf = Wall(), shelf_of(tiny_bundle)
    watch = ExposureWatch(wall)
    watch.saw("u", answer(1))
    nobody = connect(f"redis://127.0.0.1:{free_port()}/0")
    with pytest.raises(DependencyError):
        await watch.flush(nobody, shelf)
    await nobody.aclose()
    await watch.flush(client, shelf)
    counted = await read_counts(client, tiny_bundle.tables.items.ids, int(wall() // DAY))
    assert (counted.totals.slates, counted.totals.lost) == (0, 1)


async def test_a_campaigns_budget_and_cap_are_counted(client: aioredis.Redis, tiny_bundle: Bundle) -> None:
    wall = Wall()
    campaign = Campaign(f"c{wall.now}", np.array([1, 2], np.int32), (0,), 0.0, FAR_FUTURE, daily_cap=1, budget=5)
    shelf, watch, campaigns = shelf_of(tiny_bundle), ExposureWatch(wall), (campaign,)
    watch.saw("u", answer(1, campaign=campaign.name))
    assert watch.spent("u", campaigns)[campaign.name].on_user_today == 1
    assert watch.spent("v", campaigns)[campaign.name].on_user_today == 0
    await watch.flush(client, shelf)
    await watch.judge(client, shelf)
    assert watch.spent("v", campaigns)[campaign.name].in_all == 1
    wall.now += DAY
    assert watch.spent("u", campaigns)[campaign.name].on_user_today == 0
    await client.hdel(CAMPAIGNS_KEY, campaign.name)


async def test_a_share_that_is_not_delivered_is_asked_for_more(client: aioredis.Redis, tiny_bundle: Bundle) -> None:
    wall, shelf = Wall(), shelf_of(tiny_bundle, promised=0.1)
    watch = ExposureWatch(wall)
    favourites = np.flatnonzero(shelf.groups.code == 0)[:5].tolist()
    shares = []
    for _ in range(3):
        for _ in range(FEW_PLACES // len(favourites) + 1):
            watch.saw("u", answer(*favourites))
        await watch.flush(client, shelf)
        await watch.judge(client, shelf)
        shares.append(shelf.quota.share)
    assert shares[0] == 0.1
    assert shares[2] > shares[1] > 0.1
    counted = await read_counts(client, tiny_bundle.tables.items.ids, int(wall() // DAY))
    told = report(counted, shelf.groups, tiny_bundle.tables.items.eligible)
    assert told.promised_ratio == pytest.approx(0.1)
    assert not told.kept


async def test_the_loop_outlives_a_redis_that_is_away_and_a_bundle_without_a_shelf(
    tiny_bundle: Bundle, free_port
) -> None:
    nobody, shelf = connect(f"redis://127.0.0.1:{free_port()}/0"), shelf_of(tiny_bundle)
    watch, slept = ExposureWatch(Wall()), 0
    bugs = metrics.BUGS.labels("exposure_watch")._value.get()

    async def sleep(_: float) -> None:
        nonlocal slept
        slept += 1
        watch.saw("u", answer(1))
        if slept == 4:
            raise EOFError

    with pytest.raises(EOFError):
        await keep_counting(watch, lambda: shelf if slept % 2 else None, nobody, sleep)
    await nobody.aclose()
    assert slept == 4
    assert metrics.BUGS.labels("exposure_watch")._value.get() == bugs


def test_the_command_and_the_metric_tell_one_week_without_what_was_removed(
    tiny_bundle: Bundle, redis_url: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    url = f"{redis_url.rpartition('/')[0]}/9"  # the week of no other test
    eligible = np.flatnonzero(tiny_bundle.tables.items.eligible)
    removed, shown = eligible[:9].tolist(), eligible[9:29].tolist()

    async def counted() -> None:
        client, shelf, watch = connect(url), shelf_of(tiny_bundle, 0.1), ExposureWatch()
        shelf.items = without(shelf.items, dict.fromkeys((f"item-{row:02d}" for row in removed), 0.0))
        for _ in range(FEW_PLACES // len(shown)):
            watch.saw("u", answer(*shown))
        await watch.flush(client, shelf)
        await watch.judge(client, shelf)
        await client.aclose()

    remove_items(url, [f"item-{row:02d}" for row in removed], 0.0)
    asyncio.run(counted())
    environ = {"STREAMREC_REDIS_URL": url, "STREAMREC_HOME": str(tmp_path), "STREAMREC_BUNDLE": str(tiny_bundle.path)}
    kept = main(["exposure"], environ) == 0
    printed, names = capsys.readouterr().out, ("promised", "delivered", "coverage", "gini")
    ratios = [metrics.REGISTRY.get_sample_value("streamrec_exposure_ratio", {"measure": name}) or 0.0 for name in names]
    assert printed.startswith(f"{FEW_PLACES // len(shown)} slates with {FEW_PLACES} places, 0 slates not counted\n")
    assert "promised {:.3f} of the places, delivered {:.3f}\ncoverage {:.3f}, Gini {:.3f}".format(*ratios) in printed
    assert ratios[2] == pytest.approx(20 / (len(eligible) - 9))
    assert kept == (ratios[1] >= 0.9 * ratios[0])
