"""Doors against a real browser: what a page from elsewhere can do, and how ours shows a token."""

from __future__ import annotations

from collections.abc import Generator
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page

from tests.e2e.browsers import FLAGS
from tests.e2e.pages import one_page
from tests.server.doors.exposed import exposed
from tests.server.doors.knocking import LIVE, MAINLINE, VISITOR

pytestmark = pytest.mark.browser

# Opens a socket, says `first` (bytes) when it is open; what became of it.
KNOCK = """([url, protocols, first]) => new Promise(resolve => {
  const socket = new WebSocket(url, protocols);
  const seen = {opened: false, protocol: null, bytes: 0, code: null};
  socket.binaryType = "arraybuffer";
  socket.onopen = () => {
    seen.opened = true;
    seen.protocol = socket.protocol;
    if (first) socket.send(new Uint8Array(first));
  };
  socket.onmessage = ({data}) => {
    seen.bytes += data.byteLength;
    if (first) socket.close(1000);
  };
  socket.onclose = ({code}) => resolve({...seen, code});
})"""
FETCH = "url => fetch(url).then(reply => reply.status, () => 'refused')"
HELLO = list(b"\x81\xa4type\xa5hello")


@pytest.fixture
def elsewhere() -> Generator[str]:
    """The origin of a page that is not ours."""
    with one_page(b"<title>elsewhere</title>") as origin:
        yield origin


@pytest.fixture
def page(browser: Browser) -> Generator[Page]:
    context = browser.new_context()
    yield context.new_page()
    context.close()


def knock(page: Page, port: int, path: str, *protocols: str, first: Any = None) -> dict[str, Any]:
    return page.evaluate(KNOCK, [f"ws://127.0.0.1:{port}{path}", list(protocols), first])


def test_a_page_from_elsewhere_reaches_nothing_of_a_loopback_server(
    page: Page, elsewhere: str
) -> None:
    with exposed(keys=False) as server:
        page.goto(elsewhere)
        assert page.evaluate(FETCH, f"http://127.0.0.1:{server.port}/v1/models") == "refused"
        assert knock(page, server.port, MAINLINE)["opened"] is False
        told = knock(page, server.port, LIVE, "worldline.v1")
        assert (told["code"], told["bytes"] > 0) == (4403, True)
        page.goto(f"http://127.0.0.1:{server.port}/healthz")  # the server's own origin
        assert page.evaluate(FETCH, f"http://127.0.0.1:{server.port}/v1/models") == 200
        ours = knock(page, server.port, LIVE, "worldline.v1", first=HELLO)
        assert (ours["protocol"], ours["bytes"] > 0) == ("worldline.v1", True)


def test_a_page_that_is_allowed_reaches_it(page: Page, elsewhere: str) -> None:
    with exposed(keys=False, allow_origins=(elsewhere,)) as server:
        page.goto(elsewhere)
        assert page.evaluate(FETCH, f"http://127.0.0.1:{server.port}/v1/models") == 200
        assert knock(page, server.port, LIVE, "worldline.v1", first=HELLO)["bytes"] > 0


def test_a_name_that_is_pointed_at_this_machine_does_not(
    browser: Browser, chromium_path: Path
) -> None:
    rules = "--host-resolver-rules=MAP rebound.example 127.0.0.1"
    rebound = browser.browser_type.launch(executable_path=chromium_path, args=[*FLAGS, rules])
    try:
        with exposed(keys=False) as server:
            page = rebound.new_page()
            url = f"http://rebound.example:{server.port}"
            reply = page.goto(url)
            assert reply is not None and reply.status == 403
            assert page.evaluate(FETCH, f"{url}/metrics") == 403
            opened = page.evaluate(KNOCK, [f"ws://rebound.example:{server.port}{LIVE}", [], None])
            assert opened["code"] == 4403
    finally:
        rebound.close()


def test_a_page_shows_its_token_and_gets_one_sub_protocol_back(page: Page) -> None:
    with exposed() as server:
        page.goto(f"http://127.0.0.1:{server.port}/healthz")
        offered = ("worldline.v1", f"bearer.{VISITOR}")
        ours = knock(page, server.port, LIVE, *offered, first=HELLO)
        assert (ours["protocol"], ours["bytes"] > 0, ours["code"]) == ("worldline.v1", True, 1000)
        wrong = knock(page, server.port, LIVE, "worldline.v1", f"bearer.{VISITOR}x")
        assert (wrong["opened"], wrong["code"]) == (True, 4401)
        without = knock(page, server.port, LIVE, "worldline.v1", first=HELLO)
        assert without["protocol"] == "worldline.v1"
        assert page.evaluate(FETCH, f"http://127.0.0.1:{server.port}/v1/models") == 401


def test_our_page_asks_for_the_key_and_walks_with_it(page: Page) -> None:
    with exposed() as server:
        page.goto(f"http://127.0.0.1:{server.port}/")
        page.get_by_role("button", name="Enter").first.click()
        page.get_by_role("button", name="Give the key").click()
        dialog = page.get_by_role("dialog")
        dialog.locator("input").fill(VISITOR)
        dialog.get_by_role("button", name="Use this key").click()
        page.get_by_role("button", name="Leave", exact=False).first.wait_for()
        page.keyboard.press("g")
        page.locator(".details").get_by_text("fake", exact=True).wait_for()  # the model's name
        assert VISITOR not in page.url
        assert page.evaluate("() => document.cookie") == ""
