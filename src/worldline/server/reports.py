"""What is known of one chunk after it left: one struct for the log, the stats and the metrics."""

from __future__ import annotations

import msgspec

from worldline.core.chunk import StageTimings
from worldline.core.clock import to_ms
from worldline.core.messages import ChunkStats


class ChunkReport(msgspec.Struct, frozen=True, kw_only=True):
    """Times are rounded milliseconds, `frame_shape` is `(H, W, 3)` in pixels.

    `forward` is the engine's share of `scheduler_forward_ms`, stage by stage. `wire_bytes` counts
    payloads without their headers. `chunk_total_ms` runs from before the request was prepared until
    the frames were written.
    """

    session_id: str
    request_id: str
    chunk_index: int
    event_id: int | None
    condition_kinds: tuple[str, ...]
    request_prepare_ms: int
    scheduler_forward_ms: int
    forward: dict[str, int]
    pace_wait_ms: int
    header_pack_ms: int
    header_write_ms: int
    payload_build_ms: int
    payload_write_ms: int
    ws_write_ms: int
    chunk_total_ms: int
    num_batches: int
    num_frames: int
    frame_shape: tuple[int, ...]
    raw_bytes: int
    wire_bytes: int
    content_type: str


def forward_stages(timings: StageTimings) -> dict[str, int]:
    """Milliseconds per stage of the forward, by name without the `_ms`."""
    stages: dict[str, float] = msgspec.structs.asdict(timings)
    return {name.removesuffix("_ms"): to_ms(value / 1000) for name, value in stages.items()}


def stage_times(report: ChunkReport) -> dict[str, int]:
    """Every time of a report by stage; the stages of the forward are named `forward_*`."""
    named = {
        name.removesuffix("_ms"): getattr(report, name)
        for name in report.__struct_fields__
        if name.endswith("_ms")
    }
    return named | {f"forward_{name}": value for name, value in report.forward.items()}


def to_stats(report: ChunkReport) -> ChunkStats:
    """The report as the `chunk_stats` message."""
    return ChunkStats(
        session_id=report.session_id,
        request_id=report.request_id,
        chunk_index=report.chunk_index,
        event_id=report.event_id,
        request_prepare_ms=report.request_prepare_ms,
        scheduler_forward_ms=report.scheduler_forward_ms,
        pace_wait_ms=report.pace_wait_ms,
        header_pack_ms=report.header_pack_ms,
        header_write_ms=report.header_write_ms,
        raw_payload_build_ms=report.payload_build_ms,
        raw_write_ms=report.payload_write_ms,
        ws_write_ms=report.ws_write_ms,
        chunk_total_ms=report.chunk_total_ms,
        num_batches=report.num_batches,
        num_frames=report.num_frames,
        raw_bytes=report.raw_bytes,
        ws_payload_bytes=report.wire_bytes,
        content_type=report.content_type,
        worker_timings=report.forward,
    )
