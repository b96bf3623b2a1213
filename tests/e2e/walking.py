"""What a visitor's hands and eyes do, for the browser tests."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import numpy as np
from playwright.sync_api import Page

from tests.e2e.motion import Frames

WIDTH, HEIGHT = 160, 96  # the pocket world's own size
FRAME_LIMIT_MS = 180_000
QUALITY = 82  # of JPEG screenshots: large soft pictures, a tenth of a PNG
MOST_BYTES = 115_000
SCREENSHOTS = Path(__file__).resolve().parents[2] / "docs" / "screenshots"

# Copies every newly drawn frame of the canvas, in grey, until there are `count` of them that show
# the input `event` or a newer one.
RECORD = """
([count, event, width, height]) => new Promise((resolve) => {
  const view = document.querySelector("canvas.view");
  const copy = document.createElement("canvas");
  copy.width = width;
  copy.height = height;
  const context = copy.getContext("2d", { willReadFrequently: true });
  const frames = [];
  let drawn = view.dataset.drawn;
  const look = () => {
    if (view.dataset.drawn !== drawn && Number(view.dataset.event) >= event) {
      context.drawImage(view, 0, 0, width, height);
      const rgba = context.getImageData(0, 0, width, height).data;
      let grey = "";
      for (let i = 0; i < rgba.length; i += 4) {
        grey += String.fromCharCode(Math.round((rgba[i] + 2 * rgba[i + 1] + rgba[i + 2]) / 4));
      }
      frames.push(btoa(grey));
    }
    drawn = view.dataset.drawn;
    if (frames.length < count) requestAnimationFrame(look);
    else resolve(frames);
  };
  look();
})
"""

DROP = """
([name, bytes, type]) => {
  const data = new DataTransfer();
  data.items.add(new File([new Uint8Array(bytes)], name, { type }));
  const target = document.querySelector(".stage") ?? document.querySelector("form.start");
  const init = { bubbles: true, cancelable: true, dataTransfer: data };
  target.dispatchEvent(new DragEvent("drop", init));
}
"""


def last_input(page: Page) -> int:
    """The id of the newest input that was sent; the page was opened with `?probe`."""
    return int(page.evaluate("window.__worldline.inputs().at(-1)?.id ?? 0"))


def enter(page: Page) -> None:
    """Start the chosen world and wait for its first frame."""
    page.click("button.enter")
    page.wait_for_selector(".stage.live.shown", timeout=FRAME_LIMIT_MS)


def drawn(page: Page) -> int:
    """Frames drawn so far."""
    return int(page.get_attribute("canvas.view", "data-drawn") or 0)


def shown_event(page: Page) -> int:
    """The newest input that the drawn frame shows."""
    return int(page.get_attribute("canvas.view", "data-event") or 0)


def number(page: Page) -> int:
    """The running number of the drawn frame, counted from its world's start."""
    return int(page.get_attribute("canvas.view", "data-number") or 0)


def wait_for_frames(page: Page, count: int) -> None:
    """Wait until `count` more frames were drawn."""
    page.wait_for_function(
        "(target) => Number(document.querySelector('canvas.view').dataset.drawn) >= target",
        arg=drawn(page) + count,
        timeout=FRAME_LIMIT_MS,
    )


def record(page: Page, count: int, *, event: int = 0) -> Frames:
    """The next `count` drawn frames that show input `event` or a newer one: `F H W`, grey."""
    begin_record(page, count, event=event)
    return recorded(page, count)


def begin_record(page: Page, count: int, *, event: int) -> None:
    """Let the page `record` by itself, while the test does something; see `recorded`."""
    page.evaluate(
        f"(what) => {{ window.__recorded = ({RECORD.strip()})(what); }}",
        [count, event, WIDTH, HEIGHT],
    )


def recorded(page: Page, count: int) -> Frames:
    """Wait for the end of what `begin_record` began."""
    encoded = page.evaluate("window.__recorded")
    flat = [np.frombuffer(base64.b64decode(frame), np.uint8) for frame in encoded]
    return np.stack(flat).reshape(count, HEIGHT, WIDTH).astype(np.float64)


def hold(page: Page, key: str, count: int) -> Frames:
    """Hold `key` for `count` frames that show it; the recording leaves out the frames before."""
    before = last_input(page)
    page.keyboard.down(key)
    frames = record(page, count, event=before + 1)
    page.keyboard.up(key)
    until_shown(page)
    return frames


def until_shown(page: Page) -> None:
    """Wait until a drawn frame shows the newest input; the page was opened with `?probe`."""
    page.wait_for_function(
        "() => Number(document.querySelector('canvas.view').dataset.event)"
        " >= window.__worldline.inputs().at(-1).id",
        timeout=FRAME_LIMIT_MS,
    )


def drop_file(page: Page, name: str, data: bytes, kind: str = "") -> None:
    """Drop a file on the stage, or on the start screen where there is none."""
    page.evaluate(DROP, [name, list(data), kind])


def screenshot(page: Page, name: str) -> None:
    """Keep a picture of the page in docs/ when WORLDLINE_WRITE_SCREENSHOTS=1."""
    if os.environ.get("WORLDLINE_WRITE_SCREENSHOTS") != "1":
        return
    SCREENSHOTS.mkdir(parents=True, exist_ok=True)
    page.wait_for_timeout(700)  # what fades in is there
    for quality in (QUALITY, 70, 55):
        picture = page.screenshot(type="jpeg", quality=quality)
        if len(picture) < MOST_BYTES:
            break
    (SCREENSHOTS / f"{name}.jpg").write_bytes(picture)
