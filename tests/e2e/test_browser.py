"""A visitor in a real browser before a real model: enters, walks, writes, leaves, comes back."""

from __future__ import annotations

import base64
import re
from pathlib import Path

import numpy as np
import pytest
from playwright.sync_api import Page, WebSocketRoute

from tests.e2e.motion import mean_change, median_shift
from tests.e2e.walking import (
    HEIGHT,
    WIDTH,
    begin_record,
    drawn,
    drop_file,
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
from worldline.core.worldfile import read_world

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]

TURN = 28  # frames recorded of a turn: seven latent frames
LEAST_SHIFT = 2.0  # pixels per latent frame; a full turn of the pocket world moves about eight
OVERSCAN = 1.04  # how much the page enlarges what it paints
FILM = "[role=slider]"
GREY = """
([width, height, overscan]) => {
  const moment = document.querySelector(".moment img");
  const copy = new OffscreenCanvas(width, height).getContext("2d");
  const [w, h] = [moment.naturalWidth, moment.naturalHeight];
  const edge = (1 - 1 / overscan) / 2;
  const from = [edge * w, edge * h, w / overscan, h / overscan];
  copy.drawImage(moment, ...from, 0, 0, width, height);
  const rgba = copy.getImageData(0, 0, width, height).data;
  let grey = "";
  for (let i = 0; i < rgba.length; i += 4) {
    grey += String.fromCharCode(Math.round((rgba[i] + 2 * rgba[i + 1] + rgba[i + 2]) / 4));
  }
  return btoa(grey);
}
"""


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


def test_a_walk_is_taken_back_branched_saved_and_walked_again(
    page: Page, complaints: list[str]
) -> None:
    enter(page)
    start = record(page, 1)[0]
    page.keyboard.press("KeyY")
    hold(page, "KeyL", 40)
    page.wait_for_function("(film) => document.querySelector(film).ariaValueMax >= 3", arg=FILM)
    before = record(page, 1)[0]
    page.focus(FILM)
    page.keyboard.press("Home")
    page.keyboard.press("ArrowRight")
    moment = _moment(page)
    chunk = int(page.get_attribute(".moment img", "data-chunk") or 0)
    screenshot(page, "timeline")
    made = number(page)
    page.keyboard.press("Enter")
    page.wait_for_selector(".moment", state="detached")
    after = record(page, 1)[0]
    assert number(page) > made
    assert _away(after, moment) < _away(after, before) / 2
    assert _away(after, moment) < _away(moment, before) / 2

    walked = hold(page, "KeyJ", 24)[-1]  # the other way this time
    assert _away(walked, after) > _away(after, moment)
    page.wait_for_function("(film) => document.querySelector(film).ariaValueMax >= 2", arg=FILM)

    with page.expect_popup() as opened:
        page.get_by_role("button", name="Branch").click()
    tab = opened.value
    tab.wait_for_selector(".stage.live.shown")
    assert "#" not in tab.url
    branch = record(tab, 1)[0]
    until_shown(page)
    assert _away(branch, record(page, 1)[0]) < _away(branch, before) / 2
    tab.get_by_role("button", name="Leave").click()
    tab.wait_for_selector(".stage", state="detached")
    tab.close()

    with page.expect_download() as download:
        page.get_by_role("button", name="Save this world").click()
    data = Path(download.value.path()).read_bytes()
    file = read_world(data)
    assert file.walk.chunks > chunk
    page.get_by_role("button", name="Leave").click()
    page.wait_for_selector(".stage", state="detached")
    drop_file(page, "walk.wl", data)
    page.wait_for_selector(".stage.live.shown")
    assert _away(record(page, 1)[0], start) < _away(before, start) / 2
    wait_for_frames(page, 24)  # it is walked as it was
    assert complaints == []


def _moment(page: Page) -> np.ndarray:
    """The moment that is looked at, as the page would paint it: `H W`, grey."""
    page.wait_for_selector(".moment img")
    page.evaluate("document.querySelector('.moment img').decode()")
    encoded = page.evaluate(GREY, [WIDTH, HEIGHT, OVERSCAN])
    flat = np.frombuffer(base64.b64decode(encoded), np.uint8)
    return flat.reshape(HEIGHT, WIDTH).astype(np.float64)


def _away(a: np.ndarray, b: np.ndarray) -> float:
    return float(np.abs(a - b).mean())
