"""`play WORLD.wl`: the page's address with #world walks into the server's file, and back out."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests import worlds
from tests.e2e.conftest import Visit
from tests.e2e.scripted import Scripted
from worldline.core.live import client
from worldline.core.worldfile import read_world

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

FILE = worlds.walked().encode()


def offer(page: Page) -> None:
    """Let the page's server have a world file."""
    page.route("**/v1/world.wl", lambda route: route.fulfill(body=FILE))


def test_the_servers_world_is_walked_into(
    visit: Visit, page_address: str, complaints: list[str]
) -> None:
    page = visit()
    scripted = Scripted(page)
    offer(page)
    page.goto(f"{page_address}#world")
    enter = scripted.await_message(client.Enter)
    assert enter.world is not None and read_world(enter.world) == worlds.walked().file()
    assert (enter.image, enter.prompt, enter.at_end) == (b"", "", False)
    scripted.open()
    page.wait_for_selector("canvas.view[data-number]")
    page.wait_for_selector(".stage.live.shown")
    page.reload()  # the same world again, not another one of the same file
    scripted.await_message(client.Rejoin)
    assert sum(isinstance(message, client.Enter) for message in scripted.heard) == 1
    assert complaints == []


def test_a_server_without_one_says_so(visit: Visit, page_address: str) -> None:
    page = visit()
    page.goto(f"{page_address}#world")
    page.wait_for_selector("[role=alert]:has-text('no world to walk into')")
    assert page.locator(".stage").count() == 0
