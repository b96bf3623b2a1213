"""The chunk timing: what it counts, and that its figures fit together. No test of a clock."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

import worldline
from worldline.bench.chunk import (
    SETTLED_CHUNKS,
    STAGES,
    ChunkFigures,
    ChunkRequest,
    measure_chunks,
)
from worldline.bench.chunk_report import MARKDOWN_HEAD, as_markdown, as_panels, as_table
from worldline.bench.picture import Lines, Stacked
from worldline.cli.main import main
from worldline.kernels.choice_file import AttentionChoice, AttentionKey


@pytest.fixture(scope="module")
def figures() -> ChunkFigures:
    """A short measurement of a small window."""
    world = worldline.load("pocket", random_weights=True, threads=1)
    request = ChunkRequest(chunks=3, chunk=2, window=4, sink=1, steps=2)
    return measure_chunks(world, request)


def test_the_session_asked_for_is_measured(figures: ChunkFigures) -> None:
    found = (figures.chunk, figures.window, figures.sink, figures.steps, figures.chunks)
    assert found == (2, 4, 1, 2, 3)
    assert figures.frames_per_chunk == 8
    assert figures.warmup_chunks * figures.chunk >= figures.window + SETTLED_CHUNKS


def test_figures_fit_together(figures: ChunkFigures) -> None:
    assert 0 < figures.chunk_ms_p50 <= figures.chunk_ms_p95 <= figures.chunk_ms_p99
    expected = 1000 * figures.frames_per_chunk / figures.chunk_ms_mean
    assert figures.fps == pytest.approx(expected, rel=0.01)
    assert set(figures.stages) == set(STAGES)
    assert figures.stages["denoise"] > 0 and figures.stages["decode"] > 0
    assert max(figures.stages.values()) <= figures.chunk_ms_p99


def test_the_picture_is_encoded_before_the_measurement() -> None:
    """Once the fixed point of the encode is reached, no measured chunk encodes anything."""
    world = worldline.load("pocket", random_weights=True, threads=1)
    vae = world.components.vae
    encoded: list[int] = []
    encode = vae.encode_stream
    done = 0

    def counted(*arguments: Any) -> Any:
        encoded.append(done)
        return encode(*arguments)

    def count(chunks: int, total: int) -> None:
        nonlocal done
        done = chunks

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(vae, "encode_stream", counted)
        measured = measure_chunks(world, ChunkRequest(chunks=3, window=2, steps=1), count)
    assert done == measured.warmup_chunks + 3
    meanwhile = [chunk for chunk in encoded if chunk < done]  # later ones are the next visitors'
    assert meanwhile
    assert max(meanwhile) < measured.warmup_chunks


def test_the_tables_hold_every_figure(figures: ChunkFigures) -> None:
    head, rule, row = as_markdown(figures).splitlines()
    assert head.count("|") == rule.count("|") == row.count("|") == len(MARKDOWN_HEAD) + 1
    assert f"| {figures.fps:.1f} |" in row and figures.machine.commit in row
    text = as_table(figures)
    assert all(stage in text for stage in STAGES)
    assert figures.machine.torch in text and f"{figures.machine.threads} threads" in text
    for said in ("p50", "p95", "p99", "% matmul", "% copy", "outside operators", "planned"):
        assert said in text, said
    stages, times = as_panels(figures)
    assert isinstance(stages, Stacked) and set(stages.bars[0].parts) == set(STAGES)
    assert isinstance(times, Lines) and len(times.x) == len(figures.chunk_times_ms)


def test_figures_of_a_gpu_are_told(figures: ChunkFigures) -> None:
    """No GPU is here: the figures it adds are put in by hand."""
    loop = msgspec.structs.replace(
        figures.overhead,
        device_busy_ms=9.0,
        device_idle_percent=10.5,
        launch_gaps=7,
        longest_gap_ms=0.25,
        host_waits_ms=3.5,
    )
    key = AttentionKey(
        device="H200", torch="2", dtype="bfloat16", queries=60, keys=240, heads=3, head_dim=64
    )
    choice = AttentionChoice(key=key, backend="flash", ms={"flash": 0.5, "cudnn": 0.75})
    seen = msgspec.structs.replace(figures, overhead=loop, attention=(choice,))
    text = as_table(seen)
    assert "waits 10.5 % of a chunk, 7 times" in text and "host waits for it 3.5 ms" in text
    assert "60 x 240 tokens, 3 x 64: flash, measured (flash 0.500 ms, cudnn 0.750 ms)" in text
    assert "| 10.5 |" in as_markdown(seen)


def test_the_first_chunk_of_a_new_visitor(figures: ChunkFigures) -> None:
    first = figures.warm_first
    assert first is not None and 0 < first.compute_ms <= first.chunk_ms + 0.1
    assert first.over_compute == pytest.approx(
        (first.open_ms + first.chunk_ms) / first.compute_ms, rel=0.01
    )
    assert 0 < first.again_ms < first.open_ms + first.chunk_ms  # kept, not generated
    assert "a new visitor now" in as_table(figures)
    assert "a new visitor" not in as_table(msgspec.structs.replace(figures, warm_first=None))


def test_the_memory_measured_is_the_memory_planned(figures: ChunkFigures) -> None:
    memory = figures.memory
    assert abs(memory.off_percent) < 5
    assert memory.planned["transformer"] == pytest.approx(memory.weights["transformer"], rel=0.001)
    assert memory.planned["keys and values"] == pytest.approx(memory.kv, abs=0.001)
    assert memory.planned_peak == pytest.approx(sum(memory.planned.values()), abs=0.1)
    assert memory.session < memory.held and memory.workspace > memory.camera_modulation


def test_json_for_machines(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "chunk", "--model", "pocket", "--random-weights", "--json"]
    assert main([*command, "--chunks", "2", "--window", "2", "--steps", "1"]) == 0
    out = json.loads(capsys.readouterr().out)
    assert {"fps", "chunk_ms_p50", "chunk_ms_p95", "stages", "machine"} <= set(out)
    assert {"commit", "torch", "threads", "processor", "cores"} <= set(out["machine"])
    assert msgspec.convert(out, ChunkFigures).chunks == 2


def test_markdown_for_the_docs(capsys: pytest.CaptureFixture[str]) -> None:
    command = ["bench", "chunk", "--random-weights", "--markdown", "--chunks", "1"]
    assert main([*command, "--window", "1", "--steps", "1"]) == 0
    assert capsys.readouterr().out.startswith("| model | size |")
