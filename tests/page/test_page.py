"""The page at `/` as people meet it: with a mouse, a keyboard, a phone; by eye and by ear; when a part is dead."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from playwright.sync_api import Page, Request, Route, expect

from tests.e2e.conftest import Service, eventually
from tests.page.canned import ANSWER, BARE, DISPLACED, NEXT_PAGE, SHARP
from tests.page.conftest import PHONE, Open

pytestmark = pytest.mark.page

PATIENCE = 20_000  # milliseconds, on a machine as busy as one that runs tests
MAX_SHOT_BYTES = 300_000
INSPECT = (Path(__file__).parent / "inspect.js").read_text("utf-8")
COUNT_ANIMATIONS = """
window.animated = 0;
const animate = Element.prototype.animate;
Element.prototype.animate = function (...given) { window.animated += 1; return animate.apply(this, given); };
"""

expect.set_options(timeout=PATIENCE)


def shown_ids(page: Page) -> list[str]:
    ids: list[str] = page.locator(".item").evaluate_all("rows => rows.map(row => row.dataset.item)")
    return ids


def focused(page: Page) -> str:
    """What has the focus, in a word."""
    told: str = page.evaluate(
        """() => {
          const at = document.activeElement;
          return at.id || at.className || (at.closest('#examples') ? 'example' : at.tagName === 'SUMMARY' ? 'summary'
            : at.textContent.split(' ')[0]);
        }"""
    )
    return told


def at_full(page: Page) -> None:
    """Ask again until nothing was late."""

    def full() -> bool:
        if page.locator("#badge").inner_text() == "FULL":
            return True
        page.get_by_role("button", name="Ask again").click()
        page.wait_for_timeout(200)
        return False

    eventually(full, 90)


def told_at(page: Page, address: str, body: dict[str, Any]) -> None:
    def fulfil(route: Route) -> None:
        route.fulfill(json=body)

    page.route(f"**{address}", fulfil)


def held_at(page: Page, address: str, field: str) -> list[Route]:
    """Requests with the field in their bodies, as they come: they wait for the test to answer them."""
    held: list[Route] = []

    def hold(route: Route) -> None:
        if field in body_of(route.request):
            held.append(route)
        else:
            route.continue_()

    page.route(f"**{address}", hold)
    return held


def await_held(page: Page, held: list[Route], n: int) -> None:
    def there() -> bool:
        page.wait_for_timeout(20)
        return len(held) == n

    eventually(there, 20)


def body_of(request: Request) -> dict[str, Any]:
    body: dict[str, Any] = request.post_data_json or {}
    return body


def test_a_users_slate_is_shown_with_all_that_made_it(open_page: Open, service: Service) -> None:
    page = open_page("/?user=42")
    at_full(page)
    expect(page.locator(".item")).to_have_count(20)
    assert page.locator(".item .genres").first.inner_text().strip()
    assert page.locator(".item .source").count() >= 20
    assert page.locator("#recent li").count() == 12
    assert page.locator("#funnel tr[data-stage=ranked] .number").inner_text() == "500"
    assert {"features", "retrieval", "ranking", "total"} <= set(
        page.locator("#waterfall tr").evaluate_all("rows => rows.map(row => row.dataset.stage)")
    )
    expect(page.locator("#ladder [aria-current]")).to_contain_text("FULL")
    dependencies = httpx.get(f"{service.address}/healthz", timeout=10).json()["dependencies"]
    expect(page.locator("#parts tr")).to_have_count(len(dependencies) + 1)  # and the model
    expect(page).to_have_title("42 · StreamRec")


def test_users_are_found_by_typing_and_a_slate_can_be_linked_to(open_page: Open) -> None:
    page = open_page("/")
    page.get_by_label("User id").fill("54")
    expect(page.locator("#users option")).not_to_have_count(0)
    offered = page.locator("#users option").evaluate_all("options => options.map(option => option.value)")
    assert all(user.startswith("54") for user in offered)
    page.get_by_label("User id").fill("547")
    page.get_by_label("User id").press("Enter")
    expect(page.locator("#said")).to_contain_text("547")
    assert page.url.endswith("?user=547")
    page.get_by_role("button", name="somebody new").click()
    expect(page.locator("#reasons")).to_contain_text("cold_start")


def test_an_unknown_user_is_a_cold_start_with_nothing_recent(open_page: Open) -> None:
    page = open_page(f"/?user=nobody/{uuid4().hex} <i>")
    expect(page.locator("#reasons")).to_contain_text("cold_start nobody knows this user")
    expect(page.locator("#recent-count")).to_have_text("0 in all, not in the bundle")
    expect(page.locator(".item")).to_have_count(20)


def test_why_opens_and_closes_by_keyboard_and_the_focus_comes_back(open_page: Open) -> None:
    page = open_page("/?user=42")
    row = page.locator(".item").nth(2)
    why, region = row.get_by_role("button", name="Why ", exact=False).first, row.locator(".why")
    expect(region).to_be_hidden()
    why.focus()
    page.keyboard.press("Enter")
    expect(why).to_have_attribute("aria-expanded", "true")
    expect(region).to_contain_text("core")
    page.keyboard.press("Escape")
    expect(region).to_be_hidden()
    expect(why).to_be_focused()
    page.keyboard.press("Space")
    page.keyboard.press("Tab")
    page.keyboard.press("Enter")  # on Close
    expect(region).to_be_hidden()
    expect(why).to_have_attribute("aria-expanded", "false")
    expect(why).to_be_focused()


def test_the_keyboard_goes_through_the_page_in_its_order_and_may_skip_to_the_slate(open_page: Open) -> None:
    page = open_page("/?user=42")
    stops = []
    for _ in range(17):
        page.keyboard.press("Tab")
        stops.append(focused(page))
    order = list(dict.fromkeys(stops))
    assert order == ["skip", "user", "main", "deadline", "example", "summary", "again", "watched", "Why"]
    page.locator(".skip").focus()
    page.keyboard.press("Enter")
    page.keyboard.press("Tab")
    assert focused(page) == "again"


def test_a_watched_item_is_sent_leaves_the_slate_and_becomes_recent(open_page: Open, service: Service) -> None:
    page = open_page("/?user=15")
    at_full(page)
    before, row = shown_ids(page), page.locator(".item").nth(1)
    item, title = before[1], page.locator(".item h3").nth(1).evaluate("heading => heading.firstChild.data")
    with page.expect_request("**/v1/events") as sent:
        row.get_by_role("button", name=f"Watched {title}").press("Enter")
    (event,) = body_of(sent.value)["events"]
    assert {"user_id": "15", "item_id": item, "kind": "play"}.items() <= event.items()
    expect(page.locator("#said")).to_contain_text("counts after")
    after = shown_ids(page)
    assert item not in after
    assert len(set(after)) == 20
    expect(page.locator("#recent li").first).to_contain_text(title)
    expect(page.locator("#recent li[data-fresh=true]")).to_have_count(1)
    assert page.locator(".mark[data-kind=new]").count() >= 1
    assert focused(page) == "watched"
    assert item not in {shown["item_id"] for shown in service.ask(user_id="15")["items"]}


@pytest.mark.parametrize("motion", ["reduce", "no-preference"])
def test_rows_glide_unless_less_motion_is_wanted(open_page: Open, motion: str) -> None:
    user = f"mover-{uuid4().hex}"
    page = open_page(f"/?user={user}", scripts=(COUNT_ANIMATIONS,), reduced_motion=motion)
    page.locator(".item .watched").first.click()
    expect(page.locator("#said")).to_contain_text("counts after")
    assert (page.evaluate("window.animated") > 0) == (motion == "no-preference")


@pytest.mark.parametrize(
    ("port", "part", "level"),
    [
        ("STREAMREC_TRITON_GRPC_PORT", "ranking", "SIMPLE RANKING"),
        ("STREAMREC_REDIS_PORT", "features", "STALE FEATURES"),
    ],
)
def test_a_dead_part_is_seen_in_level_reasons_and_dependencies_until_it_is_back(
    open_page: Open, service: Service, port: str, part: str, level: str
) -> None:
    page = open_page("/?user=42")
    at_full(page)
    expect(page.locator(f"#parts tr[data-part={part}] .state")).to_have_attribute("data-good", "true")
    os.kill(service.pid_of(port), signal.SIGKILL)
    page.get_by_role("button", name="Ask again").click()
    expect(page.locator("#badge")).to_have_text(level)
    expect(page.locator("#ladder [aria-current]")).to_contain_text(level)
    expect(page.locator("#reasons")).to_contain_text(f"{part}.")
    expect(page.locator(f"#parts tr[data-part={part}] .state")).to_have_attribute("data-good", "false")
    expect(page.locator(".item")).to_have_count(20)
    assert page.evaluate(INSPECT) == []
    at_full(page)
    expect(page.locator(f"#parts tr[data-part={part}] .state")).to_have_attribute("data-good", "true")
    eventually(lambda: service.level() == "FULL", 60)  # the other worker, too


def test_a_deadline_that_is_too_short_shows_the_list(open_page: Open) -> None:
    page = open_page("/?user=42")
    page.get_by_label("Deadline in ms").fill("15")
    page.get_by_role("button", name="Ask again").click()
    expect(page.locator("#badge")).to_have_text("BATCH LIST")
    expect(page.locator("#seen-here")).to_contain_text("The deadline was 15 ms.")


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [320, 375, 800, 1360])
def test_labels_landmarks_contrast_and_width_hold_everywhere(open_page: Open, scheme: str, width: int) -> None:
    page = open_page("/?user=42", viewport={"width": width, "height": 800}, color_scheme=scheme)
    page.locator("#parts tr").first.wait_for()
    page.locator(".item").nth(1).get_by_role("button", name="Why ").click()
    assert page.evaluate(INSPECT) == []


def test_the_way_of_an_item_is_told_step_by_step(open_page: Open) -> None:
    page = open_page("/?user=42")
    told_at(page, "/v1/recommendations", ANSWER)
    page.get_by_role("button", name="Ask again").click()
    first = page.locator(".item").first
    expect(first.locator("h3")).to_contain_text(SHARP)
    assert page.locator(".item img, .item b").count() == 0
    first.get_by_role("button", name="Why ").click()
    expect(first.locator(".why")).to_contain_text("Shown at place 1.")
    expect(first.locator(".why tbody tr").first).to_have_text("two tower5th0.810")
    steps = ["Ranked 7th of 393, score 0.830", "memory 7 → 3", "diversity 3 → 1"]
    expect(first.locator(".way li")).to_have_text(steps)
    expect(first.locator(".by .rule")).to_contain_text("diversity")
    stages = page.locator("#funnel tr").evaluate_all("rows => rows.map(row => row.children[1].textContent)")
    assert stages == ["300", "120", "402", "390", "3", "393", "2"]
    expect(page.locator("#reasons li")).to_have_text(
        ["content.timeout no answer in the time allowed", "something.new "]
    )
    expect(page.locator("#parts tr[data-part=content] .state")).to_have_text("timeout")


def test_a_slate_goes_on_by_its_cursor(open_page: Open) -> None:
    page = open_page("/?user=42")
    told_at(page, "/v1/recommendations", ANSWER)
    page.get_by_role("button", name="Ask again").click()
    page.unroute_all()
    told_at(page, "/v1/recommendations", NEXT_PAGE)
    with page.expect_request("**/v1/recommendations") as asked:
        page.get_by_role("button", name="Next page").click()
    assert body_of(asked.value)["cursor"] == "next"
    expect(page.locator(".item h3")).to_have_count(3)
    expect(page.locator(".item .place")).to_have_text(["1", "2", "3"])
    expect(page.get_by_role("button", name="Next page")).to_be_hidden()
    expect(page.get_by_role("button", name="Watched Ronin")).to_be_focused()


def test_the_next_page_is_added_once_and_to_nobody_elses_slate(open_page: Open) -> None:
    page = open_page("/?user=42")
    told_at(page, "/v1/recommendations", ANSWER)
    page.get_by_role("button", name="Ask again").click()
    expect(page.locator(".item")).to_have_count(2)
    page.unroute_all()
    held = held_at(page, "/v1/recommendations", "cursor")
    more = page.get_by_role("button", name="Next page")
    more.dblclick()
    expect(more).to_be_disabled()
    assert len(held) == 1
    held[0].fulfill(json=NEXT_PAGE | {"cursor": "after"})
    expect(page.locator(".item")).to_have_count(3)
    more.click()
    await_held(page, held, 2)
    page.get_by_label("User id").fill("547")
    page.get_by_label("User id").press("Enter")
    expect(page.locator("#said")).to_contain_text("547")
    before = shown_ids(page)
    with page.expect_response("**/v1/recommendations"):
        held[1].fulfill(json=NEXT_PAGE)
    expect(more).to_be_enabled()
    assert shown_ids(page) == before


def test_an_answer_about_an_item_is_not_told_of_the_next_user(open_page: Open) -> None:
    page = open_page("/?user=42")
    held = held_at(page, "/v1/why", "item_id")
    page.get_by_label("Item id").fill("r")
    page.get_by_label("Item id").press("Enter")
    await_held(page, held, 1)
    page.get_by_label("User id").fill("547")
    page.get_by_label("User id").press("Enter")
    expect(page.locator("#said")).to_contain_text("547")
    with page.expect_response("**/v1/why"):
        held[0].fulfill(json=DISPLACED)
    page.evaluate("new Promise((resolve) => setTimeout(resolve))")
    expect(page.locator("#asked")).to_be_hidden()


def test_each_source_has_a_colour_of_its_own(open_page: Open, service: Service) -> None:
    page = open_page("/?user=42")
    names = httpx.get(f"{service.address}/healthz", timeout=10).json()["sources"]
    colours = page.evaluate(
        """names => names.map(name => {
          const source = document.body.appendChild(document.createElement('span'));
          source.className = 'source';
          source.dataset.source = name;
          return getComputedStyle(source, '::before').backgroundColor;
        })""",
        [*names, "of no name"],
    )
    assert len(set(colours)) == len(names) + 1


def test_why_not_tells_where_an_item_fell_out(open_page: Open) -> None:
    page = open_page("/?user=42")
    told_at(page, "/v1/why", DISPLACED)
    page.get_by_label("Item id").fill("r")
    with page.expect_request("**/v1/why") as asked:
        page.get_by_label("Item id").press("Enter")
    assert body_of(asked.value) == {"user_id": "42", "item_id": "r"}
    expect(page.locator("#asked")).to_contain_text("moved out of the slate by the rule diversity")


def test_an_answer_without_all_that_may_be_left_out_is_shown_too(open_page: Open) -> None:
    page = open_page("/?user=42")
    told_at(page, "/v1/recommendations", BARE)
    told_at(page, "/healthz", {"ready": True})
    page.get_by_role("button", name="Ask again").click()
    expect(page.locator(".item")).to_have_count(2)
    page.get_by_role("button", name="Why Heat").click()
    expect(page.locator(".why:visible")).to_contain_text("From a precomputed list. Score 0.500.")


def test_where_keys_are_needed_the_page_asks_for_one(open_page: Open) -> None:
    page = open_page("/?user=42", forgiven="401")

    def doorkeeper(route: Route) -> None:
        if route.request.headers.get("authorization") == "Bearer shop.secret":
            route.continue_()
        else:
            route.fulfill(status=401, json={"title": "Unauthorized", "detail": "an API key is needed"})

    page.route("**/v1/**", doorkeeper)
    page.get_by_role("button", name="Ask again").click()
    expect(page.locator("#said")).to_have_text("Not shown: an API key is needed.")
    expect(page.get_by_label("API key")).to_be_focused()
    page.get_by_label("API key").fill("shop.secret")
    page.keyboard.press("Enter")
    expect(page.locator("#said")).to_contain_text("20 items for user 42")
    expect(page.get_by_label("API key")).to_be_hidden()


def test_screens(open_page: Open, shots: Path) -> None:
    """Kept in docs/img by `--shots docs/img`."""
    shots.mkdir(parents=True, exist_ok=True)
    screens: dict[str, dict[str, Any]] = {
        "page": {},
        "page-dark": {"color_scheme": "dark"},
        "page-phone": {"viewport": PHONE, "device_scale_factor": 2},
    }
    for name, options in screens.items():
        page = open_page("/?user=42", reduced_motion="reduce", **options)
        page.locator("#parts tr").first.wait_for()
        at_full(page)
        first = page.locator(".item").first
        first.get_by_role("button", name="Why ").click()
        expect(first.locator(".why")).to_contain_text("core")
        page.evaluate("scrollTo(0, 0)")
        path = shots / f"{name}.png"
        page.screenshot(path=path)
        assert path.stat().st_size < MAX_SHOT_BYTES
