"""The chunk timing: what it counts, and that its figures fit together. No test of a clock."""

from __future__ import annotations

import json
from typing import Any

import msgspec
import pytest

import worldline
from worldline.bench.chunk import (
    MARKDOWN_HEAD,
    SETTLED_CHUNKS,
    STAGES,
    ChunkFigures,
    ChunkRequest,
    as_markdown,
    as_table,
    measure_chunks,
)
from worldline.cli.main import main


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
    assert encoded
    assert max(encoded) < measured.warmup_chunks
    assert done == measured.warmup_chunks + 3


def test_the_tables_hold_every_figure(figures: ChunkFigures) -> None:
    head, rule, row = as_markdown(figures).splitlines()
    assert head.count("|") == rule.count("|") == row.count("|") == len(MARKDOWN_HEAD) + 1
    assert f"| {figures.fps:.1f} |" in row and figures.machine.commit in row
    text = as_table(figures)
    assert all(stage in text for stage in STAGES)
    assert figures.machine.torch in text and f"{figures.machine.threads} threads" in text


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
