"""Packed linear layers: the same map as an ordinary layer, and never of yesterday's weights."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from worldline.ops import packed
from worldline.ops.packed import PackedLinear, can_pack, pack_linears

pytestmark = pytest.mark.skipif(not can_pack(torch.float32), reason="this torch cannot pack")

TYPES = [torch.float32, torch.bfloat16]


def layer(dtype: torch.dtype = torch.float32, *, bias: bool = True) -> nn.Linear:
    """A layer of the pocket world's size."""
    torch.manual_seed(0)
    return nn.Linear(192, 576, bias=bias).to(dtype)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(1, 60, 192), (2, 7, 192), (192,)])
@torch.no_grad()
def test_it_maps_as_the_layer_does(dtype: torch.dtype, bias: bool, shape: tuple[int, ...]) -> None:
    if not can_pack(dtype):
        pytest.skip("not on this processor")
    plain = layer(dtype, bias=bias)
    x = torch.randn(shape).to(dtype)
    ours, theirs = PackedLinear(plain)(x), plain(x)
    assert ours.dtype == dtype and ours.shape == theirs.shape
    tolerance = 1e-6 if dtype == torch.float32 else 2e-2
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("dtype", TYPES)
@torch.no_grad()
def test_the_activation_after_it(dtype: torch.dtype) -> None:
    if not can_pack(dtype):
        pytest.skip("not on this processor")
    plain, x = layer(dtype), 3 * torch.randn(1, 60, 192)
    ours = PackedLinear(plain).gelu(x)
    theirs = nn.functional.gelu(plain(x.to(dtype)), approximate="tanh")
    tolerance = 1e-5 if dtype == torch.float32 else 3e-2
    torch.testing.assert_close(ours, theirs, rtol=tolerance, atol=tolerance)


@torch.no_grad()
def test_equal_inputs_give_equal_bits_wherever_they_lie() -> None:
    ours = PackedLinear(layer())
    x = torch.randn(1, 60, 192)
    across = x.transpose(1, 2).contiguous().transpose(1, 2)  # laid out by channel
    assert torch.equal(ours(x), ours(x.clone()))
    assert torch.equal(ours(x), ours(across))


@torch.no_grad()
def test_a_changed_weight_is_seen() -> None:
    plain = layer()
    ours, x = PackedLinear(plain), torch.randn(3, 192)
    plain.weight.mul_(2)
    torch.testing.assert_close(ours(x), plain(x))
    ours.weight.data = torch.randn(576, 192)
    torch.testing.assert_close(ours(x), nn.functional.linear(x, ours.weight, ours.bias))


def test_gradients_take_the_ordinary_way() -> None:
    ours = PackedLinear(layer())
    ours(torch.randn(3, 192)).sum().backward()
    assert ours.weight.grad is not None and ours.weight.grad.abs().sum() > 0


def test_a_network_keeps_its_names_and_parameters() -> None:
    network = nn.Sequential(layer(), nn.ModuleDict({"inner": layer()}), nn.GELU())
    before = {name: id(p) for name, p in network.named_parameters()}
    assert pack_linears(network) == 2
    assert isinstance(network[0], PackedLinear)
    assert {name: id(p) for name, p in network.named_parameters()} == before
    assert list(network.state_dict()) == list(before)
    assert pack_linears(network) == 0


def test_other_machines_keep_their_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packed.platform, "machine", lambda: "arm64")
    network = nn.Sequential(layer())
    assert pack_linears(network) == 0 and type(network[0]) is nn.Linear
