"""The H.264 that all viewers of one world share: its encoder, key frames and bitrate.

One access unit per picture, in order; the caller sees to it that one is made at a time. Nothing is
encoded while nobody can use it, and the stream begins anew with a key frame then.
"""

from __future__ import annotations

import functools
import logging
from concurrent.futures import Executor
from typing import NamedTuple

from worldline.core.clock import Clock
from worldline.media.h264 import AccessUnit, H264Encoder, usual_kbps
from worldline.server.live.bitrate import Bitrate, Holder, follow
from worldline.server.live.following import Unit
from worldline.server.live.idr import KeyFrames, decide, restarted
from worldline.server.live.renditions import Picture, Pixels, unit
from worldline.server.waiting import in_thread

logger = logging.getLogger("worldline.server.stream")


class Need(NamedTuple):
    """Who needs what of the next picture; see `idr`."""

    followed: bool
    urgent: bool
    patient: bool


class Stream:
    """The shared stream of one world."""

    def __init__(self, clock: Clock, encoders: Executor, *, kbps: int = 0) -> None:
        self.fps = 16
        self.chunk_s = 1.0
        self.share = 1.0
        self.asked_kbps = kbps  # 0 is what the size asks for
        self.limit_kbps = 0  # what the holder's network says it can carry; 0 is unknown
        self._clock = clock
        self._encoders = encoders
        self._encoder: H264Encoder | None = None
        self._size = (0, 0)
        self._keys = KeyFrames()
        self._bitrate: Bitrate | None = None
        self._key_count = 0

    @property
    def kbps(self) -> int:
        """Bitrate of the next picture, in kbit/s; 0 before the first."""
        return 0 if self._bitrate is None else round(self._bitrate.kbps * self.share)

    @property
    def key_frames(self) -> int:
        """Key frames so far."""
        return self._key_count

    async def make(self, picture: Picture, need: Need, holder: Holder) -> Unit | None:
        """The next access unit; None when nobody can use it.

        Raises: what the encoder raises; the next call begins anew then.
        """
        if not (need.followed or need.urgent or need.patient):
            self._keys = restarted(self._keys)
            return None
        now = self._clock.now()
        encoder = self._fitting(picture.pixels)
        self._steer(encoder, now, holder)
        keys, key = decide(self._keys, now, urgent=need.urgent, patient=need.patient)
        call = functools.partial(encoder.encode, picture.pixels, key=key)
        try:
            made = await in_thread(self._encoders, call)
        except BaseException:
            self.close()
            raise
        self._keys = keys
        self._key_count += made.key
        return self._unit(picture, made)

    def close(self) -> None:
        """Drop the encoder; the next picture begins a new stream."""
        self._encoder = None
        self._keys = restarted(self._keys)

    def _fitting(self, pixels: Pixels) -> H264Encoder:
        """The encoder for pictures of this size."""
        height, width, _ = pixels.shape
        if self._encoder is None or self._size != (width, height):
            self.close()
            self._size = (width, height)
            self._encoder = H264Encoder(width, height, self.fps, kbps=self._most())
        return self._encoder

    def _steer(self, encoder: H264Encoder, now: float, holder: Holder) -> None:
        before, most = self._bitrate or Bitrate(self._most()), self._most()
        self._bitrate = follow(before, now, holder, chunk_s=self.chunk_s, most=most)
        encoder.kbps = self.kbps

    def _most(self) -> int:
        width, height = self._size
        asked = self.asked_kbps or usual_kbps(width, height, self.fps)
        return min(asked, self.limit_kbps) if self.limit_kbps else asked

    def _unit(self, picture: Picture, made: AccessUnit) -> Unit:
        return unit(
            picture,
            "h264",
            made.data,
            encoded_ms=1000 * self._clock.now(),
            key=made.key,
            codec=made.codec,
        )
