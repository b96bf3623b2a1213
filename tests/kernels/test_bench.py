"""`python -m worldline.bench.kernels`: what it measures, and that it would see a wrong kernel."""

from __future__ import annotations

from collections.abc import Callable

import msgspec
import pytest
import torch

from tests.kernels.interpreter import Interpreter
from worldline.bench import kernels
from worldline.bench.kernels import (
    KernelFigures,
    KernelRow,
    Sizes,
    as_table,
    difference,
    measure_kernels,
    operations,
)
from worldline.bench.machine import describe_machine
from worldline.kernels.choice_file import AttentionChoice, AttentionKey
from worldline.ops.block_math import PLAIN

TOY = Sizes("toy", 2, 8, torch.float32, frames=1, window=3, grid=(1, 2))


def one_ms(call: Callable[[], object]) -> float:
    call()
    return 1.0


def measured() -> list[KernelRow]:
    return measure_kernels(TOY, torch.device("cpu"), milliseconds=one_ms)


def test_every_operation_is_timed_and_agrees(interpreted: Interpreter) -> None:
    rows = interpreted.call(measured)
    assert [row.name for row in rows] == list(operations(TOY, torch.device("cpu")))
    assert all(row.agrees for row in rows), rows
    assert {*rows[0].by_warps} == {*kernels.WARPS}
    stream = 2 * 2 * 8 * 4  # tokens, heads, values, bytes
    assert rows[0].gb == stream * 2 / 1e9 and rows[0].gb_per_s == stream * 2 / 1e6


def test_the_kernels_are_measured_at_the_full_window() -> None:
    shape = Sizes("14B", 40, 128, torch.bfloat16).attention
    assert (shape.queries, shape.keys) == (4_680, 28_080)


def test_a_wrong_result_shows() -> None:
    q, keys, _ = operations(TOY, torch.device("cpu"))["q, k norm, RoPE, write"].run(PLAIN)
    assert difference((q, keys), [q, keys]) == (0.0, 0.0)
    other = q.clone()
    other[0, 0, 0, 0] += q.abs().max()
    off, differing = difference((other, keys), [q, keys])
    assert off == pytest.approx(1.0) and differing == 1 / (q.numel() + keys.numel())
    other[0, 0, 0, 0] = torch.nan
    off, _ = difference((other, keys), [q, keys])
    assert off != off, "NaN is not mistaken for agreement"


def figures(row: KernelRow, attention: list[AttentionChoice]) -> KernelFigures:
    return KernelFigures(
        machine=describe_machine(), interpreted=False, kernels=[row], attention=attention
    )


ROW = KernelRow(
    model="14B",
    name="gate",
    dtype="bfloat16",
    torch_ms=3.0,
    triton_ms=1.5,
    by_warps={4: 1.6, 8: 1.5},
    gb=0.3,
    gb_per_s=200.0,
    off=1e-3,
    differing=0.25,
    agrees=True,
)


def test_the_table_says_what_was_found() -> None:
    key = AttentionKey(
        device="a GPU",
        torch="2",
        dtype="bfloat16",
        queries=4_680,
        keys=28_080,
        heads=40,
        head_dim=128,
    )
    choice = AttentionChoice(
        key=key, backend="cudnn", ms={"flash": 5.0, "cudnn": 4.0}, refused={"math": "no memory"}
    )
    text = as_table(figures(ROW, [choice]))
    for part in ("x2.00", "200 GB/s", "25.00% differ", "attention 4680 x 28080", "no memory"):
        assert part in text
    assert text.index("cudnn  ") < text.index("flash  ")
    assert "673 TFLOP/s" in text  # 4 q k n d / 4 ms
    assert "WRONG" not in text


def test_a_kernel_that_disagrees_fails_the_command(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    right = figures(ROW, [])
    wrong = figures(msgspec.structs.replace(ROW, agrees=False), [])
    monkeypatch.setattr(kernels, "find_spec", lambda name: object())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(kernels, "measure_all", lambda *, cuda: wrong)
    assert kernels.main([]) == 1
    assert "WRONG" in capsys.readouterr().out
    monkeypatch.setattr(kernels, "measure_all", lambda *, cuda: right)
    assert kernels.main(["--json"]) == 0
    assert capsys.readouterr().out.startswith("{")


def test_without_triton_it_says_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(kernels, "find_spec", lambda name: None)
    assert kernels.main([]) == 2
    assert "triton" in capsys.readouterr().out
