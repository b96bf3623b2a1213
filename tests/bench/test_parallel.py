"""`bench parallel`: what it measures, what it refuses, and that it notices what is wrong."""

from __future__ import annotations

import json
import os
from pathlib import Path

import msgspec
import numpy as np
import pytest

from tests.ranks import on_ranks
from tests.runtime.parallel import cases
from worldline.bench.machine import describe_machine
from worldline.bench.parallel import ParallelFigures, Walk, WalkReport, as_table, compare, walk
from worldline.bench.parallel_ranks import Job, run_ranks
from worldline.cli.main import main
from worldline.core.errors import WorkerDiedError

ASKED = Walk(width=48, height=16, chunk=3)  # 9 tokens


def test_the_command_runs_real_processes_and_tells_what_they_sent(
    capsys: pytest.CaptureFixture[str],
) -> None:
    command = "bench parallel --ranks 2 --chunks 1 --size 48x16 --chunk 3 --estimate off --json"
    assert main(command.split()) == 0
    told = json.loads(capsys.readouterr().out)
    (case,) = told["cases"]
    assert (case["ranks"], case["tokens"], case["even"]) == (2, 9, False)
    assert 0 < case["max_abs"] <= 1e-5 and case["apart"] == 0
    assert case["calls"] == {"flow": 4, "heads": 9, "kv": 1, "qkv": 9}
    assert case["sent_bytes"] == case["expected_bytes"]
    assert case["formula_calls"] == 20
    # 4 N d B (P-1)/P, times blocks, times passes, of both ranks.
    assert case["formula_bytes"] == 4 * 9 * 96 * 4 // 2 * 2 * 5
    assert (told["model"], told["link"], told["dtype"]) == ("small", "gloo", "float32")


def test_a_difference_in_latents_or_bytes_is_a_miss() -> None:
    world_of_one = on_ranks(1, lambda group: walk(cases.world(group), group, ASKED, 1))
    found = on_ranks(2, lambda group: walk(cases.world(group), group, ASKED, 1))
    reports, latents = [report for report, _ in found], [x for _, x in found]
    case = compare(reports, latents, alone=world_of_one[0])
    figures = ParallelFigures(
        model="small",
        device="cpu",
        dtype="float32",
        link="gloo",
        chunks=1,
        machine=describe_machine(),
        cases=(case,),
    )
    assert figures.kept and "as the formula says" in as_table(figures)

    def judged(reports: list[WalkReport], latents: list[np.ndarray]) -> ParallelFigures:
        changed = compare(reports, latents, alone=world_of_one[0])
        return msgspec.structs.replace(figures, cases=(changed,))

    off = [latents[0] + 2e-5, latents[1] + 2e-5]
    assert not judged(reports, off).kept and "NOT AS EXPECTED" in as_table(judged(reports, off))
    assert not judged(reports, [latents[0], latents[1] + 1e-7]).kept  # ranks that drift apart
    for field in ("calls", "nbytes"):
        more = {**getattr(reports[0], field), "qkv": getattr(reports[0], field)["qkv"] + 1}
        wrong = msgspec.structs.replace(reports[0], **{field: more})
        assert not judged([wrong, reports[1]], latents).kept
    bfloat = msgspec.structs.replace(judged(reports, off), dtype="bfloat16")
    assert bfloat.kept  # there it is only told


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ("--ranks 1", "expected 2 or more"),
        ("--ranks two", "expected 2 or more"),
        ("--ranks 2,", "expected 2 or more"),
        ("--stages README.md", "expected the output of bench chunk --json"),
        ("--picture nowhere/x.png", "no folder for the picture"),
        ("--ranks none --picture x.png --estimate off", "nothing to draw"),
        ("--chunks 0", "expected --chunks 1 or more"),
        ("--size 48", "expected WxH"),
        ("--device cuda", "the small world computes on the CPU"),
        ("--device cuda --model pocket --ranks 4096", "not enough GPUs for so many ranks"),
    ],
)
def test_what_cannot_be_measured_is_refused_before_anything_starts(
    arguments: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["bench", "parallel", *arguments.split()]) == 2
    assert said in capsys.readouterr().err


def test_the_estimate_takes_measured_stages_and_is_drawn(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = {"processor": "a CPU", "accelerator": "one card", "commit": "abc", "cores": 2}
    stages = {"conditions": 1.0, "denoise": 700.0, "context": 99.0, "decode": 200.0, "transfer": 1}
    told = {"model": "pocket", "device": "cuda", "width": 160, "height": 96}
    file, picture = tmp_path / "stages.json", tmp_path / "scaling.png"
    file.write_text(json.dumps({**told, "stages": stages, "machine": machine, "fps": 3.0}))
    command = f"bench parallel --ranks none --stages {file} --picture {picture}"
    assert main(command.split()) == 0
    text = capsys.readouterr().out
    assert "measured on one one card, 160x96, commit abc" in text and "350 GB/s" in text
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert main([*command.split(), "--json"]) == 0
    (scaling,) = json.loads(capsys.readouterr().out)["estimates"]
    first = scaling["estimates"][0]
    assert first["ranks"] == 1 and first["chunk_ms"] == pytest.approx(1001.0)
    assert first["parts"]["decode"] == 200.0 and first["fps"] == pytest.approx(4 / 1.001, abs=0.01)


@pytest.mark.parametrize("ranks", [1, 2] if "WORLDLINE_ALL_RANKS" in os.environ else [1])
def test_a_rank_that_fails_ends_all_of_them(ranks: int, capfd: pytest.CaptureFixture[str]) -> None:
    job = Job(walks=(Walk(width=48, height=16, chunk=99),), chunks=1, device="cpu")
    with pytest.raises(WorkerDiedError, match=r"rank \d failed"):
        run_ranks(job, ranks)
    assert "window" in capfd.readouterr().err
