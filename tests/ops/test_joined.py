"""Several linear layers as one product: the same numbers, held once, never stale."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from tests.tiny import build, dit_params
from worldline.models.lingbot.blocks import Attention
from worldline.models.lingbot.dit import LingBotDiT
from worldline.ops.joined import JoinedLinear
from worldline.ops.packed import can_pack, pack_linears
from worldline.quant.linear import Fp8Linear

WIDTH = dit_params().dim


def attention() -> Attention:
    made = Attention(dit_params())
    build(made, 3)
    return made


def tokens() -> Tensor:
    return torch.randn(1, 7, WIDTH, generator=torch.Generator().manual_seed(0))


@torch.no_grad()
def assert_projects(made: Attention, wanted: tuple[Tensor, ...]) -> None:
    for found, expected in zip(made.project(tokens()), wanted, strict=True):
        torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@torch.no_grad()
def separate(made: Attention) -> tuple[Tensor, ...]:
    return made.project(tokens(), joined=False)


@pytest.mark.parametrize("packed", [False, True])
def test_one_product_gives_what_three_give(packed: bool) -> None:
    made = attention()
    if packed:
        assert pack_linears(made) == (4 if can_pack(torch.float32) else 0)
    wanted = separate(made)
    made.join()
    assert_projects(made, wanted)
    assert_projects(made, separate(made))
    with torch.no_grad():
        q, k, v = made.project(tokens())
    assert q.untyped_storage().data_ptr() == k.untyped_storage().data_ptr()
    assert q.stride(1) == v.stride(1) == 3 * WIDTH, "views of one product"


def test_parameters_keep_their_names_and_are_held_once() -> None:
    dit, other = LingBotDiT(dit_params()), LingBotDiT(dit_params())
    build(dit, 1)
    before = {name: tensor.clone() for name, tensor in dit.state_dict().items()}
    dit.join_projections()
    after = dit.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(after[name], tensor) for name, tensor in before.items())
    assert sum(p.numel() for p in dit.parameters()) == sum(p.numel() for p in other.parameters())
    own = dit.iter_blocks()[0].self_attn
    storages = {layer.weight.untyped_storage().data_ptr() for layer in (own.q, own.k, own.v)}
    assert len(storages) == 1
    other.load_state_dict(after)
    joined = own._joined
    dit.join_projections()
    assert own._joined is joined, "joining again changes nothing"


@torch.no_grad()
def test_weights_that_change_are_seen() -> None:
    made = attention()
    pack_linears(made)
    made.join()
    made.k.weight.mul_(2)
    assert_projects(made, separate(made))
    made = attention()
    made.join()
    made.v.weight = nn.Parameter(torch.zeros(WIDTH, WIDTH), requires_grad=False)
    assert_projects(made, separate(made))
    made = attention()
    made.join()
    made.double()
    assert made.project(tokens().double()).q.dtype == torch.float64
    copied = copy.deepcopy(made)
    copied.q.weight.zero_()
    assert not torch.equal(made.project(tokens().double()).q, copied.project(tokens().double()).q)


def test_gradients_take_the_ordinary_way() -> None:
    made = attention()
    made.join()
    made.requires_grad_(True)
    made.project(tokens()).k.sum().backward()
    assert made.k.weight.grad is not None and made.q.weight.grad is None


def test_eight_bit_and_empty_layers_are_left_alone() -> None:
    made = attention()
    made.q = Fp8Linear(WIDTH, WIDTH, bias=True, dtype=torch.float32, native=False)  # type: ignore[assignment]
    made.join()
    assert made._joined is None
    with torch.device("meta"):
        nowhere = Attention(dit_params())
    nowhere.join()
    assert nowhere._joined is None


def test_layers_of_one_input_only() -> None:
    with pytest.raises(AssertionError, match="one input"):
        JoinedLinear([nn.Linear(4, 2), nn.Linear(3, 2)])
