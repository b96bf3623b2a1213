"""A stream through a browser's own decoder and onto a canvas, and the pixels back."""

from __future__ import annotations

import base64
from collections.abc import Generator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from numpy.typing import NDArray
from playwright.sync_api import Page

from tests.e2e.pages import one_page
from worldline.media.h264 import AccessUnit

# WebCodecs needs a secure context, and about:blank is none; a page on loopback is.
_PAGE = b"<!doctype html><title>decoder</title><canvas></canvas>"

_DECODE = """async ({units, codec, width, height}) => {
  const config = { codec, optimizeForLatency: true };
  const support = await VideoDecoder.isConfigSupported(config);
  if (!support.supported) throw new Error(`${codec} is not supported`);
  const canvas = document.querySelector("canvas");
  [canvas.width, canvas.height] = [width, height];
  const context = canvas.getContext("2d", { willReadFrequently: true });
  const seen = [];
  let spaces = null;
  const decoder = new VideoDecoder({
    output: (frame) => {
      spaces = frame.colorSpace.toJSON();
      context.drawImage(frame, 0, 0);
      frame.close();
      seen.push(context.getImageData(0, 0, width, height).data);
    },
    error: (error) => { seen.error = String(error); },
  });
  decoder.configure(config);
  units.forEach(([key, data], index) => decoder.decode(new EncodedVideoChunk({
    type: key ? "key" : "delta",
    timestamp: 62500 * index,
    data: Uint8Array.from(atob(data), (c) => c.charCodeAt(0)),
  })));
  await decoder.flush();
  if (seen.error) throw new Error(seen.error);
  const pages = seen.map((d) => { let s = ""; for (const b of d) s += String.fromCharCode(b);
                                  return btoa(s); });
  return { pictures: pages, spaces };
}"""


@contextmanager
def secure_page() -> Generator[str]:
    """The address of an empty page in a secure context."""
    with one_page(_PAGE) as origin:
        yield f"{origin}/"


def decode_in_browser(
    page: Page, units: Sequence[AccessUnit], *, width: int, height: int
) -> tuple[list[NDArray[np.uint8]], dict[str, Any]]:
    """Every picture as the canvas shows it (`H W 3`), and the colour space the browser read."""
    given = {
        "units": [[unit.key, base64.b64encode(unit.data).decode()] for unit in units],
        "codec": units[0].codec,
        "width": width,
        "height": height,
    }
    found = page.evaluate(_DECODE, given)
    flat = [np.frombuffer(base64.b64decode(p), np.uint8) for p in found["pictures"]]
    return [p.reshape(height, width, 4)[..., :3] for p in flat], found["spaces"]
