"""WebRTC from the shared stream into a real Chromium: it connects and shows the right colours."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from playwright.async_api import Page, async_playwright

from tests.e2e.browsers import FLAGS, MISSING, find_browser
from tests.media.browser_decode import secure_page
from tests.media.charts import chart, off_by
from tests.server.live.stage import Eyes, Stage, opened, staged
from worldline.core.live.server import RtcAnswer
from worldline.server.live import signalling
from worldline.server.live.signalling import Peers

pytestmark = [
    pytest.mark.anyio,
    pytest.mark.browser,
    pytest.mark.skipif(not signalling.available(), reason="WebRTC needs the extra `rtc`"),
]
LIMIT_S = 60.0

_OFFER = """async () => {
  window.peer = new RTCPeerConnection();
  peer.addTransceiver("video", { direction: "recvonly" });
  window.video = document.createElement("video");
  video.muted = true;
  window.shown = [];
  peer.ontrack = (event) => {
    video.srcObject = new MediaStream([event.track]);
    const note = (now, facts) => {
      shown.push(facts.rtpTimestamp);
      video.requestVideoFrameCallback(note);
    };
    video.requestVideoFrameCallback(note);
    video.play();
  };
  await peer.setLocalDescription(await peer.createOffer());
  await new Promise((done) => {
    if (peer.iceGatheringState === "complete") done();
    peer.onicegatheringstatechange = () => peer.iceGatheringState === "complete" && done();
  });
  return peer.localDescription.sdp;
}"""

_PIXELS = """() => {
  const canvas = document.querySelector("canvas");
  [canvas.width, canvas.height] = [video.videoWidth, video.videoHeight];
  const context = canvas.getContext("2d");
  context.drawImage(video, 0, 0);
  return Array.from(context.getImageData(0, 0, canvas.width, canvas.height).data);
}"""


class Charts(Stage):
    """A world that shows the colour chart, standing still."""

    def pixels(self) -> Any:
        return chart()[None].repeat(4, axis=0)


async def connect(page: Page, peers: Peers, eyes: Eyes) -> None:
    peers.offer(eyes.viewer, await page.evaluate(_OFFER))
    await until(lambda: any(isinstance(m, RtcAnswer) for m in eyes.messages))
    answer = next(m for m in eyes.messages if isinstance(m, RtcAnswer))
    await page.evaluate("(sdp) => peer.setRemoteDescription({ type: 'answer', sdp })", answer.sdp)
    await until(lambda: eyes.viewer.following is None)


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not holds():
            await asyncio.sleep(0.02)


async def test_chromium_shows_the_shared_stream() -> None:
    path = find_browser()
    if path is None:
        pytest.skip(MISSING)
    async with staged(Charts) as stage, async_playwright() as play:
        stage.broadcast.opened(opened(width=160, height=96))
        peers = Peers(stage.broadcast, stage.broadcast.config, stage.clock)
        eyes = stage.watch("a", holder=True)
        with secure_page() as address:
            browser = await play.chromium.launch(executable_path=Path(path), args=FLAGS)
            page = await browser.new_page()
            await page.goto(address)
            await connect(page, peers, eyes)
            async with asyncio.timeout(LIMIT_S):
                while await page.evaluate("shown.length") < 20:
                    await stage.latent()
                    await asyncio.sleep(0.1)
            flat = await page.evaluate(_PIXELS)
            times = await page.evaluate("shown")
            await browser.close()
    seen = np.array(flat, np.uint8).reshape(96, 160, 4)[..., :3]
    assert off_by(seen) <= 3
    ticks = 90_000 // 16
    steps = {(b - a) % 2**32 for a, b in pairwise(times)}
    assert all(step % ticks == 0 for step in steps), "a picture's RTP time is its number"
