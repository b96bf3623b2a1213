"""Where networks go: eight bits while loading, blocks on the host, the text encoder swapped."""

from __future__ import annotations

import gc
import weakref
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file

from tests.checkpoints import WRITERS, Tiny, make_tiny, write_diffusers
from worldline.core.config import DEFAULT_OPTIONS, EngineOptions
from worldline.core.errors import CheckpointError, ConfigError, KeysError, PromptError
from worldline.models.lingbot.dit import LingBotDiT
from worldline.models.presets import TAEW2_1
from worldline.models.wan.tiny import PreviewVae, TinyDecoder
from worldline.quant.linear import Fp8Linear
from worldline.quant.rows import E4M3, to_e4m3
from worldline.runtime.loader import Components, load_components
from worldline.runtime.offload import BlockOffload
from worldline.runtime.placement import SwappedText

CPU = "cpu"


@pytest.fixture(scope="module")
def tiny() -> Tiny:
    return make_tiny()


@pytest.fixture(scope="module")
def folder(tiny: Tiny, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_diffusers(tmp_path_factory.mktemp("model"), tiny)


def load(
    path: Path | str, *, mode: str = "exact", options: EngineOptions = DEFAULT_OPTIONS
) -> Components:
    return load_components(str(path), device=CPU, mode=mode, options=options)


def eight_bit_layers(dit: LingBotDiT) -> dict[str, Fp8Linear]:
    return {name: m for name, m in dit.named_modules() if isinstance(m, Fp8Linear)}


def test_only_the_blocks_projections_are_in_eight_bits(folder: Path, tiny: Tiny) -> None:
    dit = load(folder, mode="8bit").dit
    layers = eight_bit_layers(dit)
    projections = [f"{a}.{p}" for a in ("self_attn", "cross_attn") for p in "qkvo"]
    wanted = {f"blocks.{i}.{n}" for i in range(2) for n in (*projections, "ffn.0", "ffn.2")}
    assert set(layers) == wanted
    for name, layer in layers.items():
        rows = to_e4m3(tiny.dits[0][f"{name}.weight"])
        assert layer.weight.dtype == E4M3 and layer.bias is not None
        assert torch.equal(layer.weight.float(), rows.values.float())
        assert torch.equal(layer.scale, rows.scale)
        assert torch.equal(layer.bias, tiny.dits[0][f"{name}.bias"])
    full = {n: t for n, t in dit.state_dict().items() if n.rpartition(".")[0] not in layers}
    assert all(torch.equal(t, tiny.dits[0][n]) for n, t in full.items())
    assert not eight_bit_layers(load(folder, mode="fast").dit)


@pytest.mark.parametrize("name", WRITERS)
def test_every_layout_loads_in_eight_bits(name: str, tiny: Tiny, tmp_path: Path) -> None:
    assert len(eight_bit_layers(load(WRITERS[name](tmp_path, tiny), mode="8bit").dit)) == 20


def test_no_two_full_weights_exist_at_a_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The full copy of a weight is gone before the next one is read: never a whole network."""
    seen: list[weakref.ref[torch.Tensor]] = []
    most = 0
    quantise = Fp8Linear.weight_rows

    def watched(weight: torch.Tensor) -> dict[str, torch.Tensor]:
        nonlocal most
        seen.append(weakref.ref(weight))
        most = max(most, sum(ref() is not None for ref in seen))
        return quantise(weight)

    monkeypatch.setattr(Fp8Linear, "weight_rows", staticmethod(watched))
    gc.disable()  # so that what is freed is freed by itself
    try:
        load(folder, mode="8bit")
    finally:
        gc.enable()
    assert len(seen) == 20
    # The loop's own variable still holds the tensor before, which `safetensors` read.
    assert most <= 2


def test_offloaded_blocks_have_the_files_weights(folder: Path, tiny: Tiny) -> None:
    options = EngineOptions(offload="blocks", resident_blocks=1)
    for mode in ("exact", "8bit"):
        whole, parted = load(folder, mode=mode).dit, load(folder, mode=mode, options=options).dit
        assert isinstance(parted.residency, BlockOffload)
        for part in ("text", "camera", "body"):
            pairs = zip(
                whole.residency(part, whole.iter_blocks()),
                parted.residency(part, parted.iter_blocks()),
                strict=True,
            )
            for ours, theirs in pairs:
                expected = dict(ours.named_parameters()) | dict(ours.named_buffers())
                for name, tensor in (*theirs.named_parameters(), *theirs.named_buffers()):
                    if theirs.part_of(name) in (part, None):
                        assert tensor.dtype == expected[name].dtype, name
                        assert torch.equal(tensor.float(), expected[name].float()), name


def test_offload_needs_room_for_a_block(folder: Path) -> None:
    with pytest.raises(ConfigError, match="no block would fit"):
        load(folder, options=EngineOptions(offload="blocks", resident_blocks=0))


def test_a_swapped_text_encoder_stays_on_the_host(folder: Path) -> None:
    plain = load(folder).text
    swapped = load(folder, options=EngineOptions(text_encoder="swap")).text
    assert isinstance(swapped, SwappedText)
    assert (swapped.text_len, swapped.text_dim) == (plain.text_len, plain.text_dim)
    prompts = ["a sandy court", "the sea under snow"]
    assert torch.equal(swapped.encode(prompts), plain.encode(prompts))
    assert torch.equal(swapped.encode(prompts), plain.encode(prompts))


def test_a_swap_that_fails_leaves_the_host_copy(folder: Path) -> None:
    swapped = load(folder, options=EngineOptions(text_encoder="swap")).text
    assert isinstance(swapped, SwappedText)
    encoder = swapped._text.encoder
    before = [p.data_ptr() for p in encoder.parameters()]
    swapped._device = torch.device("meta")  # where nothing has an address
    with pytest.raises(PromptError):
        swapped.encode([])
    assert [p.data_ptr() for p in encoder.parameters()] == before


def preview_tensors() -> dict[str, torch.Tensor]:
    torch.manual_seed(0)
    decoder = TinyDecoder(TAEW2_1).to(torch.float16)
    encoder = {"encoder.0.weight": torch.zeros(64, 3, 3, 3), "encoder.17.bias": torch.zeros(16)}
    return {n: t.detach() for n, t in decoder.state_dict().items()} | encoder


@pytest.mark.parametrize("name", ["taew2_1.safetensors", "taew2_1.pth"])
def test_the_preview_decoder_is_found_beside_the_model(
    name: str, tiny: Tiny, tmp_path: Path
) -> None:
    path = write_diffusers(tmp_path / "model", tiny)
    tensors = preview_tensors()
    if name.endswith(".pth"):
        torch.save(tensors, path / name)
    else:
        save_file(tensors, path / name)
    assert load(path).preview is None
    preview = load(path, options=EngineOptions(decoder="tiny")).preview
    assert preview is not None
    for key, tensor in preview.state_dict().items():
        assert torch.equal(tensor, tensors[key].float())


def test_a_named_preview_decoder_and_what_is_refused(folder: Path, tmp_path: Path) -> None:
    path = tmp_path / "mine.safetensors"
    save_file(preview_tensors(), path)
    assert load(folder, options=EngineOptions(decoder=str(path))).preview is not None
    with pytest.raises(CheckpointError, match=r"taew2_1\.safetensors"):
        load(folder, options=EngineOptions(decoder="tiny"))
    with pytest.raises(ConfigError, match="unknown decoder"):
        load(folder, options=EngineOptions(decoder="huge"))
    with pytest.raises(ConfigError, match="has no preview decoder"):
        load("pocket", options=EngineOptions(decoder="tiny"))
    wrong = {n: t for n, t in preview_tensors().items() if not n.startswith("decoder.3.")}
    save_file(wrong, path)
    with pytest.raises(KeysError, match="6 missing"):
        load(folder, options=EngineOptions(decoder=str(path)))


def test_the_preview_encodes_with_the_full_autoencoder(folder: Path) -> None:
    components = load(folder)
    vae = PreviewVae(components.vae, TinyDecoder(TAEW2_1))
    assert vae.stationary_latent == components.vae.stationary_latent
    video = torch.linspace(-1, 1, 3 * 32 * 32).view(1, 3, 1, 32, 32)
    ours, theirs = vae.encode_stream(video, None)[0], components.vae.encode_stream(video, None)[0]
    assert torch.equal(ours, theirs)
