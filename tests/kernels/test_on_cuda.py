"""The kernels on the device they are for, at the sizes of the real models."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from tests.kernels import cases
from tests.kernels.agreement import assert_agree
from tests.kernels.cases import Case, Shape, by_kernels, by_oracle
from worldline.core.errors import ConfigError
from worldline.kernels.choice import choose_math
from worldline.kernels.choice_file import ChoiceFile
from worldline.kernels.rows import e4m3_rows, quantises
from worldline.ops.attention import AttentionShape
from worldline.quant.rows import E4M3_PEAK, LEAST_SCALE, to_e4m3

pytestmark = [
    pytest.mark.gpu,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device"),
]
CUDA = "cuda"
CASES = [cases.norms_and_gates, cases.heads, cases.one_more_key, cases.ring]


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("heads", [40, 12], ids=["14B", "1.3B"])
def test_kernels_agree_with_plain_pytorch(heads: int, dtype: torch.dtype, case: Case) -> None:
    shape = Shape(
        frames=3, rows=30, columns=52, heads=heads, dim=128, dtype=dtype, device=CUDA, loose=True
    )
    assert_agree(by_kernels(case, shape), by_oracle(case, shape))


def test_kernels_are_chosen_where_bits_may_change() -> None:
    device = torch.device(CUDA)
    assert choose_math("auto", mode="exact", device=device).name == "torch"
    try:
        assert choose_math("triton", mode="fast", device=device).name == "triton"
    except ConfigError as error:
        pytest.skip(str(error))
    assert choose_math("auto", mode="fast", device=device).name == "triton"


def test_rows_have_the_bits_of_the_cpu() -> None:
    x = torch.randn(64, 13_824, generator=torch.Generator().manual_seed(0)).bfloat16()
    if not quantises(x.to(CUDA)):
        pytest.skip("this device does not know e4m3")
    values, scale = e4m3_rows(x.to(CUDA), E4M3_PEAK, LEAST_SCALE)
    wanted = to_e4m3(x)
    assert torch.equal(values.cpu().view(torch.uint8), wanted.values.view(torch.uint8))
    assert torch.equal(scale.cpu(), wanted.scale)


def test_attention_is_chosen_by_measurement(tmp_path: Path) -> None:
    from worldline.kernels.attention import AttentionChooser, random_inputs
    from worldline.ops.attention import attention

    device = torch.device(CUDA)
    shape = AttentionShape(1_560, 4_680, 12, 128, torch.bfloat16)
    choosing = AttentionChooser(device, file=ChoiceFile(tmp_path / "attention.json"))
    q, k, v = random_inputs(shape, device)
    got = choosing.pick(shape)(q, k, v)
    (choice,) = choosing.choices
    assert choice.ms[choice.backend] == min(choice.ms.values())
    assert "torch" in choice.ms
    wanted = attention(q.float(), k.float(), v.float())
    assert float((got.float() - wanted).abs().max()) <= 0.05 * float(wanted.abs().max())
