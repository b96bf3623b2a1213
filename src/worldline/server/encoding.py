"""The frames of one chunk to the payloads of its messages.

Frames are read from shared memory in threads; when `encode` returns, the memory is not needed any
more. Raw pixels are copied once, out of shared memory into the message.
"""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Iterator
from concurrent.futures import Executor
from typing import Literal, NamedTuple

import msgspec
import numpy as np
from numpy.typing import NDArray

from worldline.core.messages import (
    ENCODED_FRAMES_PER_MESSAGE,
    RAW_FRAMES_PER_MESSAGE,
    FrameHeader,
)
from worldline.media import jpeg, raw, webp
from worldline.media.resize import preview_size, shrink
from worldline.server.waiting import in_thread

Frames = NDArray[np.uint8]
CONTENT_TYPES = {"raw": "application/x-raw-rgb", "jpeg": "image/jpeg", "webp": "image/webp"}


class OutputFormat(msgspec.Struct, frozen=True, kw_only=True):
    """How frames leave: `quality` 0 means the format's default; `preview_width` in pixels."""

    kind: Literal["raw", "jpeg", "webp"] = "raw"
    quality: int = 0
    preview_width: int | None = None

    @property
    def content_type(self) -> str:
        """The MIME type of the payloads."""
        return CONTENT_TYPES[self.kind]


class Payload(NamedTuple):
    """One message's worth of frames; `lengths` are the bytes of each image, None for raw."""

    data: bytes
    frames: int
    lengths: tuple[int, ...] | None


class EncodedChunk(NamedTuple):
    """All payloads of a chunk; `shape` is that of the generated frames, `(F, H, W, 3)`."""

    payloads: list[Payload]
    shape: tuple[int, ...]
    output: OutputFormat

    @property
    def raw_bytes(self) -> int:
        """Bytes of the generated pixels."""
        return int(np.prod(self.shape))

    @property
    def wire_bytes(self) -> int:
        """Bytes of all payloads."""
        return sum(len(payload.data) for payload in self.payloads)


async def encode(frames: Frames, output: OutputFormat, pool: Executor) -> EncodedChunk:
    """Encode `frames` (`F H W 3`), all of them side by side in `pool`.

    Cancelled or not, no thread reads the frames any more when this ends.
    """
    make = _raw_payload if output.kind == "raw" else functools.partial(_encoded, output=output)
    units = list(_batches(frames, RAW_FRAMES_PER_MESSAGE) if output.kind == "raw" else frames)
    done = await asyncio.gather(
        *(in_thread(pool, functools.partial(make, unit)) for unit in units), return_exceptions=True
    )
    images: list[Payload] = []
    for result in done:
        if isinstance(result, BaseException):
            raise result
        images.append(result)
    payloads = images if output.kind == "raw" else list(_join(images))
    return EncodedChunk(payloads, frames.shape, output)


def headers(chunk: EncodedChunk, *, request_id: str, chunk_index: int) -> Iterator[FrameHeader]:
    """The header of each payload, without an event id."""
    _, height, width, _ = chunk.shape
    output = chunk.output
    shown = (width, height)
    if output.kind != "raw":
        shown = preview_size(width, height, output.preview_width)
    for index, payload in enumerate(chunk.payloads):
        header = FrameHeader(
            request_id=request_id,
            chunk_index=chunk_index,
            content_type=output.content_type,
            num_frames=payload.frames,
            total_size=len(payload.data),
            frame_batch_index=index,
            num_frame_batches=len(chunk.payloads),
            is_final_frame_batch=index == len(chunk.payloads) - 1,
            format="rgb24" if output.kind == "raw" else output.kind,
            encoding=output.kind,
            width=shown[0],
            height=shown[1],
            channels=3,
            bytes_per_frame=width * height * 3,
        )
        yield _with_details(header, payload, source=(width, height))


def _with_details(header: FrameHeader, payload: Payload, *, source: tuple[int, int]) -> FrameHeader:
    if payload.lengths is None:
        return msgspec.structs.replace(header, raw_size=header.total_size)
    return msgspec.structs.replace(
        header,
        source_width=source[0],
        source_height=source[1],
        preview_width=header.width,
        preview_height=header.height,
        payload_lengths=payload.lengths,
    )


def _batches(frames: Frames, size: int) -> Iterator[Frames]:
    for start in range(0, len(frames), size):
        yield frames[start : start + size]


def _raw_payload(frames: Frames) -> Payload:
    return Payload(bytes(raw.view(frames)), len(frames), None)


def _encoded(frame: Frames, output: OutputFormat) -> Payload:
    height, width, _ = frame.shape
    small = shrink(frame, *preview_size(width, height, output.preview_width))
    if output.kind == "jpeg":
        data = jpeg.encode_jpeg(small, output.quality or jpeg.DEFAULT_QUALITY)
    else:
        data = webp.encode_webp(small, output.quality or webp.DEFAULT_QUALITY)
    return Payload(data, 1, (len(data),))


def _join(images: list[Payload]) -> Iterator[Payload]:
    for start in range(0, len(images), ENCODED_FRAMES_PER_MESSAGE):
        group = images[start : start + ENCODED_FRAMES_PER_MESSAGE]
        data = b"".join(image.data for image in group)
        yield Payload(data, len(group), tuple(len(image.data) for image in group))
