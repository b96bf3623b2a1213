"""Rates, overhead and pictures: that figures fit together and charts show what they are given."""

from __future__ import annotations

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from PIL import Image

from worldline.bench.overhead import Profiled, gaps, lean, measure_overhead, read_events, union
from worldline.bench.picture import Bar, Lines, Stacked, draw, ticks
from worldline.bench.rates import Rates, best_seconds
from worldline.bench.ruler import CHUNK, PASSES, Work, lay_beside, work_lines
from worldline.cli.main import main
from worldline.core.errors import ConfigError

RATES = Rates(dtype="float32", matmul_gflops_per_s=10.0, shapes=(), copy_gb_per_s=2.0)


def test_work_beside_times() -> None:
    work = Work(
        flops={
            "denoise": {"projections": 3 * 10**9, "self_attention": 10**9},
            "context": {"projections": 10**9},
        },
        moved={"denoise": 10**9, "context": 4 * 10**9},
    )
    stages = {"conditions": 1.0, "denoise": 800.0, "context": 4000.0}
    rows = lay_beside(stages, work, RATES, chunk_ms=5000.0)
    assert list(rows) == [*stages, PASSES, CHUNK]
    denoise, context = rows["denoise"], rows["context"]
    assert (denoise.gflop, denoise.gflops_per_s, denoise.matmul_percent) == (4.0, 5.0, 50.0)
    assert denoise.limit_ms == 500.0  # 1 GB at 2 GB/s, longer than 4 GFLOP at 10 GFLOP/s
    assert context.limit_ms == 2000.0 and context.copy_percent == 50.0
    assert rows["conditions"].limit_ms is None
    assert rows[PASSES].ms == 4800.0 and rows[PASSES].gflop == 5.0
    assert rows[PASSES].parts == {"projections": 4.0, "self_attention": 1.0}
    assert (rows[CHUNK].ms, rows[CHUNK].limit_ms) == (5000.0, 2500.0)
    assert len(work_lines(rows)) == len(rows) + 1


def test_the_length_of_a_union_counts_overlaps_once() -> None:
    assert union([]) == (0, 0)
    assert union([(0, 10), (2, 5), (20, 25), (24, 30)]) == (20, 2)
    assert union([(5, 6), (0, 6), (6, 7)]) == (7, 2)


def test_operators_are_counted_from_the_outside() -> None:
    a = torch.ones(64, 64)

    def step() -> None:
        torch.nn.functional.linear(a, a)  # one call, several operators within
        a.add(a)

    found = measure_overhead(step, chunks=2, cuda=False)
    assert found.operators == 2
    assert 0 < found.operators_ms <= found.chunk_ms
    assert 0 <= found.outside_percent < 100
    assert found.device_idle_percent is None


def test_the_profiler_does_not_count_as_overhead() -> None:
    """Ten operators called, thirty recorded, 3 ms dearer with the profiler: 0.1 ms an event."""
    seen = Profiled(wall=13.0, events=30, outer=10, inside=11.0)
    found = lean(10.0, seen, chunks=1, cuda=False)
    assert found.operators_ms == 9.0  # less 2 ms for the twenty inside others
    assert found.outside_percent == 10.0
    assert found.profiled_outside_percent == pytest.approx(100 * 2 / 13, abs=0.01)
    # On a disturbed machine the profiled chunk may even be the faster one; then it counts.
    other = lean(20.0, seen, chunks=1, cuda=False)
    assert (other.chunk_ms, other.operators_ms) == (13.0, 11.0)


class Event:
    """One event as the profiler tells it; times in ns."""

    def __init__(self, name: str, start: int, end: int, *, device: str = "CPU") -> None:
        self._name, self._start, self._end = name, start, end
        self._device = device

    def name(self) -> str:
        return self._name

    def start_ns(self) -> int:
        return self._start

    def duration_ns(self) -> int:
        return self._end - self._start

    def device_type(self) -> SimpleNamespace:
        return SimpleNamespace(name=self._device)


def test_waits_and_gaps_on_a_gpu() -> None:
    events = [
        Event("aten::linear", 0, 400_000),
        Event("aten::addmm", 100_000, 300_000),
        Event("cudaLaunchKernel", 150_000, 160_000),
        Event("cudaMemcpyAsync", 500_000, 600_000),
        Event("cudaStreamSynchronize", 600_000, 900_000),
        Event("gemm", 200_000, 500_000, device="CUDA"),
        Event("norm", 503_000, 600_000, device="CUDA"),  # 3 us later: no gap worth the name
        Event("copy", 700_000, 800_000, device="CUDA"),
    ]
    seen = read_events(events, wall=1.0)
    assert (seen.events, seen.outer, seen.inside) == (2, 1, pytest.approx(0.4))
    assert seen.busy == pytest.approx(0.497)
    assert seen.gaps == (pytest.approx(0.1),)
    found = lean(1.0, seen, chunks=1, cuda=True)
    assert found.device_idle_percent == pytest.approx(50.3)
    assert (found.launch_gaps, found.longest_gap_ms, found.host_waits_ms) == (1, 0.1, 0.3)


def test_gaps_lie_between_what_overlaps() -> None:
    assert gaps([]) == []
    assert gaps([(0, 10), (2, 5), (20, 25), (24, 30), (31, 32)]) == [10, 1]


def test_the_best_batch_is_taken() -> None:
    calls = 0

    def operation() -> None:
        nonlocal calls
        calls += 1

    assert best_seconds(operation, device=torch.device("cpu"), budget=0.01) > 0
    assert calls > 100


def test_ticks_are_round_and_cover() -> None:
    assert ticks(0, 987) == [0, 200, 400, 600, 800, 1000]
    assert ticks(0, 0.03)[-1] >= 0.03
    assert len(ticks(0, 12345)) <= 8


def colours(path: Path) -> set[tuple[int, ...]]:
    """Every colour of a picture."""
    with Image.open(path) as image:
        found = image.convert("RGB").getcolors(1 << 24) or []
        assert image.width >= 1000
        return {colour for _, colour in found if isinstance(colour, tuple)}


def test_parts_and_curves_are_drawn(tmp_path: Path) -> None:
    bars = Stacked("stages", "ms", [Bar("measured", {"a": 3.0, "b": 1.0}), Bar("limit", {})])
    curve = Lines("times", "ms", "chunk", [0, 1, 2], {"x": [1.0, None, 2.0]}, 0.5, "warm-up")
    draw(tmp_path / "both.png", "two panels", [bars, curve])
    draw(tmp_path / "one.png", "one bar", [Stacked("s", "ms", [Bar("m", {"a": 3.0})])])
    second = (0xE6, 0x9F, 0x3C)  # the colour of a second part
    assert second in colours(tmp_path / "both.png")
    assert second not in colours(tmp_path / "one.png")


def test_one_point_is_a_chart_too(tmp_path: Path) -> None:
    draw(tmp_path / "p.png", "t", [Lines("times", "ms", "chunk", [1], {"p50": [3.0]})])
    assert len(colours(tmp_path / "p.png")) > 2


SHORT = ["--random-weights", "--window", "2", "--steps", "1"]


def test_chunk_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "chunk.png"
    command = ["bench", "chunk", *SHORT, "--chunks", "1", "--ablate", "camera", "--json"]
    assert main([*command, "--picture", str(picture)]) == 0
    out = json.loads(capsys.readouterr().out)
    assert set(out["ablation"]) == {"all_savings", "camera", "none_of_the_savings"}
    wanted = {"chunk_ms_p50", "dit_ms_p50", "class", "max_abs"}
    assert all(wanted <= set(variant) for variant in out["ablation"].values())
    assert {"work", "rates", "memory", "overhead", "chunk_times_ms"} <= set(out)
    assert out["work"]["denoise"]["gflop"] == pytest.approx(
        sum(out["work"]["denoise"]["parts"].values())
    )
    memory = out["memory"]
    assert memory["planned"]["keys and values"] == pytest.approx(memory["kv"], abs=0.001)
    assert len(colours(picture)) > 5


def test_soak_from_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    picture = tmp_path / "soak.png"
    assert main(["bench", "soak", *SHORT, "--chunks", "24", "--picture", str(picture)]) == 0
    text = capsys.readouterr().out
    assert "p99" in text and "MB/h" in text and "stayed the same" in text
    assert len(colours(picture)) > 3


@pytest.mark.parametrize(
    "arguments",
    [
        ["chunk", "--ablate", "luck"],
        ["chunk", "--picture", "nowhere/at/all.png"],
        ["soak", "--chunks", "0"],
        ["soak", "--picture", "nowhere/at/all.png"],
    ],
)
def test_what_cannot_be_measured_is_refused_before_loading(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def loaded(*_: object, **__: object) -> None:
        raise AssertionError("loaded a model first")

    monkeypatch.setattr("worldline.cli.bench.load_world", loaded)
    assert main(["bench", *arguments]) == 2
    assert ConfigError.code in capsys.readouterr().err
