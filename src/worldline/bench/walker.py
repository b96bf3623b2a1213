"""A real browser that walks the page and tells what it measured; driven by Playwright.

The page keeps the measurements itself (`web/client/src/probe.ts`), with its own clock: what is
measured here is what a visitor sees, and driving the keys from outside adds nothing to it.
"""

from __future__ import annotations

import json
import os
import random
import shutil
from collections.abc import Callable, Generator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final

import msgspec

from worldline.core.actions import ACTIONS
from worldline.core.errors import ConfigError, ProtocolError
from worldline.core.secret import Secret

if TYPE_CHECKING:
    from playwright.sync_api import Page

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
INSTALL: Final = (
    "pip install playwright, and a Chromium: a package of the system, `playwright install chromium`"
    " or WORLDLINE_CHROMIUM=/path"
)
FLAGS: Final = (
    "--no-sandbox",
    "--disable-quic",
    "--no-first-run",
    "--autoplay-policy=no-user-gesture-required",
)
LIMIT_MS: Final = 120_000.0  # of one step of the browser, on a busy machine
ACCESS: Final = "worldline.access"  # of the page's storage, see web/src/state/memory.ts
POLL_S: Final = 4.0  # the page keeps its newest 512 frames and inputs
HOLD_MS: Final = (120.0, 500.0)
REST_MS: Final = (250.0, 1200.0)

BEGIN: Final = """() => {
  const probe = window.__worldline;
  window.__chunks = [];
  probe.world.on("chunk", (chunk) => window.__chunks.push(chunk));
  const opened = probe.world.opened.value;
  const { fps, chunk, latent_frames, width, height } = opened;
  const decoder = probe.world.decoder.value;
  const { model } = probe.world.ready.value;
  return { model, fps, chunk, latent_frames, width, height, format: decoder?.format ?? "" };
}"""
READ: Final = """() => {
  const probe = window.__worldline;
  const chunks = window.__chunks.splice(0);
  const { stalls, stallRate, kbps, fps, dropped } = probe.figures();
  return {
    phase: probe.phase(), clock: probe.clock(), frames: probe.frames(), inputs: probe.inputs(),
    chunks: chunks.map(({ index, frames, stages, real_time_factor, misses, levers }) =>
      ({ index, frames, stages, real_time_factor, misses, levers: [...levers] })),
    figures: { stalls, stallRate, kbps, fps, dropped },
  };
}"""


class Scene(msgspec.Struct, frozen=True):
    """The world that is walked."""

    model: str
    fps: int
    chunk: int
    latent_frames: int
    width: int
    height: int
    format: str

    @property
    def chunk_ms(self) -> float:
        """How long a chunk plays."""
        return self.chunk * self.latent_frames * 1000.0 / self.fps


class Clock(msgspec.Struct, frozen=True, rename="camel"):
    """The page's knowledge of the server's clock, in ms."""

    offset_ms: float
    rtt_ms: float


class Shot(msgspec.Struct, frozen=True, rename="camel"):
    """A frame that was painted; `encoded_ms` is server time, the others the page's."""

    number: int
    encoded_ms: float
    received_ms: float
    decoded_ms: float
    painted_ms: float
    display_ms: float


class Press(msgspec.Struct, frozen=True, rename="camel"):
    """An input and what became of it."""

    id: int
    kind: str
    parts: dict[str, float] | None
    total_ms: float | None


class ChunkTimes(msgspec.Struct, frozen=True):
    """What the server said of one chunk."""

    index: int
    frames: int
    stages: dict[str, float]
    real_time_factor: float
    misses: int
    levers: tuple[str, ...]


class Figures(msgspec.Struct, frozen=True, rename="camel"):
    """What the page's HUD shows."""

    stalls: int
    stall_rate: float
    kbps: float | None
    fps: float | None
    dropped: int


class Reading(msgspec.Struct, frozen=True):
    """Everything at one moment."""

    phase: str
    clock: Clock | None
    frames: tuple[Shot, ...]
    inputs: tuple[Press, ...]
    chunks: tuple[ChunkTimes, ...]
    figures: Figures


class Walk(msgspec.Struct, kw_only=True):
    """All readings of one walk, put together."""

    scene: Scene
    clock: Clock | None = None
    frames: dict[int, Shot] = {}
    presses: dict[int, Press] = {}
    chunks: list[ChunkTimes] = []
    kbps: list[float] = []
    fps: list[float] = []
    stalls: int = 0
    stall_rate: float = 0.0
    dropped: int = 0
    seconds: float = 0.0

    def add(self, reading: Reading) -> None:
        """One more."""
        self.clock = reading.clock or self.clock
        self.frames |= {shot.number: shot for shot in reading.frames}
        self.presses |= {press.id: press for press in reading.inputs}
        self.chunks += reading.chunks
        figures = reading.figures
        self.stalls, self.stall_rate = figures.stalls, figures.stall_rate
        self.dropped = figures.dropped
        self.kbps += [figures.kbps] if figures.kbps is not None else []
        self.fps += [figures.fps] if figures.fps is not None else []


def walk(
    address: str,
    seconds: float,
    *,
    seed: int = 0,
    token: Secret | None = None,
    on_time: Callable[[float], None] = lambda s: None,
) -> Walk:
    """Walk the page at `address` for so many seconds with keys at random phases.

    `token` is the key of a server that asks for one. Raises: ConfigError without a browser,
    ProtocolError when the page does not get into a world.
    """
    with _page() as page:
        if token is not None:  # where the page itself keeps what a visitor types
            page.add_init_script(
                f"sessionStorage.setItem({ACCESS!r}, {json.dumps(token.reveal())})"
            )
        scene = msgspec.convert(_enter(page, address), Scene)
        found = Walk(scene=scene)
        chance = random.Random(seed)
        spent = polled = 0.0
        while spent < seconds:
            spent += _press(page, chance)
            if spent - polled >= POLL_S:
                polled = spent
                found.add(_read(page))
                on_time(min(spent, seconds))
        page.wait_for_timeout(2 * scene.chunk_ms)  # what was pressed last is to be seen, too
        found.add(_read(page))
        found.seconds = spent
        return found


def _press(page: Page, chance: random.Random) -> float:
    """One key, down and up again; how long it took, in seconds."""
    key, hold, rest = chance.choice(ACTIONS), chance.uniform(*HOLD_MS), chance.uniform(*REST_MS)
    page.keyboard.down(key)
    page.wait_for_timeout(hold)
    page.keyboard.up(key)
    page.wait_for_timeout(rest)
    return (hold + rest) / 1000


def _read(page: Page) -> Reading:
    reading = msgspec.convert(page.evaluate(READ), Reading, strict=False)
    if reading.phase != "live":
        raise ProtocolError("the walk ended early", expected="live", got=reading.phase)
    return reading


def _enter(page: Page, address: str) -> dict[str, Any]:
    """Open the page and its first world; what that world is."""
    from playwright.sync_api import Error

    try:
        page.goto(f"{address.rstrip('/')}/?probe=1")
        page.wait_for_selector(".server.ready")
        page.click("button.enter")
        page.wait_for_function("() => window.__worldline?.phase() === 'live'")
        page.wait_for_function("() => window.__worldline.frames().length > 16")
        return page.evaluate(BEGIN)
    except Error as error:
        raise ProtocolError("the page did not get into a world", got=error.message) from error


@contextmanager
def _page() -> Generator[Page]:
    """A tab of a headless Chromium. Raises: ConfigError."""
    try:
        from playwright.sync_api import Error, sync_playwright
    except ImportError as error:
        raise ConfigError("no browser to measure with", expected=INSTALL) from error
    with sync_playwright() as playwright:
        try:
            browser = playwright.chromium.launch(executable_path=find_browser(), args=list(FLAGS))
        except Error as error:
            raise ConfigError("no browser to measure with", expected=INSTALL) from error
        try:
            context = browser.new_context(viewport={"width": 1280, "height": 768})
            context.set_default_timeout(LIMIT_MS)
            yield context.new_page()
        finally:
            browser.close()


def need_browser() -> None:
    """Open one and close it again, before anything else is begun. Raises: ConfigError."""
    with _page():
        pass


def find_browser() -> str | None:
    """WORLDLINE_CHROMIUM, else an installed one; None leaves it to Playwright."""
    named = os.environ.get("WORLDLINE_CHROMIUM")
    return named or next((path for name in NAMES if (path := shutil.which(name))), None)
