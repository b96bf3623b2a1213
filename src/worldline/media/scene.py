"""A stretch of a film to H.264, complete in itself: it begins with a key frame and loses nothing.

Films are not in a hurry: x264 looks for what costs less at the same quality, where a live stream
must keep to a bitrate. Every stretch has an encoder of its own, so a film can go on after a crash
where its last whole stretch ended. No B-frames: samples are in the order of time.
"""

# PyAV's stubs leave type arguments out.
# pyright: reportUnknownMemberType=false, reportUnknownVariableType=false
# pyright: reportUnknownArgumentType=false

from __future__ import annotations

import io
from fractions import Fraction
from typing import Final

import numpy as np
from numpy.typing import NDArray

from worldline.core.errors import ConfigError, ShapeError
from worldline.media import h264

CRF: Final = "16"
# Without macroblock trees: with them one stream in a hundred differs from the others of the same
# pictures, and a film that was interrupted should be the one that was not.
_X264: Final = (
    "keyint=infinite:scenecut=0:bframes=0:annexb=1:repeat-headers=1:threads=1:mbtree=0"
    ":chroma-qp-offset=-4"
)


def encode_scene(frames: NDArray[np.uint8], fps: int) -> list[bytes]:
    """One access unit in Annex B per picture of `frames` (uint8 RGB `F H W 3`), the first an IDR.

    Raises: ConfigError without PyAV and for odd sizes, ShapeError for other shapes.
    """
    if not h264.available():
        raise ConfigError("films need PyAV", expected='pip install "worldline[video]"')
    if frames.ndim != 4 or frames.shape[3] != 3 or frames.dtype != np.uint8 or not len(frames):
        got = f"{frames.dtype} {list(frames.shape)}"
        raise ShapeError("pictures of another shape", expected="uint8 [F, H, W, 3]", got=got)
    _, height, width, _ = frames.shape
    if width % 2 or height % 2:
        raise ConfigError("H.264 needs even sizes", got=f"{width}x{height}")
    from av.codec.context import CodecContext
    from av.video.codeccontext import VideoCodecContext

    codec = CodecContext.create("libx264", "w")
    assert isinstance(codec, VideoCodecContext)
    codec.width, codec.height, codec.pix_fmt = width, height, "yuv420p"
    codec.framerate, codec.time_base = Fraction(fps), Fraction(1, fps)
    codec.thread_count = 1
    codec.colorspace = codec.color_primaries = h264.BT709
    codec.color_trc, codec.color_range = h264.SRGB, h264.FULL_RANGE
    codec.options = {"preset": "medium", "crf": CRF, "x264-params": _X264}
    units: list[bytes] = []
    for number, pixels in enumerate(frames):
        picture = h264.to_yuv(pixels)
        picture.pts, picture.time_base = number, Fraction(1, fps)
        units += [bytes(packet) for packet in codec.encode(picture)]
    units += [bytes(packet) for packet in codec.encode(None)]
    assert len(units) == len(frames), f"x264 gave {len(units)} packets for {len(frames)} pictures"
    return units


def decode_picture(film: bytes, number: int) -> NDArray[np.uint8]:
    """Picture `number` of a film that is in memory, uint8 RGB `H W 3`.

    Raises: ShapeError when it has no such picture.
    """
    import av
    from av.video.reformatter import Interpolation

    with av.open(io.BytesIO(film), "r") as container:
        for index, frame in enumerate(container.decode(container.streams.video[0])):
            if index == number:
                fine = Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
                picture = frame.reformat(
                    format="rgb24",
                    src_colorspace=h264.BT709,
                    src_color_range=h264.FULL_RANGE,
                    dst_color_range=h264.FULL_RANGE,
                    interpolation=Interpolation.BICUBIC | Interpolation.ACCURATE_RND | fine,
                )
                return np.asarray(picture.to_ndarray(), dtype=np.uint8)
    raise ShapeError("no such picture in the film", got=number)
