"""Films on disk: one H.264 MP4, or a folder of numbered pictures.

`open_recorder` picks by the path: `film.mp4` is a film, a path without a suffix (or with a slash at
the end) is a folder. MP4 needs PyAV, the extra `video`; its import is delayed to the moment a film
is opened, so that the rest of the package works without it.
"""

# PyAV's stubs leave type arguments out.
# pyright: reportUnknownMemberType=false

from __future__ import annotations

import importlib.util
from fractions import Fraction
from pathlib import Path
from types import TracebackType
from typing import Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from worldline.core.errors import ConfigError, ShapeError
from worldline.media.jpeg import encode_jpeg

BT709 = 1  # matrix, primaries and transfer of the films, in the numbering of H.264
LIMITED_RANGE = 1
CRF = "18"


class Recorder(Protocol):
    """Takes frames in order; leaving the context finishes the film, also after an error."""

    def write(self, frames: NDArray[np.uint8]) -> None:
        """Append `frames` (uint8 RGB `F H W 3`). Raises: ShapeError for other shapes."""
        ...

    def __enter__(self) -> Recorder: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...


def open_recorder(
    path: str | Path,
    fps: int,
    *,
    width: int,
    height: int,
    pictures: Literal["png", "jpeg"] = "png",
) -> Recorder:
    """A recorder for `path`: `*.mp4` is an H.264 film, no suffix or a slash at the end a folder.

    Raises: ConfigError for another suffix, a folder that already holds frames, odd sizes (H.264
    stores colour at half resolution), or a film without the extra `video`.
    """
    target = Path(path)
    if str(path).endswith(("/", "\\")) or not target.suffix:
        return _Folder(target, (height, width, 3), pictures)
    if target.suffix.lower() != ".mp4":
        raise ConfigError(
            "this kind of film cannot be written",
            expected="a path that ends in .mp4, or a folder",
            got=str(path),
        )
    return _Mp4(target, fps, width=width, height=height)


class _Folder:
    """frame_000000.png, frame_000001.png, ..."""

    def __init__(self, folder: Path, shape: tuple[int, int, int], pictures: str) -> None:
        self._folder = folder
        self._shape = shape
        self._suffix = "jpg" if pictures == "jpeg" else "png"
        self._count = 0
        folder.mkdir(parents=True, exist_ok=True)
        if any(folder.glob("frame_*")):
            raise ConfigError(
                "the folder already holds frames", expected="a new folder", got=folder
            )

    def write(self, frames: NDArray[np.uint8]) -> None:
        _check(frames, self._shape)
        for frame in frames:
            path = self._folder / f"frame_{self._count:06d}.{self._suffix}"
            if self._suffix == "jpg":
                path.write_bytes(encode_jpeg(frame))
            else:
                Image.fromarray(frame).save(path)
            self._count += 1

    def __enter__(self) -> _Folder:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        return None


class _Mp4:
    """H.264 in MP4, 4:2:0, BT.709 limited range, index at the front."""

    def __init__(self, path: Path, fps: int, *, width: int, height: int) -> None:
        if importlib.util.find_spec("av") is None:
            raise ConfigError(
                "films need PyAV",
                expected='pip install "worldline[video]", or a folder as the output',
                got="no module named av",
            )
        if width % 2 or height % 2:
            raise ConfigError("films need even sizes", got=f"{width}x{height}")
        import av

        self._shape = (height, width, 3)
        path.parent.mkdir(parents=True, exist_ok=True)
        self._container = av.open(str(path), "w", options={"movflags": "+faststart"})
        self._stream = self._container.add_stream("libx264", rate=fps, options={"crf": CRF})
        self._stream.width, self._stream.height = width, height
        self._stream.pix_fmt = "yuv420p"
        self._stream.time_base = Fraction(1, fps)
        codec = self._stream.codec_context
        codec.colorspace = codec.color_primaries = codec.color_trc = BT709
        codec.color_range = LIMITED_RANGE
        self._count = 0

    def write(self, frames: NDArray[np.uint8]) -> None:
        _check(frames, self._shape)
        from av.video.frame import VideoFrame
        from av.video.reformatter import Colorspace

        for pixels in frames:
            picture = VideoFrame.from_ndarray(pixels, format="rgb24").reformat(
                format="yuv420p", dst_colorspace=Colorspace.ITU709
            )
            picture.pts = self._count
            self._count += 1
            self._container.mux(self._stream.encode(picture))

    def __enter__(self) -> _Mp4:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Finish the file: what was written so far is a playable film."""
        if self._count:
            self._container.mux(self._stream.encode(None))
        self._container.close()


def _check(frames: NDArray[np.uint8], shape: tuple[int, int, int]) -> None:
    if frames.ndim != 4 or frames.shape[1:] != shape or frames.dtype != np.uint8:
        raise ShapeError(
            "frames do not fit the film",
            expected=f"uint8 [F, {shape[0]}, {shape[1]}, 3]",
            got=f"{frames.dtype} {list(frames.shape)}",
        )
