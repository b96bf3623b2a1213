"""Several visitors of one server: worlds side by side, the line, spectators, controls that pass."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page

from tests.e2e.conftest import Visit
from tests.e2e.motion import median_shift
from tests.e2e.walking import (
    FRAME_LIMIT_MS,
    enter,
    hold,
    last_input,
    number,
    record,
    screenshot,
    shown_event,
    wait_for_frames,
)

pytestmark = [pytest.mark.browser, pytest.mark.timeout(900)]


def _come(visit: Visit, address: str) -> Page:
    page = visit()
    page.goto(f"{address}?probe")
    page.wait_for_selector(".server.ready")
    return page


def test_two_walk_two_worlds_and_a_third_enters_when_one_leaves(
    visit: Visit, address: str, complaints: list[str]
) -> None:
    one, two, three = (_come(visit, address) for _ in range(3))
    enter(one)
    two.click(".tile >> nth=1")
    enter(two)
    three.click("button.enter")
    three.wait_for_selector("text=You are next in line")
    for page in (one, two):
        wait_for_frames(page, 8)
    assert median_shift(hold(one, "ArrowLeft", 12)) > 1.0
    assert three.locator("text=You are next in line").count() == 1
    one.get_by_role("button", name="Leave").click()
    three.wait_for_selector(".stage.live.shown", timeout=FRAME_LIMIT_MS)
    wait_for_frames(three, 4)
    wait_for_frames(two, 4)
    assert complaints == []


def test_a_spectator_sees_the_world_and_walks_it_once_given_the_controls(
    visit: Visit, address: str, complaints: list[str]
) -> None:
    holder = _come(visit, address)
    enter(holder)
    holder.get_by_role("button", name="Share").click()
    link = holder.get_by_role("textbox", name="Address").input_value()
    holder.keyboard.press("Escape")
    other = visit()
    other.goto(link.replace("#", "?probe#"))
    other.wait_for_selector(".stage.live.shown", timeout=FRAME_LIMIT_MS)
    other.wait_for_selector(".watching")
    wait_for_frames(other, 8)
    assert abs(number(other) - number(holder)) < 64
    other.keyboard.press("KeyW")
    assert last_input(other) == 0
    screenshot(other, "spectator-live")
    other.get_by_role("button", name="Ask for control").click()
    holder.get_by_role("button", name="Hand over").click()
    other.wait_for_selector(".pad.move")
    holder.wait_for_selector(".watching")
    before = shown_event(other)
    assert median_shift(hold(other, "ArrowLeft", 12)) > 1.0
    assert shown_event(holder) > before, "the one who gave them away looks on"
    record(holder, 4)
    assert complaints == []
