"""The transformer against values recorded from the official code, and what it promises beside."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file

from tests.tiny import build, dit_params
from worldline.core.errors import ConfigError
from worldline.models.lingbot.dit import LingBotDiT
from worldline.models.lingbot.params import DiTParams
from worldline.ops.attention import FullAttention
from worldline.ops.rope import apply_rope, axis_split, rope_table

Find = Callable[[str], Path]
FIELDS = (
    "dim",
    "ffn_dim",
    "num_heads",
    "num_layers",
    "in_dim",
    "out_dim",
    "freq_dim",
    "text_dim",
    "text_len",
    "eps",
)


@pytest.mark.parametrize(("kind", "width"), [("cam", 6), ("act", 7)])
def test_bidirectional_forward_equals_the_official_one(golden: Find, kind: str, width: int) -> None:
    weights = load_file(golden(f"dit_weights_{kind}.safetensors"))
    with safe_open(golden(f"dit_base_{kind}.safetensors"), "pt") as file:
        meta = file.metadata()
        config, cases = json.loads(meta["config"]), json.loads(meta["cases"])
        params = DiTParams(**{k: config[k] for k in FIELDS}, control_dim=width)
        dit = LingBotDiT(params)
        dit.load_state_dict(weights)
        for case in cases:
            x = torch.cat([file.get_tensor(f"{case}.x"), file.get_tensor(f"{case}.y")])[None]
            context = file.get_tensor(f"{case}.context")
            text = torch.zeros(1, params.text_len, params.text_dim)
            text[0, : len(context)] = context
            has_camera = f"{case}.cam" in file.keys()  # noqa: SIM118 - no mapping
            control = file.get_tensor(f"{case}.cam") if has_camera else None
            t = file.get_tensor(f"{case}.t").reshape(1)
            with torch.no_grad():
                flow = dit(x, t, text=text, control=control)
            wanted = file.get_tensor(f"{case}.out")
            torch.testing.assert_close(flow[0], wanted, atol=1e-4, rtol=1e-4)


def small() -> LingBotDiT:
    dit = LingBotDiT(dit_params())
    build(dit, 3)
    return dit


def test_given_modulation_equals_computed_modulation() -> None:
    dit = small()
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(1, 36, 2, 4, 6, generator=generator)
    control = torch.randn(1, 384, 2, 4, 6, generator=generator)
    text = torch.randn(1, 10, 24, generator=generator)
    time = dit.embed_time(torch.tensor([937]))
    shared = {
        "rope": dit.rope(range(5, 7), 2, 3),
        "cross": dit.cross_kv(dit.embed_text(text)),
        "attend": FullAttention(),
    }
    camera = dit.embed_camera(control)
    given = dit.run_blocks(
        dit.patchify(x), time=dit.time_tables(time), camera=dit.camera_modulation(camera), **shared
    )
    computed = dit.run_blocks(dit.patchify(x), time=time, camera=camera, **shared)
    assert torch.equal(given, computed)


def test_one_time_per_token_equals_one_for_all() -> None:
    dit = small()
    one = dit.time_tables(dit.embed_time(torch.tensor([250])))
    many = dit.time_tables(dit.embed_time(torch.full((1, 6), 250)))
    assert many.head.shape[1] == 6
    torch.testing.assert_close(many.blocks[1], one.blocks[1].expand(-1, 6, -1, -1))


def test_half_precision_keeps_time_and_head_in_float32() -> None:
    dit = small()
    full = {k: v.clone() for k, v in dit.state_dict().items()}
    for name, parameter in dit.named_parameters():
        parameter.data = parameter.data.to(LingBotDiT.storage_dtype(name, torch.bfloat16))
    assert dit.dtype == torch.bfloat16
    assert dit.head.head.weight.dtype == dit.time_projection[1].weight.dtype == torch.float32
    assert dit.iter_blocks()[0].modulation.dtype == torch.float32
    x = torch.randn(1, 36, 1, 4, 4, generator=torch.Generator().manual_seed(1))
    text, control = torch.ones(1, 10, 24), torch.ones(1, 384, 1, 4, 4)
    low = dit(x, torch.tensor([500]), text=text, control=control)
    reference = LingBotDiT(dit.params)
    reference.load_state_dict(full)
    with torch.no_grad():
        high = reference(x, torch.tensor([500]), text=text, control=control)
    assert low.dtype == torch.float32
    assert (low - high).abs().max() < 0.05 * high.abs().max()


def test_rope_has_no_end_and_depends_on_distance_only() -> None:
    generator = torch.Generator().manual_seed(0)
    q, k = torch.randn(2, 1, 1, 1, 24, generator=generator)

    def score(at: int, other: int) -> torch.Tensor:
        turned_q = apply_rope(q, rope_table([at], 1, 1, head_dim=24))
        turned_k = apply_rope(k, rope_table([other], 1, 1, head_dim=24))
        return (turned_q * turned_k).sum()

    near = score(7, 4)
    for offset in (1021, 10**6, 10**9):
        torch.testing.assert_close(score(7 + offset, 4 + offset), near, atol=2e-5, rtol=1e-5)
    assert abs(float(score(7, 5) - near)) > 1e-3


def test_axes_share_a_head_as_published() -> None:
    assert axis_split(128) == (22, 21, 21)
    assert axis_split(64) == (12, 10, 10)


def test_impossible_numbers_are_refused() -> None:
    for wrong in ({"num_heads": 5}, {"control_dim": 5}, {"dim": 6, "num_heads": 2}):
        numbers = {f: getattr(dit_params(), f) for f in (*FIELDS, "control_dim")} | wrong
        with pytest.raises(ConfigError):
            DiTParams(**numbers)
