"""Every screen of the page, each brought about by a scripted server, pictured and audited."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests.e2e.audit import findings
from tests.e2e.conftest import PHONE, Visit
from tests.e2e.scripted import WORLD, Scripted
from tests.e2e.walking import screenshot, wait_for_frames
from worldline.core.live import client, server
from worldline.media.camera_files import POSES, TRANSFORMS
from worldline.server.live.recordings import FILM

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]


@pytest.fixture
def start(visit: Visit, page_address: str) -> Page:
    """The start screen, its picture shown."""
    return _start(visit(), page_address)


@pytest.fixture
def scripted(start: Page) -> Scripted:
    """The server that the start screen will speak with."""
    return Scripted(start)


@pytest.fixture
def walk(start: Page, scripted: Scripted) -> Page:
    """A world that shows its first chunk."""
    _walk(start, scripted)
    return start


def _start(page: Page, address: str) -> Page:
    page.goto(address)
    page.wait_for_selector(".scenery img.shown")
    page.wait_for_selector(".server.ready")
    return page


def _walk(page: Page, scripted: Scripted) -> None:
    page.click("button.enter")
    scripted.open()
    page.wait_for_selector(".stage.live.shown")


def _check(page: Page, name: str) -> None:
    page.wait_for_timeout(700)  # what fades in has its final contrast
    screenshot(page, name)
    assert findings(page) == []


def test_the_start(start: Page, complaints: list[str]) -> None:
    _check(start, "start")
    start.get_by_role("button", name="Options").click()
    start.wait_for_selector("#options")
    assert findings(start) == []
    assert complaints == []


def test_the_line_tells_its_position_and_lets_go(start: Page, scripted: Scripted) -> None:
    start.click("button.enter")
    scripted.await_message(client.Enter)
    scripted.seat()
    scripted.say(server.Queued(position=3, ahead=2, retry_after_ms=2000))
    start.wait_for_selector("text=You are 3rd in line")
    start.wait_for_function("() => document.title.startsWith('(3)')")
    _check(start, "queue")
    scripted.say(server.Queued(position=1, ahead=0, retry_after_ms=2000))
    start.wait_for_selector("text=You are next in line")
    start.get_by_role("button", name="Leave the line").click()
    scripted.await_message(client.Leave)
    start.wait_for_selector(".stage", state="detached")
    assert start.title() == "Worldline"


def test_who_waited_walks_in_without_a_click(start: Page, scripted: Scripted) -> None:
    start.click("button.enter")
    scripted.await_message(client.Enter)
    scripted.say(server.Queued(position=1, ahead=0, retry_after_ms=2000))
    start.wait_for_selector("text=You are next in line")
    scripted.open()
    start.wait_for_selector(".stage.live.shown")


def test_the_stage_and_its_figures(walk: Page, scripted: Scripted, complaints: list[str]) -> None:
    assert findings(walk) == []
    walk.keyboard.down("KeyW")
    keys = scripted.await_message(client.Keys)
    assert keys.held == ("w",)
    scripted.say(server.Applied(id=keys.id, chunk=1, latent_frame=0, server_ms=scripted.now))
    scripted.show(input=keys.id)
    walk.wait_for_selector(".figure.latency[data-count='1']")
    walk.keyboard.up("KeyW")
    walk.keyboard.press("KeyG")
    walk.wait_for_selector(".details .parts")
    assert findings(walk) == []
    walk.keyboard.press("KeyG")
    walk.wait_for_selector(".details", state="detached")
    assert complaints == []


def test_settings_hold_at_once_and_are_kept(walk: Page, scripted: Scripted) -> None:
    walk.keyboard.press("Comma")
    walk.wait_for_selector("dialog.drawer[open]")
    _check(walk, "settings")
    walk.get_by_label("Camera speed").fill("0.5")
    settings = scripted.await_message(client.Settings)
    assert settings.speed == 0.5
    walk.get_by_label("Invert looking up and down").check()
    walk.keyboard.press("Escape")
    walk.wait_for_selector("dialog", state="detached")
    kept = walk.evaluate("JSON.parse(localStorage.getItem('worldline.preferences'))")
    assert kept["speed"] == 0.5
    assert kept["invert"] is True


def test_a_way_that_was_walked_is_walked_again(walk: Page, scripted: Scripted) -> None:
    walk.keyboard.press("KeyV")
    walk.get_by_role("button", name="Record my way").click()
    scripted.show(turn=0.0)
    scripted.show(turn=9.0)
    wait_for_frames(walk, 3)
    walk.keyboard.press("KeyV")
    walk.get_by_role("button", name="End it here").click()
    walk.wait_for_selector("dialog:has-text('poses')")
    _check(walk, "path")
    walk.get_by_label("Begin again at its end").check()
    walk.get_by_role("button", name="Walk it").click()
    camera = scripted.await_message(client.Camera)
    assert camera.loop is True
    assert len(camera.poses) >= 2


def test_all_keys_are_listed(walk: Page) -> None:
    walk.keyboard.press("?")
    walk.wait_for_selector("dialog:has-text('Keys')")
    _check(walk, "keys")


def test_the_link_for_spectators(walk: Page) -> None:
    walk.get_by_role("button", name="Share").click()
    address = walk.get_by_role("textbox", name="Address").input_value()
    assert address.endswith(f"#watch={WORLD}")
    assert "secret-token" not in address
    _check(walk, "share")


def test_a_spectator_asks_and_takes_over(
    visit: Visit, page_address: str, complaints: list[str]
) -> None:
    page = visit()
    scripted = Scripted(page)
    page.goto(f"{page_address}#watch={WORLD}")
    scripted.open(controls=False, viewers=3)
    watch = scripted.await_message(client.Watch)
    assert watch.world == WORLD
    page.wait_for_selector(".stage.live.shown")
    page.wait_for_selector("text=with 2 others")
    assert page.locator(".pad").count() == 0
    _check(page, "spectator")
    page.get_by_role("button", name="Ask for control").click()
    scripted.await_message(client.AskControl)
    scripted.say(server.ControlOf(yours=False, viewers=3, asking=("v-1",)))
    page.wait_for_selector("button:disabled:has-text('Asked')")
    scripted.say(server.ControlOf(yours=True, viewers=3))
    page.wait_for_selector(".pad.move")
    page.keyboard.down("KeyW")
    assert scripted.await_message(client.Keys).held == ("w",)
    assert complaints == []


def test_the_holder_answers_who_asks(walk: Page, scripted: Scripted) -> None:
    scripted.say(server.ControlOf(yours=True, viewers=3, asking=("v-7", "v-8")))
    walk.wait_for_selector(".toast.ask")
    assert walk.locator(".toast.ask").count() == 2
    _check(walk, "asked")
    walk.get_by_role("button", name="Not now").first.click()
    assert walk.locator(".toast.ask").count() == 1
    walk.get_by_role("button", name="Hand over").click()
    assert scripted.await_message(client.GiveControl).viewer == "v-8"
    scripted.say(server.ControlOf(yours=False, viewers=3))
    walk.wait_for_selector(".watching")


def test_a_recording_begins_ends_and_is_offered(walk: Page, scripted: Scripted) -> None:
    walk.keyboard.press("KeyR")
    assert scripted.await_message(client.Record).on is True
    scripted.say(server.Recording(on=True))
    walk.wait_for_selector(".filming")
    after = len(scripted.heard)
    walk.get_by_role("button", name="End the recording").click()
    assert scripted.await_message(client.Record, after=after).on is False
    scripted.say(
        server.Recording(on=False, url=f"/v1/worlds/{WORLD}/recording?take=2", seconds=12.4)
    )
    walk.wait_for_selector(".toast.film")
    links = walk.locator(".toast.film a").evaluate_all(
        "(all) => all.map((one) => one.pathname.split('/').at(-1) + one.search)"
    )
    assert links == [f"{name}?take=2" for name in (FILM, POSES, TRANSFORMS, "recording")]
    _check(walk, "recording")


def test_a_recording_outlives_a_world_that_breaks_off(walk: Page, scripted: Scripted) -> None:
    walk.keyboard.press("KeyR")
    scripted.await_message(client.Record)
    scripted.say(server.Recording(on=True, url=f"/v1/worlds/{WORLD}/recording?take=3"))
    walk.wait_for_selector(".filming")
    scripted.say(server.Bye(code="lifetime", message="the world reached its maximum lifetime"))
    scripted.sockets[-1].close(code=4410)
    walk.wait_for_selector(".overlay.ended")
    whole = walk.locator(".toast.film a").last
    assert (whole.get_attribute("href") or "").endswith("/recording?take=3")
    whole.click(trial=True)


def test_announcements_count_down(walk: Page, scripted: Scripted) -> None:
    scripted.say(server.Notice(code="idle", message="the world closes", in_ms=20_000))
    walk.wait_for_selector(".toast:has-text('Are you still there?') .seconds")
    _check(walk, "notice")
    walk.get_by_role("button", name="Dismiss").click()
    walk.wait_for_selector(".toast", state="detached")


def test_pause_and_go_on(walk: Page, scripted: Scripted) -> None:
    walk.keyboard.press("KeyP")
    scripted.await_message(client.Pause)
    scripted.say(server.StateChange(state="paused"))
    walk.wait_for_selector(".overlay.paused")
    _check(walk, "paused")
    walk.get_by_role("button", name="Go on").first.click()
    scripted.await_message(client.Resume)
    scripted.say(server.StateChange(state="live"))
    walk.wait_for_selector(".overlay", state="detached")


def test_a_lost_connection_is_named_and_made_again(walk: Page, scripted: Scripted) -> None:
    walk.keyboard.down("KeyW")
    walk.wait_for_selector(".cap.up.held")
    scripted.deaf = True  # new connections get no answer
    scripted.drop()
    walk.wait_for_selector("text=Connection lost")
    walk.wait_for_selector(".cap.held", state="detached")
    _check(walk, "reconnecting")


def test_the_same_world_comes_back_after_a_break(walk: Page, scripted: Scripted) -> None:
    scripted.drop()
    rejoin = scripted.await_message(client.Rejoin)
    assert rejoin.token == "secret-token"
    scripted.open()
    walk.wait_for_selector(".overlay", state="detached")
    wait_for_frames(walk, 3)


def test_a_refresh_comes_back_to_the_same_world(walk: Page, scripted: Scripted) -> None:
    walk.reload()
    assert scripted.await_message(client.Rejoin).token == "secret-token"
    scripted.open()
    walk.wait_for_selector(".stage.live.shown")
    walk.get_by_role("button", name="Leave").click()
    scripted.await_message(client.Leave)
    after = len(scripted.heard)
    walk.reload()
    walk.wait_for_selector(".server.ready")
    assert not [m for m in scripted.heard[after:] if isinstance(m, client.Rejoin)]


def test_a_refresh_after_the_world_is_gone_leads_to_the_start(
    walk: Page, scripted: Scripted
) -> None:
    walk.reload()
    scripted.await_message(client.Rejoin)
    scripted.say(
        server.Failure(code="unknown_world", message="no such world", retryable=False, fatal=True)
    )
    scripted.sockets[-1].close(code=4404)
    walk.wait_for_selector("text=The world you walked has ended")
    assert walk.locator(".stage").count() == 0


@pytest.mark.parametrize(
    ("code", "title", "button"),
    [
        ("unauthorized", "This server asks for a key", "Give the key"),
        ("invalid_image", "Choose another picture", "Choose a start"),
        ("client_limit", "One world at a time", "Try again"),
        ("brand_new", "The server refused this", "Choose a start"),
    ],
)
def test_a_refusal_says_what_to_do(
    start: Page, scripted: Scripted, code: str, title: str, button: str
) -> None:
    start.click("button.enter")
    scripted.await_message(client.Enter)
    retryable = code == "client_limit"
    scripted.say(server.Failure(code=code, message="the reason", retryable=retryable, fatal=True))
    scripted.sockets[-1].close(code=4400)
    start.wait_for_selector(f".card:has-text('{title}')")
    assert start.get_by_role("button", name=button).is_visible()
    assert start.evaluate("document.activeElement.closest('.card') !== null")
    if code == "unauthorized":
        _check(start, "refused")


def test_a_key_is_asked_for_and_never_put_into_the_address(start: Page, scripted: Scripted) -> None:
    start.click("button.enter")
    scripted.await_message(client.Enter)
    scripted.say(
        server.Failure(code="unauthorized", message="no token", retryable=False, fatal=True)
    )
    scripted.sockets[-1].close(code=4401)
    start.get_by_role("button", name="Give the key").click()
    start.get_by_label("Key or token").fill("open sesame")
    after = len(scripted.heard)
    start.keyboard.press("Enter")
    assert scripted.await_message(client.Hello, after=after).token == "open sesame"
    scripted.await_message(client.Enter, after=after)
    assert "sesame" not in scripted.sockets[-1].url + start.url


def test_an_end_that_is_no_failure(walk: Page, scripted: Scripted) -> None:
    scripted.say(server.Bye(code="lifetime", message="the world reached its maximum lifetime"))
    scripted.sockets[-1].close(code=4410)
    walk.wait_for_selector(".card:has-text('This walk has ended')")
    _check(walk, "ended")
    after = len(scripted.heard)
    walk.get_by_role("button", name="Begin again").click()
    scripted.await_message(client.Enter, after=after)


def test_the_phone(visit: Visit, page_address: str, complaints: list[str]) -> None:
    page = _start(visit(**PHONE, device_scale_factor=2), page_address)
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width == page.evaluate("document.documentElement.clientWidth")
    button = page.locator("button.enter").bounding_box()
    assert button is not None
    assert button["y"] + button["height"] <= 844
    _check(page, "phone-start")
    scripted = Scripted(page)
    _walk(page, scripted)
    for name in ("Pause", "Record", "More", "Leave"):
        box = page.get_by_role("button", name=name, exact=True).bounding_box()
        assert box is not None
        assert box["x"] >= 0
        assert box["x"] + box["width"] <= 390
    _check(page, "phone-stage")
    page.get_by_role("button", name="More", exact=True).click()
    page.get_by_role("button", name="Settings").click()
    page.wait_for_selector("dialog.drawer[open]")
    assert findings(page) == []
    assert complaints == []
