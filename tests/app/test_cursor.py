"""Paging with a signed cursor: no repeats, nobody else's, not for ever, and nothing made up."""

from __future__ import annotations

import base64
import stat
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from app.cursor import HOLDS_SECONDS, MAX_SHOWN, Cursors, open_key
from domain.answer import Answer, Item
from domain.degradation import DegradationLevel
from domain.errors import InvalidRequest, StartError
from domain.request import Page, Query

NOW = 1_000_000.0


def answer(*item_ids: str, bundle: str = "b1") -> Answer:
    items = tuple(Item(item_id, "", 0.5, (), None) for item_id in item_ids)
    return Answer("r", bundle, items, DegradationLevel.FULL, (), {}, {}, 0)


@pytest.fixture
def cursors() -> Cursors:
    return Cursors(b"k" * 32, wall=lambda: NOW)


def given(cursors: Cursors, query: Query, *item_ids: str) -> str:
    cursor = cursors.after(query, answer(*item_ids))
    assert cursor is not None
    return cursor


def test_each_page_knows_all_pages_before_it(cursors: Cursors) -> None:
    query = Query("u")
    second = cursors.opened(replace(query, cursor=given(cursors, query, "1", "2")))
    third = cursors.opened(replace(query, cursor=given(cursors, second, "3")))
    assert second.page == Page(("1", "2"), "b1")
    assert third.page == Page(("1", "2", "3"), "b1")


def test_a_request_without_a_cursor_is_left_as_it_is(cursors: Cursors) -> None:
    query = Query("u")
    assert cursors.opened(query) is query


@pytest.mark.parametrize("other", ["v", None, "u\0", "=u"])
def test_nobody_elses_cursor_is_taken(cursors: Cursors, other: str | None) -> None:
    cursor = given(cursors, Query("u"), "1")
    with pytest.raises(InvalidRequest, match="cursor"):
        cursors.opened(Query(other, cursor=cursor))


def test_every_byte_of_it_is_signed(cursors: Cursors) -> None:
    whole = base64.urlsafe_b64decode(given(cursors, Query("u"), "1", "2"))
    for at in range(len(whole)):
        forged = whole[:at] + bytes([whole[at] ^ 1]) + whole[at + 1 :]
        with pytest.raises(InvalidRequest):
            cursors.opened(Query("u", cursor=base64.urlsafe_b64encode(forged).decode()))


@pytest.mark.parametrize("cursor", ["", "AAAA", "é", "not base64!", "====", "A" * 1000])
def test_what_is_none_of_ours_is_refused_and_not_repeated(cursors: Cursors, cursor: str) -> None:
    with pytest.raises(InvalidRequest) as refused:
        cursors.opened(Query("u", cursor=cursor))
    assert not cursor or cursor not in str(refused.value)


def test_a_cursor_under_another_key_or_too_old_is_refused(cursors: Cursors) -> None:
    cursor = given(cursors, Query("u"), "1")
    for later in (Cursors(b"x" * 32, wall=lambda: NOW), Cursors(b"k" * 32, wall=lambda: NOW + HOLDS_SECONDS + 1)):
        with pytest.raises(InvalidRequest):
            later.opened(Query("u", cursor=cursor))


def test_an_empty_page_and_the_end_of_what_is_ranked_have_no_cursor(cursors: Cursors) -> None:
    assert cursors.after(Query("u"), answer()) is None
    earlier = Page(tuple(str(n) for n in range(MAX_SHOWN)), "b1")
    assert cursors.after(Query("u", page=earlier), answer("another")) is None


def test_workers_that_start_at_once_share_one_key_that_only_its_owner_reads(tmp_path: Path) -> None:
    home = tmp_path / "home"
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: open_key(None, home), range(16)))
    assert len(keys) == 1
    assert stat.S_IMODE((home / "cursor.key").stat().st_mode) == 0o600
    assert [path.name for path in home.iterdir()] == ["cursor.key"]
    assert open_key("given", home) == open_key("given", tmp_path / "elsewhere") != open_key("other", home)


def test_a_key_that_was_cut_short_is_not_used(tmp_path: Path) -> None:
    (tmp_path / "cursor.key").write_bytes(b"short")
    with pytest.raises(StartError, match="no key"):
        open_key(None, tmp_path)
