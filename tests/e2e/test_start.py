"""The start screen: every world of the gallery, any picture, by mouse, keys, drop and paste."""

from __future__ import annotations

import base64
import io
import json

import pytest
from PIL import Image
from playwright.sync_api import CDPSession, FilePayload, Page

from tests.e2e.conftest import PHONE, Visit
from tests.e2e.scripted import Scripted
from tests.e2e.walking import screenshot
from worldline.core.live import client
from worldline.server.page import GALLERY

pytestmark = [pytest.mark.browser, pytest.mark.timeout(400)]

ENTRIES = json.loads(GALLERY.joinpath("gallery.json").read_text(encoding="utf-8"))
CHECKED = ".tile:has(input:checked)"

# Hands a file to the page as a drop or a paste does: only the data transfer of the event counts.
HAND_OVER = """([kind, name, base64]) => {
  const bytes = Uint8Array.from(atob(base64), (one) => one.charCodeAt(0));
  const data = new DataTransfer();
  data.items.add(new File([bytes], name, { type: "image/png" }));
  const target = document.querySelector(".start");
  if (kind === "paste") {
    target.dispatchEvent(new ClipboardEvent("paste", { clipboardData: data, bubbles: true }));
    return;
  }
  for (const step of ["dragenter", "dragover", "drop"]) {
    const drag = { dataTransfer: data, bubbles: true, cancelable: true };
    target.dispatchEvent(new DragEvent(step, drag));
  }
}"""


@pytest.fixture
def start(visit: Visit, page_address: str) -> Page:
    """The start screen with its gallery, without a model behind."""
    page = visit()
    page.goto(page_address)
    page.wait_for_selector(f"{CHECKED} img")
    page.wait_for_selector(".server.ready")
    return page


def own_picture() -> bytes:
    """A PNG of 900 x 540 that the server's gallery does not have."""
    out = io.BytesIO()
    Image.linear_gradient("L").resize((900, 540)).convert("RGB").save(out, "PNG")
    return out.getvalue()


def sent_size(enter: client.Enter) -> tuple[int, int]:
    """The pixels of the picture that went to the server."""
    with Image.open(io.BytesIO(enter.image)) as image:
        return image.size


def test_every_world_of_the_gallery_is_a_tile_and_comes_with_its_words(
    start: Page, complaints: list[str]
) -> None:
    names = start.locator(".tiles .tile span").all_inner_texts()
    assert names == [entry["name"] for entry in ENTRIES]
    assert len(names) >= 6
    assert start.inner_text(CHECKED) == ENTRIES[0]["name"]
    start.wait_for_selector(".scenery img.shown")
    assert "toy world at best" in start.inner_text(".words > .fine")
    last = ENTRIES[-1]
    start.click(f".tile:has-text('{last['name']}')")
    start.wait_for_selector(f".scenery img.shown[alt='{last['name']}']")
    assert start.input_value("textarea") == last["prompt"]
    assert start.locator(".tile img[loading='lazy']").count() == len(ENTRIES)
    assert complaints == []


def test_what_is_chosen_is_what_is_sent(start: Page, complaints: list[str]) -> None:
    scripted = Scripted(start)
    entry = ENTRIES[1]
    start.click(f".tile:has-text('{entry['name']}')")
    start.get_by_role("button", name="Options").click()
    start.get_by_role("textbox", name="Seed").fill("7321")
    start.get_by_label("Finest").check()
    start.get_by_role("button", name="Enter the world").click()
    enter = scripted.await_message(client.Enter)
    assert enter.image == GALLERY.joinpath(entry["file"]).read_bytes()
    assert (enter.prompt, enter.seed, enter.quality) == (entry["prompt"], 7321, 95)
    assert enter.format == "jpeg", "all that this server has"
    assert complaints == []


def test_a_seed_that_is_none_is_refused_in_words(start: Page) -> None:
    start.get_by_role("button", name="Options").click()
    start.get_by_role("textbox", name="Seed").fill("seven")
    start.get_by_role("button", name="Enter the world").click()
    start.wait_for_selector("[role=alert]:has-text('whole number')")
    assert start.locator(".stage").count() == 0


@pytest.mark.parametrize("way", ["drop", "paste", "open"])
def test_a_picture_of_ones_own_is_taken(start: Page, complaints: list[str], way: str) -> None:
    scripted = Scripted(start)
    if way == "open":
        own = FilePayload(name="own.png", mimeType="image/png", buffer=own_picture())
        start.set_input_files("input[aria-label='Picture file']", files=own)
    else:
        start.evaluate(HAND_OVER, [way, "own.png", base64.b64encode(own_picture()).decode()])
    start.wait_for_selector(".scenery img[alt='own.png'].shown")
    assert start.inner_text(CHECKED) == "own.png"
    assert "toy world at best" in start.inner_text(".fine.loud")
    assert start.locator(".dropping").count() == 0
    start.get_by_role("button", name="Enter the world").click()
    enter = scripted.await_message(client.Enter)
    assert sent_size(enter) == (900, 540)
    assert enter.prompt
    assert complaints == []


def test_what_is_no_picture_is_refused_in_words(start: Page) -> None:
    broken = FilePayload(name="notes.png", mimeType="image/png", buffer=b"no picture")
    start.set_input_files("input[aria-label='Picture file']", files=broken)
    start.wait_for_selector("[role=alert]:has-text('not a picture')")
    assert start.inner_text(CHECKED) == ENTRIES[0]["name"]


def test_a_photo_is_taken_with_the_camera(visit: Visit, page_address: str) -> None:
    page = visit(viewport={"width": 1280, "height": 768}, permissions=["camera"])
    page.add_init_script(FAKE_CAMERA)
    scripted = Scripted(page)
    page.goto(page_address)
    page.wait_for_selector(f"{CHECKED} img")
    page.get_by_role("button", name="Take a photo").click()
    page.wait_for_selector("dialog button:enabled:has-text('Take it')")
    screenshot(page, "photo")
    page.get_by_role("button", name="Take it").click()
    page.wait_for_selector(".scenery img[alt='Your photo'].shown")
    page.get_by_role("button", name="Enter the world").click()
    assert sent_size(scripted.await_message(client.Enter)) == (640, 384)


# A camera of moving colours; headless browsers have none.
FAKE_CAMERA = """
navigator.mediaDevices.getUserMedia = async () => {
  const canvas = document.createElement("canvas");
  canvas.width = 640;
  canvas.height = 384;
  const context = canvas.getContext("2d");
  let hue = 20;
  setInterval(() => {
    const sky = context.createLinearGradient(0, 0, 0, 384);
    sky.addColorStop(0, `hsl(${hue++} 60% 60%)`);
    sky.addColorStop(1, `hsl(${hue + 40} 70% 30%)`);
    context.fillStyle = sky;
    context.fillRect(0, 0, 640, 384);
  }, 50);
  return canvas.captureStream(20);
};
"""


def test_the_keyboard_alone_chooses_enters_walks_sets_and_leaves(
    start: Page, complaints: list[str]
) -> None:
    scripted = Scripted(start)
    keys = start.keyboard
    _tab_to(start, ".tile input:checked")
    keys.press("ArrowRight")
    keys.press("ArrowRight")
    assert start.inner_text(CHECKED) == ENTRIES[2]["name"]
    assert start.input_value("textarea") == ENTRIES[2]["prompt"]
    keys.press("Enter")
    scripted.open()
    start.wait_for_selector(".stage.live.shown")
    keys.down("ArrowLeft")
    assert scripted.await_message(client.Keys).held == ("j",)
    keys.up("ArrowLeft")
    keys.press("t")
    keys.type("rain")
    keys.press("Enter")
    assert scripted.await_message(client.Prompt).text == "rain"
    keys.press("Comma")
    start.wait_for_selector("dialog.drawer[open]")
    inside = "document.activeElement.closest('dialog') !== null"
    for _ in range(6):
        keys.press("Tab")
        assert start.evaluate(f"() => {inside}")
        assert _outlined(start)
    keys.press("Escape")
    start.wait_for_selector("dialog", state="detached")
    _tab_to(start, ".tools button[data-tool='close']")
    assert _outlined(start)
    keys.press("Enter")
    scripted.await_message(client.Leave)
    start.wait_for_selector(".stage", state="detached")
    assert complaints == []


def _tab_to(page: Page, selector: str) -> None:
    for _ in range(40):
        page.keyboard.press("Tab")
        if page.evaluate("(wanted) => document.activeElement.matches(wanted)", selector):
            return
    raise AssertionError(f"Tab does not lead to {selector}")


def _outlined(page: Page) -> bool:
    """Whether the focus can be seen: on the element, or on what is drawn in its place."""
    return page.evaluate(
        """() => {
          const one = document.activeElement;
          const all = [one, one.nextElementSibling, one.parentElement].filter(Boolean);
          return all.some((each) => {
            const style = getComputedStyle(each);
            return style.outlineStyle !== "none" || style.borderColor === "rgb(244, 177, 131)";
          });
        }"""
    )


def test_nothing_moves_by_itself_for_who_asked_for_that(visit: Visit, page_address: str) -> None:
    page = visit(viewport={"width": 1280, "height": 768}, reduced_motion="reduce")
    scripted = Scripted(page)
    page.goto(page_address)
    page.wait_for_selector(f"{CHECKED} img")
    page.click("button.enter")
    scripted.await_message(client.Enter)
    page.wait_for_selector(".overlay .line")
    page.wait_for_timeout(100)
    running = page.evaluate(
        "() => document.getAnimations().filter((one) => one.playState === 'running').length"
    )
    assert running == 0


def test_two_thumbs_are_the_sticks(visit: Visit, page_address: str) -> None:
    page = visit(**PHONE)
    scripted = Scripted(page)
    page.goto(page_address)
    page.wait_for_selector(f"{CHECKED} img")
    page.tap("button.enter")
    scripted.open()
    page.wait_for_selector(".stage.live.shown")
    assert page.locator(".pad").first.is_hidden()
    touch = page.context.new_cdp_session(page)
    _touch(touch, "touchStart", (90, 600))
    _touch(touch, "touchMove", (90, 540))
    page.wait_for_selector(".ring.move:not(.resting)")
    pad = scripted.await_message(client.Pad)
    assert pad.z > 0.5
    assert abs(pad.x) < 0.1
    screenshot(page, "phone-sticks")
    after = len(scripted.heard)
    _touch(touch, "touchEnd")
    assert scripted.await_message(client.Pad, after=after).z == 0
    page.wait_for_selector(".ring.resting.move")


def _touch(session: CDPSession, kind: str, *points: tuple[int, int]) -> None:
    fingers = [{"x": x, "y": y} for x, y in points]
    session.send("Input.dispatchTouchEvent", {"type": kind, "touchPoints": fingers})
