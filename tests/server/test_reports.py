"""One struct tells log, stats and metrics what a chunk took; the three must agree."""

from __future__ import annotations

import json
import logging
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.server.conftest import Rig, Start
from tests.server.old_client import decode, number_types
from tests.server.sockets import event, init, keys
from worldline.server.logs import JsonFormatter, configure_logging, fields_of

pytestmark = pytest.mark.anyio

SAME_NAME = (
    "session_id",
    "request_id",
    "chunk_index",
    "event_id",
    "request_prepare_ms",
    "scheduler_forward_ms",
    "pace_wait_ms",
    "header_pack_ms",
    "header_write_ms",
    "ws_write_ms",
    "chunk_total_ms",
    "num_batches",
    "num_frames",
    "raw_bytes",
    "content_type",
)
OTHER_NAME = {
    "payload_build_ms": "raw_payload_build_ms",
    "payload_write_ms": "raw_write_ms",
    "wire_bytes": "ws_payload_bytes",
    "forward": "worker_timings",
}
TIMES = ("request_prepare", "scheduler_forward", "payload_build", "ws_write", "chunk_total")


async def get(rig: Rig, path: str) -> httpx.Response:
    transport = httpx.ASGITransport(app=rig.app)
    async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
        return await client.get(path)


async def samples(rig: Rig) -> dict[tuple[str, str], float]:
    """Every sample of /metrics by name and the value of its only label."""
    text = (await get(rig, "/metrics")).text
    return {
        (s.name, next(iter(s.labels.values()), "")): s.value
        for family in text_string_to_metric_families(text)
        for s in family.samples
        if "le" not in s.labels
    }


def chunk_lines(caplog: pytest.LogCaptureFixture) -> list[dict[str, Any]]:
    return [fields_of(r) for r in caplog.records if r.name == "worldline.server.chunk"]


@pytest.mark.parametrize("kind", ["raw", "jpeg"])
async def test_log_stats_and_metrics_agree(
    start: Start, caplog: pytest.LogCaptureFixture, kind: str
) -> None:
    caplog.set_level(logging.INFO, "worldline")
    rig = await start(tick=0.0107)
    socket = await rig.connect()
    socket.send(init(max_chunks=3, realtime_output_format=kind, size="128x96"))
    socket.send(keys("w", event_id=70_000))
    stats = [(await socket.chunk())[-1].fields for _ in range(3)]
    await socket.closed()
    lines = chunk_lines(caplog)
    assert len(lines) == 3
    for line, stat in zip(lines, stats, strict=True):
        for name in SAME_NAME:
            assert line[name] == stat[name], name
        for name, old in OTHER_NAME.items():
            assert line[name] == stat[old], name
        assert line["frame_shape"] == (96, 128, 3)
        assert line["condition_kinds"] == ("camera_actions",)
        assert all(line[f"{name}_ms"] > 0 for name in TIMES), line
        assert line["ws_write_ms"] >= line["payload_write_ms"]
    seen = await samples(rig)
    mime = lines[0]["content_type"]
    assert seen["worldline_chunks_total", mime] == 3
    for counter, name in (
        ("frames", "num_frames"),
        ("batches", "num_batches"),
        ("raw_bytes", "raw_bytes"),
        ("wire_bytes", "wire_bytes"),
    ):
        assert seen[f"worldline_{counter}_total", mime] == sum(line[name] for line in lines)
    for name in lines[0]:
        if name.endswith("_ms"):
            total = seen["worldline_chunk_stage_seconds_sum", name.removesuffix("_ms")]
            assert total == pytest.approx(sum(line[name] for line in lines) / 1000)
    for stage in lines[0]["forward"]:
        total = seen["worldline_chunk_stage_seconds_sum", f"forward_{stage}"]
        assert total == pytest.approx(sum(line["forward"][stage] for line in lines) / 1000)


async def test_stats_hold_no_floats_and_stages_are_rounded(rig: Rig) -> None:
    socket = await rig.connect()
    socket.send(init(max_chunks=1))
    *_, stats = await socket.chunk()
    assert number_types(socket.wire[-1]) == {"int"}
    timings = stats.fields["worker_timings"]
    assert (timings["denoise"], timings["decode"], timings["total"]) == (21, 10, 31)


async def test_everything_the_server_says_is_in_the_old_subset(rig: Rig) -> None:
    socket = await rig.connect()
    socket.send(init(max_chunks=2, realtime_output_format="webp"))
    socket.send(event("nonsense" * 30_000, None, 2**32 - 1))
    socket.send(event("prompt", "x" * 70_000, 5))
    socket.send(keys("w", event_id=2**32 - 1))
    seen = 0
    while seen < 2:
        seen += (await socket.next()).type == "chunk_stats"
    await socket.closed()
    assert all(len(message) < 65_536 for message in socket.wire if message[:1] != b"R")
    maps = [decode(m) for m in socket.wire if m[0] & 0xF0 == 0x80 or m[0] == 0xDE]
    assert {m["type"] for m in maps} >= {"frame_batch", "chunk_stats", "error"}


def test_a_log_line_is_one_json_object(capsys: pytest.CaptureFixture[str]) -> None:
    names = ("worldline", "uvicorn")
    before = [(n, logging.getLogger(n)) for n in names]
    kept = [(lg, lg.handlers[:], lg.level, lg.propagate) for _, lg in before]
    try:
        configure_logging()
        configure_logging()
        logging.getLogger("worldline.x").info("chunk", extra={"fields": {"a": 1, "b": (2,)}})
        line = json.loads(capsys.readouterr().err)
    finally:
        for logger, handlers, level, propagate in kept:
            logger.handlers[:], logger.propagate = handlers, propagate
            logger.setLevel(level)
    assert (line["event"], line["level"], line["logger"]) == ("chunk", "info", "worldline.x")
    assert (line["a"], line["b"]) == (1, [2])


def test_a_trace_goes_into_the_line() -> None:
    try:
        raise ValueError("x")
    except ValueError as error:
        record = logging.makeLogRecord({"msg": "failed", "exc_info": (ValueError, error, None)})
    assert "ValueError: x" in json.loads(JsonFormatter().format(record))["trace"]
