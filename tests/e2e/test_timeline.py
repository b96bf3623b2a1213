"""The time machine on the page: back, aside, saved, brought and recovered, as a script says."""

from __future__ import annotations

from pathlib import Path

import pytest
from playwright.sync_api import FilePayload, Page

from tests import worlds
from tests.e2e.audit import findings
from tests.e2e.conftest import PHONE, Visit
from tests.e2e.scripted import WORLD, Scripted, picture
from tests.e2e.walking import drop_file, screenshot
from worldline.core.live import client, server

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

MOMENTS = 24
TURN = 3.0  # degrees between two moments
FILE = worlds.walked().encode()
SEEN = """
() => {
  const view = document.querySelector("canvas.view");
  window.__seen = [];
  const note = () => window.__seen.push(Number(view.dataset.number));
  new MutationObserver(note).observe(view, { attributeFilter: ["data-number"] });
}
"""


@pytest.fixture
def start(visit: Visit, page_address: str) -> Page:
    """The start screen."""
    return _start(visit(), page_address)


@pytest.fixture
def scripted(start: Page) -> Scripted:
    """The server that it will speak with."""
    return Scripted(start)


@pytest.fixture
def walk(start: Page, scripted: Scripted) -> Page:
    """A walk of some seconds, its timeline shown."""
    return _walk(start, scripted)


def _start(page: Page, address: str) -> Page:
    page.goto(address)
    page.wait_for_selector(".scenery img.shown")
    page.wait_for_selector(".server.ready")
    return page


def _walk(page: Page, scripted: Scripted, moments: int = MOMENTS) -> Page:
    page.click("button.enter")
    scripted.open()
    page.wait_for_selector(".stage.live.shown")
    if page.locator(".timeline").count() == 0:
        page.keyboard.press("KeyY")
    scripted.say(*(_moment(chunk) for chunk in range(moments)))
    page.wait_for_selector(f"[role=slider][aria-valuemax='{moments}']")
    return page


def _moment(chunk: int) -> server.Moment:
    view = picture(TURN * chunk)
    return server.Moment(chunk=chunk, seconds=0.75 * chunk, number=12 * chunk, picture=view)


def _point(page: Page, share: float) -> tuple[float, float]:
    """A place on the filled part of the strip."""
    first, last = page.locator(".film-strip img").first, page.locator(".film-strip img").last
    left, right = first.bounding_box(), last.bounding_box()
    assert left is not None
    assert right is not None
    x = left["x"] + share * (right["x"] + right["width"] - left["x"])
    return x, left["y"] + left["height"] / 2


def _look_back(page: Page, share: float) -> int:
    """Drag from now to a share of the strip, without letting go; the chunk that is shown."""
    x, y = _point(page, 0.99)
    page.mouse.move(x, y)
    page.mouse.down()
    page.mouse.move(*_point(page, share), steps=6)
    page.wait_for_selector(".moment img")
    return _shown(page)


def _shown(page: Page) -> int:
    return int(page.locator(".moment img").get_attribute("data-chunk") or -1)


def test_dragging_back_shows_the_moment_and_letting_go_walks_on_from_there(
    walk: Page, scripted: Scripted, complaints: list[str]
) -> None:
    chunk = _look_back(walk, 0.4)
    assert 4 < chunk < 16
    assert not [m for m in scripted.heard if isinstance(m, client.Rewind)]
    walk.wait_for_selector(f".timeline b:text-is('0:{int(0.75 * chunk):02d}')")
    assert findings(walk) == []
    walk.mouse.up()
    rewind = scripted.await_message(client.Rewind)
    assert (rewind.chunk, rewind.seconds) == (chunk, None)
    walk.wait_for_selector(".timeline:has-text('Back to')")
    assert _shown(walk) == chunk  # until a picture from there is on screen
    walk.wait_for_selector("canvas.view[data-number='11']")
    walk.evaluate(SEEN)
    scripted.say(
        server.Rewound(chunk=chunk, seconds=0.75 * chunk, number=24, prompt="a court"),
        server.Applied(id=rewind.id, chunk=2, latent_frame=0, server_ms=scripted.now),
    )
    walk.wait_for_selector(f"[role=slider][aria-valuemax='{chunk}']")
    scripted.show()  # 12 to 23: it was on its way
    assert walk.locator(".moment").count() == 1
    scripted.show(input=rewind.id, turn=TURN * chunk)
    walk.wait_for_selector("canvas.view[data-number='35']")
    assert min(walk.evaluate("window.__seen")) == 24
    assert walk.locator(".moment").count() == 0
    scripted.say(_moment(chunk))
    walk.wait_for_selector(f"[role=slider][aria-valuemax='{chunk + 1}']")
    assert complaints == []


def test_keys_and_taps_look_first_and_a_refusal_leads_to_now(
    walk: Page, scripted: Scripted
) -> None:
    film = walk.get_by_role("slider", name="Moments of this walk")
    film.focus()
    for _ in range(3):
        walk.keyboard.press("ArrowLeft")
    assert film.get_attribute("aria-valuenow") == str(MOMENTS - 3)
    assert film.get_attribute("aria-valuetext") == "0:15, 2 s ago"
    walk.keyboard.press("Home")
    assert _shown(walk) == 0
    walk.keyboard.press("Escape")
    walk.wait_for_selector(".moment", state="detached")
    assert film.get_attribute("aria-valuetext") == "now"
    walk.keyboard.press("PageDown")
    walk.keyboard.press("Enter")
    rewind = scripted.await_message(client.Rewind)
    assert rewind.chunk == MOMENTS - 10
    assert not [m for m in scripted.heard if isinstance(m, client.Keys)]  # nobody's head turned
    scripted.say(
        server.Failure(
            code="invalid_snapshot", message="too far back", retryable=False, id=rewind.id
        )
    )
    walk.wait_for_selector(".toast.warning:has-text('Too far back.')")
    walk.wait_for_selector(".moment", state="detached")
    walk.mouse.click(*_point(walk, 0.25))
    chunk = _shown(walk)
    assert findings(walk) == []
    walk.keyboard.down("KeyW")  # who walks looks ahead
    walk.wait_for_selector(".moment", state="detached")
    walk.keyboard.up("KeyW")
    walk.mouse.click(*_point(walk, 0.25))
    after = len(scripted.heard)
    walk.get_by_role("button", name="Walk on from here").click()
    assert scripted.await_message(client.Rewind, after=after).chunk == chunk


def test_a_paused_world_is_looked_through_and_goes_back(walk: Page, scripted: Scripted) -> None:
    walk.keyboard.press("KeyP")
    scripted.await_message(client.Pause)
    scripted.say(server.StateChange(state="paused"))
    walk.wait_for_selector(".overlay.paused")
    chunk = _look_back(walk, 0.3)
    assert walk.locator(".overlay").count() == 0
    walk.mouse.up()
    rewind = scripted.await_message(client.Rewind)
    scripted.say(server.Rewound(chunk=chunk, seconds=3.0, number=12, prompt="a court"))
    walk.wait_for_selector(f"[role=slider][aria-valuemax='{chunk}']")
    assert _shown(walk) == chunk
    walk.wait_for_selector(".overlay.paused")
    walk.keyboard.press("KeyP")
    scripted.await_message(client.Resume)
    scripted.say(server.StateChange(state="live"))
    scripted.show(input=rewind.id)
    walk.wait_for_selector(".moment", state="detached")


def test_a_branch_opens_in_another_tab_or_behind_a_link(
    walk: Page, scripted: Scripted, complaints: list[str]
) -> None:
    walk.mouse.click(*_point(walk, 0.5))
    chunk = _shown(walk)
    walk.get_by_role("button", name="Branch here").click()
    branch = scripted.await_message(client.Branch)
    assert branch.chunk == chunk
    with walk.expect_popup() as opened:
        scripted.say(_branched(branch.id))
    tab = opened.value
    tab.wait_for_selector(".stage")
    assert "#" not in tab.url  # where the token was
    tab.close()
    walk.wait_for_selector(".toast:has-text('another tab')")
    walk.evaluate("window.open = () => null")  # as where tabs are blocked
    after = len(scripted.heard)
    walk.get_by_role("button", name="Branch").click()
    branch = scripted.await_message(client.Branch, after=after)
    assert branch.chunk is None
    scripted.say(_branched(branch.id))
    link = walk.get_by_role("link", name="Open it")
    assert (link.get_attribute("href") or "").endswith("/#rejoin=other-secret")
    walk.wait_for_timeout(700)  # what fades in has its final contrast
    assert findings(walk) == []
    assert walk.locator(".stage.live").count() == 1


def _branched(id: int) -> server.Branched:
    url = "/#rejoin=other-secret"
    return server.Branched(id=id, world="w-2", token="other-secret", url=url, chunk=12)


def test_a_branch_goes_in_with_its_own_token(visit: Visit, page_address: str) -> None:
    page = visit()
    scripted = Scripted(page)
    page.goto(f"{page_address}#rejoin=other-secret")
    assert scripted.await_message(client.Rejoin).token == "other-secret"
    assert "secret" not in page.url
    scripted.open()
    page.wait_for_selector(".stage.live.shown")


def test_a_world_is_saved_and_a_dropped_one_asks_first(walk: Page, scripted: Scripted) -> None:
    url = f"/v1/worlds/{WORLD}/saved/1.wl"
    walk.route(f"**{url}", lambda route: route.fulfill(body=FILE))
    walk.get_by_role("button", name="Share").click()
    walk.get_by_role("dialog").get_by_role("button", name="Save this world").click()
    save = scripted.await_message(client.Save)
    with walk.expect_download() as download:
        scripted.say(server.Saved(id=save.id, url=url, bytes=len(FILE), chunks=24, seconds=17.8))
    assert download.value.suggested_filename.endswith(".wl")
    assert Path(download.value.path()).read_bytes() == FILE
    walk.wait_for_selector(".toast:has-text('17.8 s in')")
    walk.keyboard.press("Escape")
    drop_file(walk, "picture.png", b"\x89PNG", "image/png")
    walk.wait_for_selector(".toast.warning:has-text('Only a saved world')")
    drop_file(walk, "mine.wl", FILE)
    dialog = walk.get_by_role("dialog", name="Walk into this world?")
    dialog.get_by_text("mine.wl").wait_for()
    assert findings(walk) == []
    dialog.get_by_role("button", name="Stay here").click()
    dialog.wait_for(state="detached")
    assert not [m for m in scripted.heard if isinstance(m, client.Leave)]
    drop_file(walk, "mine.wl", FILE)
    after = len(scripted.heard)
    walk.get_by_role("button", name="Walk into it").click()
    scripted.await_message(client.Leave, after=after)
    assert scripted.await_message(client.Enter, after=after).world == FILE


def test_a_file_on_the_start_is_walked_into_or_answered_in_words(
    start: Page, scripted: Scripted
) -> None:
    refusals = {
        "world_damaged": "This file is damaged",
        "world_version": "A world from the future",
        "invalid_world": "This world cannot be walked",
    }
    for code, title in refusals.items():
        after = len(scripted.heard)
        drop_file(start, "walk.wl", b"no world at all")
        assert scripted.await_message(client.Enter, after=after).world == b"no world at all"
        scripted.say(server.Failure(code=code, message="the reason", retryable=False))
        start.wait_for_selector(f".card:has-text('{title}')")
        start.get_by_role("button", name="Choose a start").click()
        start.wait_for_selector(".stage", state="detached")
    after = len(scripted.heard)
    # It is known by its first bytes.
    unnamed: FilePayload = {"name": "renamed", "mimeType": "", "buffer": FILE}
    start.get_by_label("World file").set_input_files(unnamed)
    assert scripted.await_message(client.Enter, after=after).world == FILE
    scripted.open()
    start.wait_for_selector(".stage.live.shown")


def test_a_world_that_waits_for_its_worker_says_so_until_it_is_back(
    walk: Page, scripted: Scripted, complaints: list[str]
) -> None:
    scripted.say(server.Notice(code="recovering", message="the world waits for a new worker"))
    walk.wait_for_selector(".overlay.waits:has-text('A short pause')")
    walk.wait_for_timeout(900)  # what fades in has its final contrast
    screenshot(walk, "recovering")
    assert findings(walk) == []
    scripted.say(server.Notice(code="recovered", message="the world goes on"))
    walk.wait_for_selector(".overlay", state="detached")
    walk.wait_for_selector(".toast:has-text('The model is back')")
    assert complaints == []


def test_spectators_have_no_timeline(visit: Visit, page_address: str) -> None:
    page = visit()
    scripted = Scripted(page)
    page.goto(f"{page_address}#watch={WORLD}")
    scripted.open(controls=False)
    page.wait_for_selector(".stage.live.shown")
    page.keyboard.press("KeyY")
    assert page.locator(".timeline").count() == 0
    assert page.get_by_role("button", name="Timeline").count() == 0
    assert page.get_by_role("button", name="Save this world").count() == 0


def test_a_finger_goes_back_on_a_phone(
    visit: Visit, page_address: str, complaints: list[str]
) -> None:
    page = _start(visit(**PHONE, device_scale_factor=2), page_address)
    scripted = Scripted(page)
    page.evaluate(
        "localStorage.setItem('worldline.preferences', JSON.stringify({ timeline: true }))"
    )
    page.reload()
    page.wait_for_selector(".server.ready")
    _walk(page, scripted)
    finger = page.context.new_cdp_session(page)
    places = [_point(page, share) for share in (0.95, 0.7, 0.35)]
    for kind, (x, y) in zip(("touchStart", "touchMove", "touchMove"), places, strict=True):
        finger.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": [{"x": x, "y": y}]})
    page.wait_for_selector(".timeline:has-text('0:06')")
    screenshot(page, "phone-timeline")
    assert findings(page) == []
    finger.send("Input.dispatchTouchEvent", {"type": "touchEnd", "touchPoints": []})
    assert scripted.await_message(client.Rewind).chunk == _shown(page)
    box = page.locator(".timeline").bounding_box()
    assert box is not None
    assert box["x"] >= 0
    assert box["x"] + box["width"] <= 390
    assert complaints == []
