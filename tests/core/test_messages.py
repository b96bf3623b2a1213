"""Everything sent stays inside what the published browser client can decode."""

from __future__ import annotations

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.server.old_client import OldClient, decode, number_types
from worldline.core.errors import ConfigError
from worldline.core.messages import (
    SPLIT_BYTES,
    ChunkStats,
    FrameHeader,
    clip,
    encode_message,
    error_message,
    pack_batch,
)

ANY_SPEED = settings(deadline=None, suppress_health_check=[HealthCheck.too_slow])
UINT32 = st.integers(0, 2**32 - 1)
HEADER = FrameHeader(
    request_id="session_request",
    chunk_index=3,
    content_type="application/x-raw-rgb",
    num_frames=1,
    total_size=0,
    frame_batch_index=0,
    num_frame_batches=1,
    is_final_frame_batch=True,
    format="rgb24",
    encoding="raw",
    width=8,
    height=8,
    channels=3,
    bytes_per_frame=192,
)


def replaced(size: int) -> FrameHeader:
    return msgspec.structs.replace(HEADER, total_size=size)


@pytest.mark.parametrize("size", [0, 1, SPLIT_BYTES - 1, SPLIT_BYTES, SPLIT_BYTES + 1])
def test_the_split_is_at_exactly_64_kib(size: int) -> None:
    payload = bytes(size)
    parts = pack_batch(replaced(size), payload)
    client = OldClient()
    seen = [client.feed(bytes(part)) for part in parts]
    if size < 65_536:
        assert len(parts) == 1
        assert decode(bytes(parts[0]))["type"] == "frame_batch"
    else:
        assert len(parts) == 2
        assert decode(bytes(parts[0]))["type"] == "frame_batch_header"
        assert parts[1] is payload  # not copied
        assert seen[0] is None
    assert seen[-1] is not None
    assert seen[-1].payload == payload


def test_absent_details_are_not_sent() -> None:
    fields = decode(encode_message(HEADER))
    assert "event_id" not in fields
    assert "raw_size" not in fields
    assert "payload_lengths" not in fields
    assert fields["is_final_frame_batch"] is True


@ANY_SPEED
@given(st.lists(UINT32, min_size=13, max_size=13), st.none() | UINT32, st.text())
def test_stats_of_any_size_are_in_the_subset(
    numbers: list[int], event_id: int | None, text: str
) -> None:
    stats = ChunkStats(
        session_id="s",
        request_id="r",
        chunk_index=numbers[0],
        event_id=event_id,
        request_prepare_ms=numbers[1],
        scheduler_forward_ms=numbers[2],
        pace_wait_ms=numbers[3],
        header_pack_ms=numbers[4],
        header_write_ms=numbers[5],
        raw_payload_build_ms=numbers[6],
        raw_write_ms=numbers[7],
        ws_write_ms=numbers[8],
        chunk_total_ms=numbers[9],
        num_batches=numbers[10],
        num_frames=numbers[11],
        raw_bytes=numbers[12],
        ws_payload_bytes=numbers[12],
        content_type="image/webp",
        worker_timings={"denoise": numbers[2], clip(text): 0},
    )
    data = encode_message(stats)
    assert decode(data)["event_id"] == event_id
    assert number_types(data) == {"int"}


@ANY_SPEED
@given(st.text(st.characters(), max_size=100), st.integers(1, 1500))
def test_errors_of_any_length_are_in_the_subset(text: str, times: int) -> None:
    long = text * times
    fields = decode(encode_message(error_message(long, ConfigError(long, expected=long, got=1))))
    assert long.startswith(fields["content"])
    assert fields["code"] == "invalid_config"
    assert fields["retryable"] is False
    assert len(fields["message"].encode()) <= 2_000


def test_clipping_keeps_whole_characters_and_survives_broken_ones() -> None:
    assert clip("äöü", 3) == "ä"
    assert clip("a\ud800b") == "a?b"
    assert clip("short") == "short"


def test_optional_parts_of_an_error_are_left_out() -> None:
    assert set(decode(encode_message(error_message("x", ConfigError("y"))))) == {
        "type",
        "content",
        "code",
        "message",
        "retryable",
    }
