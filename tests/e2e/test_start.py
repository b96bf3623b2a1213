"""The start screen: every world of the gallery is offered, by mouse, keys and on a phone."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page

from tests.e2e.walking import enter, screenshot, shown_event
from worldline.models.pocket import params

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

GALLERY = json.loads(
    Path(params.__file__).with_name("gallery").joinpath("gallery.json").read_text()
)
CHECKED = ".tile:has(input:checked)"


def test_every_world_of_the_gallery_is_a_tile_and_comes_with_its_words(
    page: Page, complaints: list[str]
) -> None:
    page.wait_for_selector(f"{CHECKED} img")
    names = page.locator(".tiles .tile span").all_inner_texts()
    assert names == [entry["name"] for entry in GALLERY]
    assert len(names) >= 6
    assert page.inner_text(CHECKED) == GALLERY[0]["name"]
    page.wait_for_selector(".scenery img.shown")
    assert "toy world at best" in page.inner_text(".words .fine")
    screenshot(page, "start")
    last = GALLERY[-1]
    page.click(f".tile:has-text('{last['name']}')")
    page.wait_for_selector(f".scenery img.shown[alt='{last['name']}']")
    assert page.input_value("textarea") == last["prompt"]
    assert page.locator(".tile img[loading='lazy']").count() == len(GALLERY)
    assert complaints == []


def test_arrow_keys_choose_and_enter_enters(page: Page, complaints: list[str]) -> None:
    page.focus(".tile input:checked")
    page.keyboard.press("ArrowRight")
    page.keyboard.press("ArrowRight")
    assert page.inner_text(CHECKED) == GALLERY[2]["name"]
    assert page.input_value("textarea") == GALLERY[2]["prompt"]
    page.keyboard.press("Enter")
    page.wait_for_selector(".stage.live")
    assert complaints == []


def test_another_world_is_one_click_away_while_walking(page: Page, complaints: list[str]) -> None:
    enter(page)
    offers = page.locator(".offers button")
    worlds = offers.all_inner_texts()
    here = GALLERY[0]
    others = [e for e in GALLERY if e["world"] != here["world"]]
    twins = [e for e in others if e["layout"] == here["layout"]]
    assert worlds[0] == (twins or others)[0]["world"]
    assert here["world"] not in worlds
    before = shown_event(page)
    offers.first.click()
    page.wait_for_selector(".prompt .hint:text('shown after')")
    assert shown_event(page) > before
    assert here["world"] in offers.all_inner_texts()  # the way back
    page.keyboard.down("KeyW")  # the keys still belong to the walk
    page.wait_for_selector(".cap.up.held")
    page.keyboard.up("KeyW")
    assert complaints == []


def test_a_phone_scrolls_down_only_and_can_always_enter(browser: Browser, address: str) -> None:
    context = browser.new_context(
        viewport={"width": 390, "height": 844}, is_mobile=True, has_touch=True
    )
    page = context.new_page()
    page.goto(address)
    page.wait_for_selector(".tile input:checked", state="attached")
    width = page.evaluate("document.documentElement.scrollWidth")
    assert width == page.evaluate("document.documentElement.clientWidth")
    button = page.locator("button.enter").bounding_box()
    assert button is not None
    assert button["y"] + button["height"] <= 844
    box = page.locator(".tile").first.bounding_box()
    assert box is not None
    assert box["width"] >= 100
    context.close()
