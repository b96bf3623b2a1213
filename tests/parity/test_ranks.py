"""Recorded runs pass on two ranks as they do on one, and are really shared out there."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import pytest

from tests.ranks import on_ranks
from worldline.bench import parity
from worldline.bench.parity import run
from worldline.cli.main import main
from worldline.runtime.parallel.group import Group

HERE = Path(__file__).resolve().parent / "data"
RUNS = ["dit_base_cam", "dit_causal_win7_sink2_chunk4", "e2e_fast_v1"]
WEIGHTS = ["dit_weights_cam", "e2e_fast_v1_dit_weights", "vae_weights"]
T = TypeVar("T")


def test_recorded_runs_pass_on_two_ranks(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*RUNS, *WEIGHTS):
        (tmp_path / f"{name}.safetensors").symlink_to(HERE / f"{name}.safetensors")
    sent: list[int] = []

    def counted(size: int, work: Callable[[Group], T]) -> list[T]:
        def counting(group: Group) -> T:
            result = work(group)
            sent.append(group.traffic.calls["qkv"])
            return result

        return on_ranks(size, counting)

    monkeypatch.setattr(parity, "on_ranks", counted)
    results = run(tmp_path, ranks=2)
    assert [row for row in results if row.status != "pass"] == []
    assert {row.file.removesuffix(".safetensors") for row in results} == set(RUNS)
    assert len(sent) == 2 * len(RUNS) and min(sent) > 0


def test_a_run_whose_heads_do_not_divide_is_an_error(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name in ("e2e_fast_v1", "e2e_fast_v1_dit_weights", "vae_weights"):
        (tmp_path / f"{name}.safetensors").symlink_to(HERE / f"{name}.safetensors")
    assert main(["bench", "parity", str(tmp_path), "--ranks", "3"]) == 1
    assert "2 heads cannot be spread evenly over the ranks" in capsys.readouterr().out
    assert main(["bench", "parity", str(tmp_path), "--ranks", "0"]) == 2
