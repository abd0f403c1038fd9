"""Headless Chromium in front of the real service (`make page`). Only a complaint that a test names is forgiven."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.e2e.conftest import Service, service, trained_bundle

__all__ = ["service", "trained_bundle"]

DESK, PHONE = {"width": 1360, "height": 900}, {"width": 375, "height": 812}
Open = Callable[..., Page]


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--shots", type=Path, help="where screenshots are put, for example docs/img")


@pytest.fixture
def shots(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    given: Path | None = request.config.getoption("--shots")
    return given or tmp_path


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Debian's: `make page` says so where it is missing."""
    with sync_playwright() as playwright:
        options = ["--no-sandbox"] if os.geteuid() == 0 else []
        browser = playwright.chromium.launch(executable_path=shutil.which("chromium"), args=options)
        yield browser
        browser.close()


@pytest.fixture
def open_page(browser: Browser, service: Service) -> Iterator[Open]:
    """Opens an address of the service. At the end the console must be empty, and nobody else have been asked."""
    complaints: list[str] = []

    def complain(what: str, counts: bool) -> None:
        complaints.extend([what] if counts else [])

    def opened(address: str = "/", *, forgiven: str = "", scripts: tuple[str, ...] = (), **options: Any) -> Page:
        context = browser.new_context(**{"viewport": DESK, "base_url": service.address, **options})
        closing.callback(context.close)
        for script in scripts:
            context.add_init_script(script)
        page = context.new_page()
        page.on("console", lambda said: complain(said.text, not forgiven or forgiven not in said.text))
        page.on("pageerror", lambda error: complain(str(error), True))
        page.on("request", lambda asked: complain(asked.url, not asked.url.startswith(service.address)))
        page.goto(address)
        page.locator(".item").first.wait_for()
        return page

    with ExitStack() as closing:
        yield opened
    assert not complaints
