"""Triton's kernels against plain PyTorch, interpreted on the CPU: sizes, masks, dtypes, layouts."""

from __future__ import annotations

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.kernels import cases
from tests.kernels.agreement import assert_agree
from tests.kernels.cases import Shape, by_kernels, by_oracle
from tests.kernels.interpreter import Interpreter

SWEEP = settings(
    max_examples=8,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
DTYPES = (torch.float32, torch.bfloat16)


@st.composite
def shapes(draw: st.DrawFn, *, batches: int = 2) -> Shape:
    """Small shapes of all kinds; widths are rarely powers of two."""
    frames, rows, columns = draw(st.tuples(*[st.integers(1, 3)] * 3))
    tokens = frames * rows * columns
    return Shape(
        batch=draw(st.integers(1, batches)),
        frames=frames,
        rows=rows,
        columns=columns,
        heads=draw(st.integers(1, 5)),
        dim=2 * draw(st.integers(3, 20)),
        table=draw(st.sampled_from([1, frames, tokens])),
        dtype=draw(st.sampled_from(DTYPES)),
        loose=draw(st.booleans()),
        seed=draw(st.integers(0, 1000)),
    )


@SWEEP
@given(shape=shapes())
def test_norms_and_gates(interpreted: Interpreter, shape: Shape) -> None:
    found = interpreted.call(by_kernels, cases.norms_and_gates, shape)
    assert_agree(found, by_oracle(cases.norms_and_gates, shape))


@SWEEP
@given(shape=shapes())
def test_heads(interpreted: Interpreter, shape: Shape) -> None:
    found = interpreted.call(by_kernels, cases.heads, shape)
    wanted = by_oracle(cases.heads, shape)
    assert_agree(found, wanted)
    assert torch.equal(found["v3"], wanted["v3"])


@SWEEP
@given(shape=shapes())
def test_one_more_key(interpreted: Interpreter, shape: Shape) -> None:
    found = interpreted.call(by_kernels, cases.one_more_key, shape)
    assert_agree(found, by_oracle(cases.one_more_key, shape))


@settings(SWEEP, max_examples=4)
@given(shape=shapes(batches=1))
def test_ring(interpreted: Interpreter, shape: Shape) -> None:
    found = interpreted.call(by_kernels, cases.ring, shape)
    wanted = by_oracle(cases.ring, shape)
    assert_agree(found, wanted)
    assert torch.equal(found["values0"], wanted["values0"])


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize(("heads", "dim"), [(12, 128), (3, 64)], ids=["1.3B", "pocket"])
def test_real_widths(interpreted: Interpreter, heads: int, dim: int, dtype: torch.dtype) -> None:
    shape = Shape(frames=1, rows=1, columns=3, heads=heads, dim=dim, dtype=dtype)
    for case in (cases.norms_and_gates, cases.heads):
        assert_agree(interpreted.call(by_kernels, case, shape), by_oracle(case, shape))
