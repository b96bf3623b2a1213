"""Adapters: every common way to write one, put on, switched and taken off bit for bit."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

from tests import tiny
from tests.runtime.test_offload import build, forward
from worldline.core.errors import CheckpointError, ConfigError, KeysError
from worldline.core.lora import Outfit, parse_outfit, parse_spec
from worldline.models.lingbot.dit import LingBotDiT
from worldline.ops.packed import pack_linears
from worldline.runtime import lora as lora_module
from worldline.runtime.engine import World
from worldline.runtime.lora import NOTHING, Wardrobe

Q, FFN = "blocks.1.self_attn.q", "blocks.0.ffn.0"
RANK = 4


def network(seed: int = 0) -> LingBotDiT:
    dit = LingBotDiT(tiny.dit_params())
    tiny.build(dit, seed)
    return dit


def wardrobe(*dits: LingBotDiT) -> Wardrobe:
    return Wardrobe(dits or (network(),), changed=lambda: None)


def matrices(dit: LingBotDiT, *names: str, seed: int = 1) -> dict[str, tuple[Tensor, Tensor]]:
    """Down `[r, in]` and up `[out, r]` for each layer."""
    generator = torch.Generator().manual_seed(seed)
    found: dict[str, tuple[Tensor, Tensor]] = {}
    for name in names:
        weight = dit.get_parameter(f"{name}.weight")
        inner = weight[0].numel()
        down = torch.randn(RANK, inner, generator=generator) * inner**-0.5
        up = torch.randn(weight.shape[0], RANK, generator=generator)
        found[name] = down, up
    return found


def write(path: Path, tensors: dict[str, Tensor]) -> Path:
    save_file({name: tensor.contiguous().clone() for name, tensor in tensors.items()}, path)
    return path


def peft(name: str, down: Tensor, up: Tensor) -> dict[str, Tensor]:
    return {f"{name}.lora_A.weight": down, f"{name}.lora_B.weight": up}


def adapter(
    path: Path, dit: LingBotDiT, *, seed: int = 1, layers: tuple[str, ...] = (Q, FFN)
) -> Path:
    """A file in PEFT's names."""
    tensors: dict[str, Tensor] = {}
    for name, (down, up) in matrices(dit, *layers, seed=seed).items():
        tensors |= peft(name, down, up)
    return write(path, tensors)


def state(dit: LingBotDiT) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in dit.state_dict().items()}


STYLES: dict[str, Callable[[str, Tensor, Tensor], dict[str, Tensor]]] = {
    "peft": lambda n, d, u: peft(f"base_model.model.{n}", d, u),
    "peft with a name": lambda n, d, u: {
        f"base_model.model.{n}.lora_A.default.weight": d,
        f"base_model.model.{n}.lora_B.default.weight": u,
    },
    "diffusers": lambda n, d, u: peft(f"transformer.{DIFFUSERS[n]}", d, u),
    "comfyui": lambda n, d, u: peft(f"diffusion_model.{n}", d, u),
    "kohya": lambda n, d, u: {
        f"lora_unet_{n.replace('.', '_')}.lora_down.weight": d,
        f"lora_unet_{n.replace('.', '_')}.lora_up.weight": u,
        f"lora_unet_{n.replace('.', '_')}.alpha": torch.tensor(float(RANK)),
    },
    "plain": lambda n, d, u: {f"{n}.lora.down.weight": d, f"{n}.lora.up.weight": u},
    "differences": lambda n, d, u: {f"diffusion_model.{n}.diff": u @ d},
}
DIFFUSERS = {Q: "blocks.1.attn1.to_q", FFN: "blocks.0.ffn.net.0.proj"}


@pytest.mark.parametrize("style", STYLES)
def test_every_style_is_the_same_change(style: str, tmp_path: Path) -> None:
    dit = network()
    before = state(dit)
    tensors: dict[str, Tensor] = {}
    pairs = matrices(dit, Q, FFN)
    for name, (down, up) in pairs.items():
        tensors |= STYLES[style](name, down, up)
    loras = wardrobe(dit)
    loras.load("style", write(tmp_path / "a.safetensors", tensors))
    assert loras.wear((("style", 0.5),))
    for name, tensor in dit.state_dict().items():
        layer = name.removesuffix(".weight")
        if layer in pairs and name.endswith(".weight"):
            down, up = pairs[layer]
            expected = before[name] + 0.5 * (up @ down)
            torch.testing.assert_close(tensor, expected, rtol=0, atol=1e-6)
            assert not torch.equal(tensor, before[name])
        else:
            assert torch.equal(tensor, before[name])
    assert loras.wear(NOTHING)
    assert all(torch.equal(t, before[n]) for n, t in dit.state_dict().items())


def test_alpha_and_its_config(tmp_path: Path) -> None:
    dit = network()
    before = state(dit)
    ((_, (down, up)),) = matrices(dit, Q).items()
    loras = wardrobe(dit)
    tensors = peft(Q, down, up) | {f"{Q}.alpha": torch.tensor(2.0)}
    loras.load("alpha", write(tmp_path / "a.safetensors", tensors))
    folder = tmp_path / "peft"
    folder.mkdir()
    write(folder / "adapter_model.safetensors", peft(Q, down, up))
    (folder / "adapter_config.json").write_text(json.dumps({"r": RANK, "lora_alpha": 8}))
    loras.load("config", folder / "adapter_model.safetensors")
    for name, factor in (("alpha", 2.0 / RANK), ("config", 8.0 / RANK)):
        loras.wear(((name, 1.0),))
        expected = before[f"{Q}.weight"] + factor * (up @ down)
        torch.testing.assert_close(dit.get_parameter(f"{Q}.weight"), expected, rtol=0, atol=1e-5)
    loras.load("bare", write(tmp_path / "bare.safetensors", peft(Q, down, up)))
    marks = {loras.mark(((name, 1.0),)) for name in ("bare", "config")}
    assert len(marks) == 2, "equal files, another factor beside one of them"
    (folder / "adapter_config.json").write_text(
        json.dumps({"r": 4, "lora_alpha": 8, "use_dora": 1})
    )
    with pytest.raises(CheckpointError, match="adapter_config"):
        loras.load("other", folder / "adapter_model.safetensors")


def test_switching_adds_up_in_any_order_and_leaves_nothing(tmp_path: Path) -> None:
    dit = network()
    before, loras = state(dit), wardrobe(dit)
    loras.load("a", adapter(tmp_path / "a.safetensors", dit, seed=1))
    loras.load("b", adapter(tmp_path / "b.safetensors", dit, seed=2, layers=(Q, "patch_embedding")))
    fresh = network()
    alone = wardrobe(fresh)
    alone.load("b", tmp_path / "b.safetensors")
    alone.wear((("b", 1.0),))
    for outfit in ((("a", 1.0),), (("a", 0.3), ("b", -1.0)), (("b", 1.0),)):
        loras.wear(outfit)
        assert loras.worn == outfit
    assert all(torch.equal(t, fresh.state_dict()[n]) for n, t in dit.state_dict().items())
    loras.unload("b")
    assert loras.worn == NOTHING and loras.names == ["a"]
    assert all(torch.equal(t, before[n]) for n, t in dit.state_dict().items())
    loras.unload("a")
    assert loras.nbytes == 0


def test_a_change_that_fails_half_way_is_mended_by_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    dit = network()
    before, loras = state(dit), wardrobe(dit)
    loras.load("a", adapter(tmp_path / "a.safetensors", dit))
    summed, sums = lora_module._summed, list[int]()  # pyright: ignore[reportPrivateUsage]

    def failing(*args: Any) -> Any:
        sums.append(1)
        if len(sums) == 2:
            raise torch.OutOfMemoryError("no memory")
        return summed(*args)

    monkeypatch.setattr(lora_module, "_summed", failing)
    with pytest.raises(torch.OutOfMemoryError):
        loras.wear((("a", 1.0),))
    assert any(not torch.equal(t, before[n]) for n, t in dit.state_dict().items())
    assert loras.wear(NOTHING) and not loras.wear(NOTHING)
    assert all(torch.equal(t, before[n]) for n, t in dit.state_dict().items())


def test_what_has_no_effect_changes_nothing(tmp_path: Path) -> None:
    dit, heard = network(), list[int]()
    loras = Wardrobe([dit], changed=lambda: heard.append(1))
    loras.load("a", adapter(tmp_path / "a.safetensors", dit))
    assert not loras.wear((("a", 0.0),))
    assert loras.wear((("a", 1.0),)) and not loras.wear((("a", 1.0),))
    assert heard == [1]
    assert loras.mark((("a", 0.0),)) == "" != loras.mark((("a", 1.0),)) != loras.mark((("a", 2.0),))


def test_experts_wear_their_own(tmp_path: Path) -> None:
    high, low = network(0), network(5)
    before = state(low)
    loras = wardrobe(high, low)
    loras.load("high", adapter(tmp_path / "a.safetensors", high), experts=[0])
    loras.wear((("high", 1.0),))
    assert all(torch.equal(t, before[n]) for n, t in low.state_dict().items())
    loras.load("both", tmp_path / "a.safetensors")
    assert loras.mark((("both", 1.0),)) != loras.mark((("high", 1.0),))
    with pytest.raises(ConfigError, match="expert"):
        loras.load("third", tmp_path / "a.safetensors", experts=[2])


@pytest.mark.parametrize(
    "outfit", [(("no", 1.0),), (("a", 1e9),), (("a", float("nan")),), (("a", 1.0),) * 2]
)
def test_outfits_that_cannot_be_change_nothing(
    outfit: tuple[tuple[str, float], ...], tmp_path: Path
) -> None:
    dit = network()
    loras = wardrobe(dit)
    loras.load("a", adapter(tmp_path / "a.safetensors", dit))
    before = state(dit)
    with pytest.raises(ConfigError):
        loras.wear(outfit)
    assert loras.worn == NOTHING
    assert all(torch.equal(t, before[n]) for n, t in dit.state_dict().items())


def bad(kind: str) -> dict[str, Tensor]:
    down, up = torch.ones(RANK, 48), torch.ones(48, RANK)
    return {
        "another transformer": peft("blocks.7.self_attn.q", down, up),
        "a text encoder's": peft("lora_te1_text_model", down, up),
        "no role": {f"{Q}.lora_C.weight": up},
        "half": {f"{Q}.lora_A.weight": down},
        "wrong width": peft(Q, torch.ones(RANK, 49), up),
        "wrong height": peft(Q, down, torch.ones(47, RANK)),
        "two ranks": peft(Q, down, torch.ones(48, RANK + 1)),
        "no matrix": peft(Q, torch.ones(RANK), up),
        "of no rows": peft(Q, torch.ones(0, 48), torch.ones(48, 0)),
        "a long alpha": peft(Q, down, up) | {f"{Q}.alpha": torch.ones(2)},
        "twice": peft(Q, down, up) | peft(f"transformer.{DIFFUSERS[Q]}", down, up),
        "both kinds": peft(Q, down, up) | {f"{Q}.diff": torch.ones(48, 48)},
        "another difference": {f"{Q}.diff": torch.ones(48, 47)},
        "bytes": {f"{Q}.lora_A.weight": down.to(torch.uint8), f"{Q}.lora_B.weight": up},
        "magnitudes": peft(Q, down, up) | {f"{Q}.dora_scale": torch.ones(48, 1)},
    }[kind]


@pytest.mark.parametrize(
    "kind",
    [
        "another transformer",
        "a text encoder's",
        "no role",
        "half",
        "wrong width",
        "wrong height",
        "two ranks",
        "no matrix",
        "of no rows",
        "a long alpha",
        "twice",
        "both kinds",
        "another difference",
        "bytes",
        "magnitudes",
    ],
)
def test_what_does_not_fit_is_refused_as_a_whole(kind: str, tmp_path: Path) -> None:
    loras = wardrobe()
    with pytest.raises(KeysError):
        loras.load("a", write(tmp_path / "a.safetensors", bad(kind)))
    assert loras.names == [] and loras.nbytes == 0


def test_files_that_are_none(tmp_path: Path) -> None:
    loras = wardrobe()
    (tmp_path / "cut.safetensors").write_bytes(b"\xff" * 40)
    (tmp_path / "a.pt").write_bytes(b"")
    numbers = {name: tensor / 0 for name, tensor in bad("another transformer").items()}
    numbers = {name.replace(".7.", ".1."): tensor for name, tensor in numbers.items()}
    write(tmp_path / "inf.safetensors", numbers)
    for name in ("cut.safetensors", "a.pt", "inf.safetensors", "missing.safetensors"):
        with pytest.raises(CheckpointError):
            loras.load("a", tmp_path / name)
    assert loras.names == []


def test_names_are_plain_and_each_is_had_once(tmp_path: Path) -> None:
    dit = network()
    loras = wardrobe(dit)
    path = adapter(tmp_path / "a.safetensors", dit)
    loras.load("a", path)
    for name in ("a", "", "a:b", "a=b", "a@b", "a,b", "\n"):
        with pytest.raises(ConfigError):
            loras.load(name, path)
    with pytest.raises(ConfigError, match="no such LoRA"):
        loras.unload("b")


@pytest.mark.parametrize(
    ("text", "spec"),
    [
        ("dir/ink.safetensors", ("ink", Path("dir/ink.safetensors"), 1.0)),
        ("b=ink.safetensors@0.5", ("b", Path("ink.safetensors"), 0.5)),
        ("dir@2/ink.safetensors@-1", ("ink", Path("dir@2/ink.safetensors"), -1.0)),
    ],
)
def test_specs(text: str, spec: tuple[str, Path, float]) -> None:
    assert parse_spec(text) == spec


def test_outfits_of_a_request() -> None:
    assert parse_outfit("ink:0.5, chalk") == (("ink", 0.5), ("chalk", 1.0))
    assert parse_outfit("") == ()
    with pytest.raises(ConfigError):
        parse_outfit("ink:much")


@pytest.mark.parametrize("text", ["", "a=", "=b.safetensors", "a.safetensors@x", "@1"])
def test_specs_that_are_none(text: str) -> None:
    with pytest.raises(ConfigError):
        parse_spec(text)


@pytest.mark.parametrize("kind", ["joined", "packed", "offloaded", "eight bits"])
def test_however_the_weights_are_kept(kind: str, tmp_path: Path) -> None:
    """Forward passes are those of a network that was made with the changed weights."""
    dit, _ = build(resident=2 if kind == "offloaded" else None, eight_bit=kind == "eight bits")
    if kind == "packed":
        pack_linears(dit)
    if kind in ("joined", "packed"):
        dit.join_projections()
    plain = forward(dit)
    wanted, _ = build(resident=None)
    tensors: dict[str, Tensor] = {}
    changed = matrices(wanted, *(f"blocks.{i}.self_attn.{p}" for i in range(5) for p in "qkvo"))
    for name, (down, up) in changed.items():
        tensors |= peft(name, down, up)
        wanted.get_parameter(f"{name}.weight").data.add_(up @ down)
    loras = wardrobe(dit)
    loras.load("a", write(tmp_path / "a.safetensors", tensors))
    loras.wear((("a", 1.0),))
    worn = forward(dit)
    error = (worn - forward(wanted)).abs().max() / (worn - plain).abs().max()
    assert error < {"eight bits": 0.2, "packed": 1e-4}.get(kind, 1e-6)
    joined = [block.self_attn._joined for block in dit.iter_blocks()]
    assert all(one is not None for one in joined) == (kind in ("joined", "packed"))
    for block, one in zip(dit.iter_blocks(), joined, strict=True):
        own = block.self_attn
        assert one is None or one.holds((own.q, own.k, own.v)), "still one product"
    loras.wear(NOTHING)
    assert torch.equal(forward(dit), plain)


def film(world: World, loras: Outfit | None, chunks: int = 2) -> Tensor:
    with world.start(tiny.picture(), tiny.PROMPT, loras=loras) as session:
        return torch.cat([torch.from_numpy(session.step().frames) for _ in range(chunks)])


def test_sessions_side_by_side_wear_what_they_began_with(tmp_path: Path) -> None:
    world = tiny.world()
    plain = film(world, None)
    world.loras.load("a", str(adapter(tmp_path / "a.safetensors", network(), seed=1)))
    world.loras.load("b", adapter(tmp_path / "b.safetensors", network(), seed=2))
    alone = {name: film(world, ((name, 1.0),)) for name in "ab"}
    assert not torch.equal(alone["a"], plain) and not torch.equal(alone["a"], alone["b"])
    sessions = {
        name: world.start(tiny.picture(), tiny.PROMPT, loras=outfit)
        for name, outfit in (("a", (("a", 1.0),)), ("", ()), ("b", (("b", 1.0),)))
    }
    mixed: dict[str, list[Tensor]] = {name: [] for name in sessions}
    for _ in range(2):
        for name, session in sessions.items():
            mixed[name].append(torch.from_numpy(session.step().frames))
    for name, frames in mixed.items():
        assert torch.equal(torch.cat(frames), alone.get(name, plain))
    with pytest.raises(ConfigError, match="in use"):
        world.loras.unload("a")
    assert sessions["a"].engine.weights != sessions["b"].engine.weights != world.info.weights
    for session in sessions.values():
        session.close()
    world.loras.unload("a")
    with pytest.raises(ConfigError, match="no such LoRA"):
        world.start(tiny.picture(), tiny.PROMPT, loras=(("a", 1.0),))
    assert torch.equal(film(world, None), plain)
