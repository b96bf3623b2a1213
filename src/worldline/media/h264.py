"""Pixels to H.264 in Annex B, one access unit per picture, at once: no B-frames, no look-ahead.

x264 through PyAV (the extra `video`; without it `available()` is False). SPS and PPS stand before
every IDR, and they alone say how to read the stream: BT.709 matrix, full range, and transfer and
primaries of sRGB, as our pixels are. Full range not only for precision: browsers that convert in
software take limited-range BT.709 with a coefficient for blue that is 12 levels off.
"""

# PyAV's stubs leave type arguments out.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import importlib.util
from fractions import Fraction
from typing import TYPE_CHECKING, Final, NamedTuple

import numpy as np
from numpy.typing import NDArray

from worldline.core.errors import ConfigError, ShapeError
from worldline.media import sps

if TYPE_CHECKING:
    from av.video.codeccontext import VideoCodecContext
    from av.video.frame import VideoFrame

BT709: Final = 1  # primaries and matrix, in the numbering of H.264
SRGB: Final = 13  # transfer
FULL_RANGE: Final = 2  # in FFmpeg's numbering
LEAST_KBPS: Final = 50
BITS_PER_PIXEL: Final = 0.45
BUFFER_S: Final = 0.5  # how long a burst above the bitrate may last
# Below a quantiser of 10 nothing is gained that 4:2:0 has not lost already; chroma gets finer steps
# than luma, because one level of it is nearly two of blue or red.
_X264: Final = (
    "keyint=infinite:scenecut=0:bframes=0:annexb=1:repeat-headers=1:threads=1"
    ":qpmin=10:chroma-qp-offset=-6"
)


class AccessUnit(NamedTuple):
    """One picture: Annex B bytes; `codec` (RFC 6381) comes with every key frame, else None."""

    data: bytes
    key: bool
    codec: str | None


def available() -> bool:
    """Whether this Python can encode H.264."""
    return importlib.util.find_spec("av") is not None


def usual_kbps(width: int, height: int, fps: int) -> int:
    """A bitrate at which generated worlds look clean, in kbit/s, by pixels per second."""
    return min(max(1_000, round(width * height * fps * BITS_PER_PIXEL / 1000)), 12_000)


class H264Encoder:
    """One stream. Not thread-safe: one call at a time, from any thread."""

    def __init__(self, width: int, height: int, fps: int, *, kbps: int = 0) -> None:
        """Sizes in pixels; `kbps` 0 is `usual_kbps`.

        Raises: ConfigError without PyAV, and for odd sizes (colour is stored at half resolution).
        """
        if not available():
            raise ConfigError(
                "H.264 needs PyAV", expected='pip install "worldline[video]"', got="no module av"
            )
        if width % 2 or height % 2:
            raise ConfigError("H.264 needs even sizes", got=f"{width}x{height}")
        self._shape = (height, width, 3)
        self._fps = fps
        self._kbps = kbps or usual_kbps(width, height, fps)
        self._codec = _open(width, height, fps, self._kbps)
        self._count = 0
        self.parameters: sps.Sps | None = None

    @property
    def kbps(self) -> int:
        """Bitrate in kbit/s; setting it holds from the next picture on, without a key frame."""
        return self._kbps

    @kbps.setter
    def kbps(self, value: int) -> None:
        self._kbps = max(LEAST_KBPS, value)
        if self._codec.bit_rate != 1000 * self._kbps:
            self._codec.bit_rate = 1000 * self._kbps

    def encode(self, pixels: NDArray[np.uint8], *, key: bool = False) -> AccessUnit:
        """The next picture (RGB `H W 3`); `key` makes it an IDR. The first one always is.

        Raises: ShapeError when it is not of this stream's size.
        """
        if pixels.shape != self._shape or pixels.dtype != np.uint8:
            expected = f"uint8 {list(self._shape)}"
            got = f"{pixels.dtype} {list(pixels.shape)}"
            raise ShapeError("a picture of another size", expected=expected, got=got)
        picture = to_yuv(pixels)
        picture.pts = self._count
        picture.time_base = Fraction(1, self._fps)
        if key:
            from av.video.frame import PictureType

            picture.pict_type = PictureType.I
        self._count += 1
        packets = self._codec.encode(picture)
        assert len(packets) == 1, f"x264 gave {len(packets)} packets for one picture"
        return self._unit(bytes(packets[0]), packets[0].is_keyframe)

    def _unit(self, data: bytes, key: bool) -> AccessUnit:
        if not key:
            return AccessUnit(data, False, None)
        first = next(unit for unit in sps.nal_units(data) if sps.nal_type(unit) == sps.SPS)
        self.parameters = sps.parse_sps(first)
        return AccessUnit(data, True, self.parameters.codec)


def _open(width: int, height: int, fps: int, kbps: int) -> VideoCodecContext:
    from av.codec.context import CodecContext
    from av.video.codeccontext import VideoCodecContext

    codec = CodecContext.create("libx264", "w")
    assert isinstance(codec, VideoCodecContext)
    codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
    codec.framerate, codec.time_base = Fraction(fps), Fraction(1, fps)
    codec.thread_count = 1
    codec.bit_rate = 1000 * kbps
    codec.colorspace = codec.color_primaries = BT709
    codec.color_trc, codec.color_range = SRGB, FULL_RANGE
    codec.options = {
        "preset": "ultrafast",
        "tune": "zerolatency",
        "forced-idr": "1",
        "maxrate": f"{kbps}k",
        "bufsize": f"{round(BUFFER_S * kbps)}k",
        "x264-params": _X264,
    }
    return codec


def to_yuv(pixels: NDArray[np.uint8]) -> VideoFrame:
    """RGB to 4:2:0. AREA: chroma is the mean of four pixels, to one level."""
    from av.video.frame import VideoFrame
    from av.video.reformatter import Interpolation

    return VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
        format="yuv420p",
        dst_colorspace=BT709,
        dst_color_range=FULL_RANGE,
        interpolation=Interpolation.AREA,
        threads=1,
    )
