"""Server to client: the messages of the mainline realtime endpoint and the layout of frames.

The published browser client decodes a subset of MessagePack: no negative integers, none above
2^32-1, arrays of at most 15 items, strings below 64 KiB, no extension types. Everything here stays
inside it; times are non-negative rounded integers of milliseconds. That client also takes any map
whose `type` it does not know for a frame header, so this file may never grow a message of another
type: what is new goes into extra fields.

Source: facts on the realtime wire, sections 1.2 and 1.6 to 1.8.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from worldline.core.errors import WorldlineError

SPLIT_BYTES: Final = 65_536  # a payload of this many bytes or more is a message of its own
RAW_FRAMES_PER_MESSAGE: Final = 16
ENCODED_FRAMES_PER_MESSAGE: Final = 6  # payload_lengths must stay an array of at most 15
MAX_TEXT_BYTES: Final = 2_000

BUSY: Final = "another realtime session is already active"
INVALID_INIT: Final = "invalid generate request"
INVALID_EVENT: Final = "invalid event"
LOOP_FAILED: Final = "error during generate loop: "
COMPLETE: Final = "generation complete"

_ENCODER: Final = msgspec.msgpack.Encoder()


class FrameHeader(
    msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="frame_batch_header"
):
    """Describes one batch of frames of a chunk; the payload is the next binary message.

    `width` and `height` are those of the frames in the payload, `bytes_per_frame` belongs to the
    generated RGB picture. Sizes count payload bytes, `payload_lengths` those of each image.
    """

    request_id: str
    chunk_index: int
    content_type: str
    num_frames: int
    total_size: int
    frame_batch_index: int
    num_frame_batches: int
    is_final_frame_batch: bool
    format: str
    encoding: str
    width: int
    height: int
    channels: int
    bytes_per_frame: int
    event_id: int | UnsetType = UNSET
    raw_size: int | UnsetType = UNSET
    source_width: int | UnsetType = UNSET
    source_height: int | UnsetType = UNSET
    preview_width: int | UnsetType = UNSET
    preview_height: int | UnsetType = UNSET
    payload_lengths: tuple[int, ...] | UnsetType = UNSET


class FrameBatch(FrameHeader, frozen=True, kw_only=True, tag_field="type", tag="frame_batch"):
    """A batch whose payload is small enough to travel inside the map."""

    payload: bytes | memoryview


class ChunkStats(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="chunk_stats"):
    """Sent after the frames of a chunk. `raw_bytes` are the generated pixels, `ws_payload_bytes`
    the sum of the payloads. `worker_timings` maps stages of the forward to milliseconds."""

    session_id: str
    request_id: str
    chunk_index: int
    event_id: int | None
    request_prepare_ms: int
    scheduler_forward_ms: int
    pace_wait_ms: int
    header_pack_ms: int
    header_write_ms: int
    raw_payload_build_ms: int
    raw_write_ms: int
    ws_write_ms: int
    chunk_total_ms: int
    num_batches: int
    num_frames: int
    raw_bytes: int
    ws_payload_bytes: int
    content_type: str
    worker_timings: Mapping[str, int]


class ErrorMessage(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", tag="error"):
    """A refusal or a failure. `content` is the text old clients know; the rest explains it."""

    content: str
    code: str
    message: str
    retryable: bool
    expected: str | UnsetType = UNSET
    got: str | UnsetType = UNSET


ServerMessage = FrameHeader | FrameBatch | ChunkStats | ErrorMessage


def encode_message(message: ServerMessage) -> bytes:
    """One message as MessagePack."""
    return _ENCODER.encode(message)


def pack_batch(header: FrameHeader, payload: bytes | memoryview) -> tuple[bytes | memoryview, ...]:
    """The wire messages of one batch: one map below 65,536 bytes, else header and payload.

    The parts belong together: nothing may be written to the socket between them.
    """
    if len(payload) >= SPLIT_BYTES:
        return (encode_message(header), payload)
    fields = {name: getattr(header, name) for name in header.__struct_fields__}
    return (encode_message(FrameBatch(**fields, payload=payload)),)


def error_message(content: str, error: WorldlineError) -> ErrorMessage:
    """The message for `error`, under the text old clients know."""
    return ErrorMessage(
        content=clip(content),
        code=error.code,
        message=clip(error.message),
        retryable=error.retryable,
        expected=UNSET if error.expected is None else clip(error.expected),
        got=UNSET if error.got is None else clip(error.got),
    )


def clip(text: str, limit: int = MAX_TEXT_BYTES) -> str:
    """`text` cut to at most `limit` bytes of UTF-8, so that it can never become a str32."""
    return text.encode("utf-8", errors="replace")[:limit].decode("utf-8", errors="ignore")
