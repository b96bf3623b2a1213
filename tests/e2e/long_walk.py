"""A long walk by script in a real browser: `python -m tests.e2e.long_walk --seconds 180`.

Starts a server of its own, enters the first world of the gallery, walks with changing keys, types
another prompt half way, and takes pictures after 5, 60 and 180 seconds. Prints one JSON object:
frames, rate, stalls (nothing drawn for over 400 ms) and the HUD's own figures from key to picture.
"""

from __future__ import annotations

import argparse
import json
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from playwright.sync_api import Page, sync_playwright

from recipes.pocket.gallery import known_scenes
from recipes.pocket.scenes import Scene
from tests.e2e.browsers import FLAGS, MISSING, find_browser
from tests.e2e.conftest import STEP_LIMIT_MS, listen
from tests.e2e.serving import serving
from tests.e2e.walking import QUALITY, SCREENSHOTS, drawn, enter, last_input, until_shown
from tests.e2e.wander import Leg, Walker

LATENT_S = 0.25  # four pictures at 16 a second
SHOTS = {"walk-0m05": 5.0, "walk-1m00": 60.0, "walk-3m00": 180.0}
CODES = {"w": "KeyW", "a": "KeyA", "s": "KeyS", "d": "KeyD"} | {
    "i": "ArrowUp", "j": "ArrowLeft", "k": "ArrowDown", "l": "ArrowRight",
}  # fmt: skip

# Remembers the first chunk that showed each input.
WATCH = """() => {
  const view = document.querySelector("canvas.view");
  window.firstChunk = [];
  const look = () => {
    const [event, chunk] = [Number(view.dataset.event), Number(view.dataset.chunk)];
    if (event > (window.firstChunk.at(-1)?.[0] ?? -1)) window.firstChunk.push([event, chunk]);
  };
  new MutationObserver(look).observe(view, { attributes: true, attributeFilter: ["data-drawn"] });
}"""
FIRST_CHUNK = "(event) => window.firstChunk.find(([seen]) => seen >= event)[1]"


class Visit:
    """One visitor's hands: presses keys, waits, takes pictures when their time has come."""

    def __init__(self, page: Page, shots: Mapping[Path, float]) -> None:
        self.page = page
        self._shots = sorted(shots.items(), key=lambda shot: shot[1])
        page.evaluate(WATCH)
        self._began = time.monotonic()

    @property
    def seconds(self) -> float:
        """Time since the walk began."""
        return time.monotonic() - self._began

    def hold(self, leg: Leg) -> int:
        """Hold a leg's keys; returns for how many latent frames the world was told so."""
        for key in leg.keys:
            self.page.keyboard.down(CODES[key])
        pressed = last_input(self.page)
        self.rest(leg.latents * LATENT_S)
        for key in leg.keys:
            self.page.keyboard.up(CODES[key])
        until_shown(self.page)
        first, after = (self.page.evaluate(FIRST_CHUNK, pressed + i) for i in (0, 1))
        return max(1, after - first)  # a press too short to be seen moves one latent frame

    def say(self, prompt: str) -> float:
        """Type another prompt; seconds until the page shows what was made from it."""
        self.page.keyboard.press("KeyT")
        self.page.keyboard.type(prompt)
        self.page.keyboard.press("Enter")
        hint = self.page.wait_for_selector(".prompt .hint:text('shown after')")
        until_shown(self.page)
        found = re.search(r"[\d.]+", hint.inner_text() if hint else "")
        assert found is not None, "the hint says after how many seconds"
        return float(found[0])

    def rest(self, seconds: float) -> None:
        """Let time pass; due pictures are taken on the way."""
        end = self.seconds + seconds
        while self._shots and self._shots[0][1] <= end:
            path, at = self._shots.pop(0)
            self.page.wait_for_timeout(1000 * max(0.0, at - self.seconds))
            self.page.screenshot(path=path, type="jpeg", quality=QUALITY)
        self.page.wait_for_timeout(1000 * max(0.0, end - self.seconds))


def walk(page: Page, seconds: float, shots: Mapping[Path, float]) -> dict[str, Any]:
    """Enter the first world of the gallery and walk it; what the page measured meanwhile."""
    here, words = _here()
    enter(page)
    visit, walker = Visit(page, shots), Walker(here, here.starts[0])
    before, rates, closest, prompt_s = drawn(page), [], walker.room(), None
    while visit.seconds < seconds:
        if prompt_s is None and visit.seconds > seconds / 2:
            prompt_s = visit.say(words)
        leg = walker.next_leg()
        walker.walked(leg.keys, visit.hold(leg))
        closest = min(closest, walker.room())
        rates.append(float(page.inner_text(".figure.fps b").replace("–", "0")))
    elapsed = visit.seconds
    return {
        "seconds": round(elapsed, 1),
        "frames": drawn(page) - before,
        "fps": round((drawn(page) - before) / elapsed, 2),
        "lowest_hud_fps": min(rates),
        "stalls": _fact(page, "fps", "stalls"),
        "longest_gap_ms": _fact(page, "fps", "longest-ms"),
        "key_to_picture_ms": {
            name: _fact(page, "latency", key)
            for name, key in (("count", "count"), ("median", "median-ms"), ("p95", "p95-ms"))
        },
        "prompt_shown_after_s": prompt_s,
        "latent_frames_held": walker.held,
        "closest_m": round(closest, 2),
        "model": page.text_content(".server b"),
    }


def _here() -> tuple[Scene, str]:
    """The first world, and new words that move no column.

    Those of the same shapes in another light; other words for the same place where the weights
    know no such world.
    """
    here, *others = known_scenes()
    twins = [scene.starts[0] for scene in others if scene.layout == here.layout]
    return here, (twins or here.starts[1:])[0].prompt


def _fact(page: Page, figure: str, name: str) -> int:
    """A number that the HUD knows beyond what it shows."""
    return int(page.get_attribute(f".figure.{figure}", f"data-{name}") or 0)


def main() -> None:
    """Command line."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seconds", type=float, default=180.0)
    parser.add_argument("--out", type=Path, default=SCREENSHOTS, help="folder of the pictures")
    parser.add_argument("--model", default="pocket")
    args = parser.parse_args()
    path = find_browser()
    if path is None:
        parser.error(MISSING)
    args.out.mkdir(parents=True, exist_ok=True)
    shots = {args.out / f"{name}.jpg": at for name, at in SHOTS.items() if at <= args.seconds}
    complaints: list[str] = []
    with serving(["--model", args.model, "--seats", "1"]) as address, sync_playwright() as play:
        browser = play.chromium.launch(executable_path=path, args=FLAGS)
        page = browser.new_page(viewport={"width": 1280, "height": 768})
        page.set_default_timeout(STEP_LIMIT_MS)
        listen(page, complaints)
        page.goto(f"{address}?probe")
        page.wait_for_selector(".server.ready")
        report = walk(page, args.seconds, shots)
        browser.close()
    print(json.dumps(report | {"complaints": complaints}, indent=2))


if __name__ == "__main__":
    main()
