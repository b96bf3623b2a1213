"""The eight-bit linear layer: its product, its place in a network, its memory."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from worldline.quant.linear import (
    Fp8Linear,
    is_native,
    plain_product,
    quantise_linears,
    scaled_product,
)
from worldline.quant.rows import E4M3, from_rows, to_e4m3


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def filled(
    weight: torch.Tensor, bias: torch.Tensor | None, *, device: str = "cpu", native: bool = False
) -> Fp8Linear:
    outputs, inputs = weight.shape
    dtype = weight.dtype
    layer = Fp8Linear(inputs, outputs, bias=bias is not None, dtype=dtype, native=native)
    rows = layer.weight_rows(weight.to(device))
    layer.weight = nn.Parameter(rows["weight"], requires_grad=False)
    layer.scale = rows["scale"]
    layer.bias = None if bias is None else nn.Parameter(bias.to(device), requires_grad=False)
    return layer


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_the_product_of_the_rounded_numbers(dtype: torch.dtype, bias: bool) -> None:
    weight, x = noise(24, 40, seed=1).to(dtype), noise(2, 5, 40, seed=2)
    shift = noise(24, seed=3).to(dtype) if bias else None
    found = filled(weight, shift)(x)
    assert found.dtype == dtype and found.shape == (2, 5, 24)
    rounded = [from_rows(to_e4m3(t), torch.float64) for t in (x, weight)]
    expected = F.linear(rounded[0], rounded[1], None if shift is None else shift.double())
    tolerance = 1e-5 if dtype == torch.float32 else 2**-8
    torch.testing.assert_close(found.double(), expected, rtol=tolerance, atol=tolerance)


def test_it_is_near_the_full_layer() -> None:
    weight, x = noise(64, 256, seed=1) / 16, noise(32, 256, seed=2)
    found, full = filled(weight, None)(x), F.linear(x, weight)
    assert (found - full).square().mean() < 2e-3 * full.square().mean()


def test_only_wanted_layers_are_replaced_and_the_names_stay() -> None:
    with torch.device("meta"):
        net = nn.ModuleDict({"a": nn.Sequential(nn.Linear(8, 8), nn.GELU()), "b": nn.Linear(8, 4)})
    names = list(net.state_dict())
    found = quantise_linears(net, lambda n: n == "a.0", dtype=torch.bfloat16, native=False)
    assert found == ["a.0"] and list(net.state_dict()) == names
    assert isinstance(net.get_submodule("a.0"), Fp8Linear)
    assert isinstance(net.get_submodule("b"), nn.Linear)
    assert net.get_parameter("a.0.weight").dtype == E4M3


def test_the_layer_keeps_half_of_sixteen_bits() -> None:
    layer = filled(noise(64, 256).to(torch.bfloat16), None)
    assert layer.weight.nbytes + layer.scale.nbytes == 64 * 256 + 64 * 4


def test_no_cpu_multiplies_eight_bits_and_odd_sizes_take_the_plain_way() -> None:
    assert not is_native(torch.device("cpu"))
    assert not Fp8Linear(24, 32, bias=False, dtype=torch.float32, native=True).native
    assert Fp8Linear(32, 64, bias=False, dtype=torch.float32, native=True).native


@pytest.mark.gpu
@pytest.mark.skipif(
    not (torch.cuda.is_available() and is_native(torch.device("cuda"))), reason="needs e4m3 cores"
)
@pytest.mark.parametrize("tokens", [1, 77, 4680])
def test_the_tensor_cores_agree_with_the_oracle(tokens: int) -> None:
    x = to_e4m3(noise(1, tokens, 1536, seed=1).cuda())
    weight = to_e4m3(noise(8960, 1536, seed=2).cuda() / 40)
    bias = noise(8960, seed=3).cuda().to(torch.bfloat16)
    found = scaled_product(x, weight, bias, torch.bfloat16).float()
    expected = plain_product(x, weight, bias, torch.float32)
    torch.testing.assert_close(found, expected, rtol=2**-7, atol=2**-6)
