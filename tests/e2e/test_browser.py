"""A visitor in a real browser before a real model: enters, walks, writes, leaves, comes back."""

from __future__ import annotations

import re

import numpy as np
import pytest
from playwright.sync_api import Page, WebSocketRoute

from tests.e2e.motion import mean_change, median_shift
from tests.e2e.walking import (
    begin_record,
    drawn,
    enter,
    hold,
    last_input,
    number,
    record,
    recorded,
    screenshot,
    shown_event,
    until_shown,
    wait_for_frames,
)

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

TURN = 28  # frames recorded of a turn: seven latent frames
LEAST_SHIFT = 2.0  # pixels per latent frame; a full turn of the pocket world moves about eight


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
    walking = record(page, 24, event=last_input(page))
    page.wait_for_selector(".figure.latency:not([data-count='0'])")
    screenshot(page, "stage")
    page.keyboard.up("KeyW")
    page.wait_for_selector(".cap.held", state="detached")
    assert mean_change(walking) > mean_change(idle)
    assert float(page.inner_text(".figure.fps b")) > 0
    page.keyboard.press("KeyG")
    page.wait_for_selector(".details .parts")
    screenshot(page, "figures")
    parts = page.locator(".details .parts dt").all_inner_texts()
    assert {"inbox", "wait", "denoise", "network", "display"} <= set(parts)
    rows = page.inner_text(".details .rows")
    assert "160 × 96" in rows
    assert re.search(r"\d+ kbit/s", rows)
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


def test_a_mouse_on_a_button_steers_and_dragging_looks(page: Page, complaints: list[str]) -> None:
    enter(page)
    before = last_input(page)
    page.locator(".pad.look .cap.left").hover()
    page.mouse.down()
    frames = record(page, TURN, event=before + 1)
    page.mouse.up()
    page.wait_for_selector(".cap.held", state="detached")
    assert median_shift(frames) > LEAST_SHIFT
    until_shown(page)
    begin_record(page, 16, event=last_input(page) + 1)  # on a busy machine moves take their time
    page.mouse.move(640, 300)
    page.mouse.down()
    for step in range(1, 30):
        page.mouse.move(640 + 12 * step, 300)
    page.mouse.up()
    assert median_shift(recorded(page, 16)) < -LEAST_SHIFT
    assert complaints == []


def test_back_to_the_start_shows_the_first_picture_again_and_leaving_leads_out(
    page: Page, complaints: list[str]
) -> None:
    enter(page)
    first = record(page, 1)[0]
    walked = hold(page, "KeyD", 32)[-1]
    page.get_by_role("button", name="Back to the start").click()
    until_shown(page)
    again = record(page, 1)[0]
    assert np.abs(again - first).mean() < np.abs(walked - first).mean() / 2
    page.get_by_role("button", name="Leave").click()
    page.wait_for_selector(".stage", state="detached")
    assert page.is_visible("button.enter")
    assert complaints == []


@pytest.mark.parametrize("name", ["JPEG", "WebP", "Raw"])
def test_every_picture_format_walks(page: Page, complaints: list[str], name: str) -> None:
    page.get_by_role("button", name="Options").click()
    page.get_by_label(name, exact=True).check()
    enter(page)
    wait_for_frames(page, 9)
    page.keyboard.press("KeyG")
    page.wait_for_selector(f".details .rows:has-text('{name.lower()}')")
    assert complaints == []


def test_a_refresh_resumes_at_the_same_place(page: Page, complaints: list[str]) -> None:
    enter(page)
    hold(page, "KeyL", 24)
    page.keyboard.down("KeyW")
    page.wait_for_selector(".cap.up.held")
    wait_for_frames(page, 8)
    before, frame = number(page), record(page, 1)[0]
    page.reload()
    page.wait_for_selector(".stage.live.shown")
    assert number(page) >= before
    assert page.locator(".cap.held").count() == 0
    after = record(page, 1)[0]
    start = _first_of_another_world(page)
    assert np.abs(after - frame).mean() < np.abs(after - start).mean()
    assert complaints == []


def _first_of_another_world(page: Page) -> np.ndarray:
    """How the chosen start looks: leave, and enter anew."""
    page.get_by_role("button", name="Leave").click()
    page.wait_for_selector(".tile:has(input:checked)")
    enter(page)
    return record(page, 1)[0]


def test_a_lost_connection_resumes_with_nothing_held(page: Page, complaints: list[str]) -> None:
    ends: list[tuple[WebSocketRoute, WebSocketRoute]] = []

    def through(route: WebSocketRoute) -> None:
        ends.append((route, route.connect_to_server()))

    page.route_web_socket(re.compile("/v1/worlds/live"), through)
    enter(page)
    wait_for_frames(page, 5)
    page.keyboard.down("KeyW")
    page.wait_for_selector(".cap.up.held")
    before, count = number(page), drawn(page)
    visitor, server = ends[0]
    visitor.close(code=1012)
    server.close()
    page.wait_for_selector(".cap.held", state="detached")  # it has heard of the break
    page.wait_for_selector(".stage.live.shown")
    wait_for_frames(page, 5)
    assert page.locator(".cap.held").count() == 0
    assert len(ends) > 1
    assert number(page) > before
    assert drawn(page) > count
    assert complaints == []
