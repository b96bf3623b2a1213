"""One server and one browser for the browser tests."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Error, Page, sync_playwright

from tests.e2e.browsers import FLAGS, MISSING, find_browser
from tests.e2e.serving import serving

STEP_LIMIT_MS = 60_000  # of one step of the browser, on a busy machine


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
def serve_arguments() -> list[str]:
    """What `worldline serve` is started with."""
    return ["--model", "pocket", "--seats", "1", "--seat-wait", "3"]


@pytest.fixture(scope="module")
def address(chromium_path: Path, serve_arguments: list[str]) -> Generator[str]:
    """The address of a ready server; not started when there is no browser to use it."""
    with serving(serve_arguments) as address:
        yield address


@pytest.fixture
def complaints() -> list[str]:
    """Console errors, warnings and uncaught exceptions of the test's pages; checked by the test."""
    return []


@pytest.fixture
def page(browser: Browser, address: str, complaints: list[str]) -> Generator[Page]:
    """The start screen, with the gallery loaded and the server ready."""
    context = browser.new_context(viewport={"width": 1280, "height": 768})
    context.set_default_timeout(STEP_LIMIT_MS)
    page = context.new_page()
    listen(page, complaints)
    page.goto(address)
    page.wait_for_selector(".server.ready")
    yield page
    try:
        context.close()
    except Error as error:  # the browser died: the test has failed already and says why
        complaints.append(str(error))


def listen(page: Page, complaints: list[str]) -> None:
    """Collect what the page complains about."""

    def console(kind: str, text: str) -> None:
        if kind in ("error", "warning"):
            complaints.append(f"{kind}: {text}")

    page.on("console", lambda message: console(message.type, message.text))
    page.on("pageerror", lambda error: complaints.append(f"exception: {error}"))
