"""A visitor in a real browser: enters, walks, turns, writes, leaves, comes back."""

from __future__ import annotations

import io
import re

import pytest
from PIL import Image
from playwright.sync_api import Browser, FilePayload, Page, WebSocketRoute

from tests.e2e.conftest import listen
from tests.e2e.motion import mean_change, median_shift
from tests.e2e.walking import (
    drawn,
    enter,
    hold,
    record,
    screenshot,
    shown_event,
    wait_for_frames,
)

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

TURN = 28  # frames recorded of a turn: seven latent frames
LEAST_SHIFT = 2.0  # pixels per latent frame; a full turn of the pocket world moves about eight


def figure(page: Page, name: str) -> str:
    return page.inner_text(f".figure.{name} dd")


def test_frames_arrive_and_turning_moves_the_picture_the_right_way(
    page: Page, complaints: list[str]
) -> None:
    enter(page)
    idle = record(page, 20)
    left = hold(page, "ArrowLeft", TURN)
    right = hold(page, "KeyL", TURN)
    at_rest = median_shift(idle)
    assert median_shift(left) > at_rest + LEAST_SHIFT
    assert median_shift(right) < at_rest - LEAST_SHIFT
    assert mean_change(left) > mean_change(idle)
    assert complaints == []


def test_walking_changes_the_picture_and_the_figures_are_measured(
    page: Page, complaints: list[str]
) -> None:
    enter(page)
    idle = record(page, 16)
    page.keyboard.down("KeyW")
    page.wait_for_selector(".cap.up.held")
    walking = record(page, 24, event=1)
    page.wait_for_selector(".figure.latency small")  # the unit stands beside a measured figure
    screenshot(page, "stage")
    page.keyboard.up("KeyW")
    page.wait_for_selector(".cap.held", state="detached")
    assert mean_change(walking) > mean_change(idle)
    assert float(figure(page, "fps")) > 0
    assert re.fullmatch(r"\d+ms", figure(page, "chunk"))
    assert re.fullmatch(r"\d+ms", figure(page, "latency"))
    assert figure(page, "size") == "160 × 96"
    assert figure(page, "model") == "pocket"
    assert complaints == []


def test_keys_are_released_when_the_window_loses_focus_and_typing_does_not_steer(
    page: Page, complaints: list[str]
) -> None:
    enter(page)
    page.keyboard.down("KeyW")
    page.keyboard.down("ArrowLeft")
    page.wait_for_selector(".cap.up.held")
    page.evaluate("window.dispatchEvent(new Event('blur'))")
    page.wait_for_selector(".cap.held", state="detached")
    page.keyboard.up("KeyW")
    page.keyboard.up("ArrowLeft")
    page.keyboard.press("KeyT")
    page.keyboard.type("wasd at dusk")
    assert page.input_value(".prompt input") == "wasd at dusk"
    assert page.locator(".cap.held").count() == 0
    before = shown_event(page)
    page.keyboard.press("Enter")
    page.wait_for_selector(".prompt .hint:text('shown after')")
    assert shown_event(page) > before
    assert complaints == []


def test_a_finger_on_a_button_steers(page: Page, complaints: list[str]) -> None:
    enter(page)
    button = page.locator(".pad.look .cap.left")
    button.hover()
    page.mouse.down()
    frames = record(page, TURN, event=1)
    page.mouse.up()
    page.wait_for_selector(".cap.held", state="detached")
    assert median_shift(frames) > LEAST_SHIFT
    assert complaints == []


def test_stop_leads_back_to_the_start_and_restart_begins_again(
    page: Page, complaints: list[str]
) -> None:
    enter(page)
    hold(page, "KeyD", 4)
    page.get_by_role("button", name="Restart").click()
    page.wait_for_selector("canvas.view[data-event='0']")
    wait_for_frames(page, 4)
    assert shown_event(page) == 0
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector(".stage", state="detached")
    assert page.is_visible("button.enter")
    assert complaints == []


@pytest.mark.parametrize("output_format", ["webp", "raw"])
def test_every_picture_format_walks(page: Page, complaints: list[str], output_format: str) -> None:
    name = {"webp": "WebP", "raw": "Raw"}[output_format]
    page.get_by_role("button", name="Options").click()
    page.click(f".formats >> text={name}")
    enter(page)
    wait_for_frames(page, 9)
    assert complaints == []


def test_a_picture_of_ones_own_is_taken_and_a_broken_one_refused(
    page: Page, complaints: list[str]
) -> None:
    broken = FilePayload(name="notes.png", mimeType="image/png", buffer=b"no picture")
    page.set_input_files("input[type=file]", files=broken)
    page.wait_for_selector("text=not a picture")
    picture = io.BytesIO()
    Image.linear_gradient("L").resize((900, 540)).convert("RGB").save(picture, "PNG")
    own = FilePayload(name="own.png", mimeType="image/png", buffer=picture.getvalue())
    page.set_input_files("input[type=file]", files=own)
    page.wait_for_selector(".scenery img[alt='own.png'].shown")
    assert page.locator(".tile input:checked").count() == 0
    assert "toy world at best" in page.inner_text(".fine.loud")
    page.fill("textarea", "")
    enter(page)
    wait_for_frames(page, 9)
    assert complaints == []


def test_a_second_visitor_is_told_that_all_seats_are_taken(
    page: Page, browser: Browser, address: str, complaints: list[str]
) -> None:
    enter(page)
    context = browser.new_context()
    other = context.new_page()
    listen(other, complaints)
    other.goto(address)
    other.wait_for_selector(".server.ready")
    other.click("button.enter")
    other.wait_for_selector("text=All seats are taken")
    page.get_by_role("button", name="Stop").click()
    page.wait_for_selector(".stage", state="detached")
    other.get_by_role("button", name="Try again").click()
    other.wait_for_selector(".stage.live")
    context.close()
    assert complaints == []


# The words stand for the half second until the next attempt; a poll may miss them, this cannot.
WATCH_FOR_LOSS = """() => {
    window.named = false;
    const look = () => { window.named ||= document.body.textContent.includes("Connection lost"); };
    new MutationObserver(look).observe(document.body, {
        subtree: true, childList: true, characterData: true, attributes: true,
    });
}"""


def test_a_lost_connection_is_named_and_made_again(page: Page, complaints: list[str]) -> None:
    ends: list[tuple[WebSocketRoute, WebSocketRoute]] = []

    def through(route: WebSocketRoute) -> None:
        ends.append((route, route.connect_to_server()))

    page.route_web_socket(re.compile("/v1/realtime_video/generate"), through)
    enter(page)
    wait_for_frames(page, 5)
    page.keyboard.down("KeyW")
    page.wait_for_selector(".cap.up.held")
    before = drawn(page)
    visitor, server = ends[0]
    page.evaluate(WATCH_FOR_LOSS)
    visitor.close(code=1012)
    server.close()
    page.wait_for_function("window.named")
    page.wait_for_selector(".stage.live")
    assert page.locator(".cap.held").count() == 0
    wait_for_frames(page, 5)
    assert drawn(page) > before
    assert len(ends) > 1
    assert complaints == []
