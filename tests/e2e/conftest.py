"""Servers and browsers of the browser tests: a real server, or the page and a scripted one."""

from __future__ import annotations

from collections.abc import Callable, Generator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, BrowserContext, Error, Page, sync_playwright

from tests.e2e.browsers import FLAGS, MISSING, find_browser
from tests.e2e.scripted import page_server
from tests.e2e.serving import serving

STEP_LIMIT_MS = 120_000  # of one step of the browser, on a busy machine
DESKTOP: dict[str, Any] = {"viewport": {"width": 1280, "height": 768}}
PHONE: dict[str, Any] = {
    "viewport": {"width": 390, "height": 844},
    "is_mobile": True,
    "has_touch": True,
}

Visit = Callable[..., Page]


@pytest.fixture(scope="session")
def chromium_path() -> Path:
    """The browser to drive; skips without one."""
    found = find_browser()
    return pytest.skip(MISSING) if found is None else found


@pytest.fixture(scope="module")
def browser(chromium_path: Path) -> Generator[Browser]:
    """A headless Chromium; gone with its module, for Playwright's event loop bars any other."""
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=chromium_path, args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture(scope="session")
def serve_arguments(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    """What `worldline serve` is started with: a browser on a busy machine looks idle for long."""
    settings = tmp_path_factory.mktemp("serve") / "server.toml"
    settings.write_text("seats = 2\nidle_lease_s = 0\n", encoding="utf-8")
    return ["--model", "pocket", "--config", str(settings)]


@pytest.fixture(scope="module")
def address(chromium_path: Path, serve_arguments: list[str]) -> Generator[str]:
    """The address of a ready server; not started when there is no browser to use it."""
    with serving(serve_arguments) as address:
        yield address


@pytest.fixture(scope="module")
def page_address(chromium_path: Path) -> Generator[str]:
    """The address of the page and its gallery, without a model behind."""
    with page_server() as address:
        yield address


@pytest.fixture
def complaints() -> list[str]:
    """Console errors, warnings and uncaught exceptions of the test's pages; checked by the test."""
    return []


@pytest.fixture
def visit(browser: Browser, complaints: list[str]) -> Generator[Visit]:
    """Opens pages, each in a browser context of its own: `visit()`, `visit(**PHONE)`."""
    contexts: list[BrowserContext] = []

    def open_page(**options: Any) -> Page:
        context = browser.new_context(**(options or DESKTOP))
        context.set_default_timeout(STEP_LIMIT_MS)
        contexts.append(context)
        page = context.new_page()
        listen(page, complaints)
        return page

    yield open_page
    for context in contexts:
        try:
            for page in context.pages:
                _leave(page)
            context.close()
        except Error as error:  # the browser died: the test has failed already and says why
            complaints.append(str(error))


def _leave(page: Page) -> None:
    """End the page's world, if it has one: a world that is merely dropped keeps its seat."""
    if page.locator(".stage").count() == 0:
        return
    page.evaluate("() => window.__worldline?.world.leave()")
    page.wait_for_timeout(200)  # for the message to leave this browser


@pytest.fixture
def page(visit: Visit, address: str) -> Page:
    """The start screen of a real server, with the gallery loaded and the model warm."""
    page = visit()
    page.goto(f"{address}?probe")
    page.wait_for_selector(".server.ready")
    return page


def listen(page: Page, complaints: list[str]) -> None:
    """Collect what the page complains about."""

    def console(kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            complaints.append(f"{kind}: {text}")

    page.on("console", lambda message: console(message.type, message.text))
    page.on("pageerror", lambda error: complaints.append(f"exception: {error}"))
