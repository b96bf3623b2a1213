"""How much memory a model needs, computed from its configuration before anything is loaded.

Weights are counted tensor by tensor on networks without values, in the dtype each is kept in; what
a chunk takes for itself comes from a dry run (see `dry_run`). What a library's kernel takes inside
itself, and what an allocator keeps beyond what is used, is not in these numbers. `bench chunk`
prints them beside what it measured.
"""

from __future__ import annotations

import functools
from typing import NamedTuple

import msgspec
import torch
from torch import nn

from worldline.bench.dry_run import Decoding, decoding, encoding, passing
from worldline.core.config import DEFAULT_OPTIONS, EngineOptions
from worldline.models.lingbot.blocks import Block
from worldline.models.lingbot.dit import LingBotDiT
from worldline.models.lingbot.params import DiTParams
from worldline.models.pocket.params import PocketTextParams, PocketVAEParams
from worldline.models.pocket.text import PocketText
from worldline.models.pocket.vae import PocketVAE
from worldline.models.preset import Preset, RuntimeParams, resolve_runtime
from worldline.models.presets import TAEW2_1
from worldline.models.wan.params import UMT5Params, WanVAEParams
from worldline.models.wan.text import UMT5Encoder
from worldline.models.wan.tiny import TinyDecoder
from worldline.models.wan.vae import WanVAE
from worldline.quant.linear import quantise_linears
from worldline.runtime.device import autoencoder_dtype, is_packed
from worldline.runtime.memory import Kept
from worldline.runtime.offload import PARTS, ROTATING
from worldline.runtime.parts import Vae, on_meta
from worldline.runtime.state import Geometry

DRY_BLOCKS = 2


class MemoryPlan(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes on the device that computes, by what takes them.

    `weights` are held by the worker, `session` by every session while it is open. `chunk` is the
    workspace of each stage of the one chunk in flight; the camera's scale and shift live until the
    last pass has ended. Only the largest counts, or, where decoder and passes overlap (`beside`),
    these two together. `prompt` is what a new prompt takes between two chunks.
    """

    weights: dict[str, int]
    session: dict[str, int]
    chunk: dict[str, int]
    prompt: int = 0
    beside: bool = False

    def held(self, sessions: int = 1) -> int:
        """What is taken between two chunks."""
        return sum(self.weights.values()) + sessions * sum(self.session.values())

    def workspace(self) -> int:
        """The most that is taken beyond that for a moment."""
        together = self.chunk["passes"] + self.chunk["decode"] if self.beside else 0
        return max(together, self.prompt, *self.chunk.values())

    def peak(self, sessions: int = 1) -> int:
        """The most that is taken at any time."""
        return self.held(sessions) + self.workspace()


class Wanted(NamedTuple):
    """What to plan for: as the options of `worldline serve`; sizes in pixels."""

    preset: Preset
    width: int
    height: int
    settings: RuntimeParams
    mode: str = "exact"
    cuda: bool = True
    dtype: torch.dtype = torch.bfloat16
    options: EngineOptions = DEFAULT_OPTIONS


def wanted(
    preset: Preset,
    *,
    mode: str = "exact",
    options: EngineOptions = DEFAULT_OPTIONS,
    size: tuple[int, int] | None = None,
) -> Wanted:
    """A preset at its own numbers in bfloat16 on a CUDA device. Raises: ConfigError."""
    width, height = size or (preset.width, preset.height)
    return Wanted(preset, width, height, resolve_runtime(preset), mode=mode, options=options)


def plan_memory(want: Wanted) -> MemoryPlan:
    """Everything on the computing device, for a worker with one session of `want`."""
    preset, settings, options = want.preset, want.settings, want.options
    geometry = Geometry(want.width, want.height)
    kept = Kept.of(preset.dit, settings, geometry, dtype=want.dtype)
    restored = kept.ring // preset.dit.num_layers if options.kv == "8bit" else 0  # one block's
    camera = kept.camera if options.camera_cache == "auto" else 0
    dit = _transformer(preset.dit, want.mode, want.dtype)
    short = _transformer(_shortened(preset.dit), want.mode, want.dtype)
    tiny = options.decoder != "full"
    vae = _autoencoder(preset.vae, _vae_dtype(want))
    decode = _decoding(_tiny(want.cuda) if tiny else vae, settings.chunk, geometry.latent)
    return MemoryPlan(
        weights=_weights(want, dit),
        session={
            "keys and values": kept.ring_int8 if options.kv == "8bit" else kept.ring,
            "prompt": kept.prompt,
            "decoder history": decode.history,
            "tables": kept.tables,
        },
        chunk={
            "encode": _encoding(vae, settings.chunk, (want.height, want.width)),
            "passes": camera + restored + _passing(short, settings.chunk, geometry.tokens),
            "decode": decode.workspace,
        },
        prompt=_text_bytes(want) if options.text_encoder == "swap" else 0,
        beside=want.cuda,
    )


def _weights(want: Wanted, dit: LingBotDiT) -> dict[str, int]:
    preset = want.preset
    found = {
        "transformer": preset.experts * _transformer_bytes(want, dit),
        "autoencoder": _bytes(_autoencoder(preset.vae, _vae_dtype(want))),
    }
    if want.options.decoder != "full":
        found["tiny decoder"] = _bytes(_tiny(want.cuda))
    if want.options.text_encoder == "device":
        found["text encoder"] = _text_bytes(want)
    return found


def _transformer_bytes(want: Wanted, dit: LingBotDiT) -> int:
    whole = _bytes(dit)
    if want.options.offload != "off":
        blocks = dit.iter_blocks()
        inside = {part: _part_bytes(blocks[0], part) for part in PARTS}
        slots = dict.fromkeys(PARTS, ROTATING) | {"body": want.options.resident_blocks}
        rest = whole - len(blocks) * sum(inside.values())
        return rest + sum(min(slots[part], len(blocks)) * inside[part] for part in PARTS)
    if not want.cuda and is_packed(whole):
        linears = [m for m in dit.modules() if type(m) is nn.Linear]
        # Held twice, as it is and packed; the context pass ends with keys and values of the last
        # block alone, which are packed apart from its joined product.
        alone = dit.iter_blocks()[-1].self_attn
        again = sum(m.weight.nbytes for m in (alone.k, alone.v))
        return whole + sum(m.weight.nbytes for m in linears) + again
    return whole


@functools.lru_cache(maxsize=8)
def _transformer(params: DiTParams, mode: str, dtype: torch.dtype) -> LingBotDiT:
    """The transformer without values, its tensors in the dtypes they are kept in."""
    dit = on_meta(LingBotDiT, params)
    if mode == "8bit":
        quantise_linears(dit, dit.takes_eight_bits, dtype=dtype, native=True)
    for name, parameter in dit.named_parameters():
        if parameter.is_floating_point() and parameter.itemsize > 1:
            parameter.data = parameter.data.to(dit.storage_dtype(name, dtype))
    return dit.requires_grad_(False)


def _shortened(params: DiTParams) -> DiTParams:
    return msgspec.structs.replace(params, num_layers=min(DRY_BLOCKS, params.num_layers))


def _vae_dtype(want: Wanted) -> torch.dtype:
    device = torch.device("cuda" if want.cuda else "cpu")
    return autoencoder_dtype(device, want.mode, want.dtype)


@functools.lru_cache(maxsize=4)
def _autoencoder(params: WanVAEParams | PocketVAEParams, dtype: torch.dtype) -> Vae:
    if isinstance(params, WanVAEParams):
        return on_meta(WanVAE, params).to(dtype)
    return on_meta(PocketVAE, params).to(dtype)


@functools.lru_cache(maxsize=2)
def _tiny(cuda: bool) -> TinyDecoder:
    return on_meta(TinyDecoder, TAEW2_1).to(torch.bfloat16 if cuda else torch.float32)


@functools.lru_cache(maxsize=8)
def _encoding(vae: Vae, chunk: int, size: tuple[int, int]) -> int:
    return encoding(vae, chunk, size)


@functools.lru_cache(maxsize=8)
def _decoding(decoder: Vae | TinyDecoder, chunk: int, grid: tuple[int, int]) -> Decoding:
    return decoding(decoder, chunk, grid)


@functools.lru_cache(maxsize=16)
def _passing(dit: LingBotDiT, chunk: int, grid: tuple[int, int]) -> int:
    return passing(dit, chunk, grid)


def _part_bytes(block: Block, part: str) -> int:
    named = (*block.named_parameters(), *block.named_buffers())
    return sum(tensor.nbytes for name, tensor in named if Block.part_of(name) == part)


@functools.lru_cache(maxsize=32)
def _bytes(module: nn.Module, dtype: torch.dtype | None = None) -> int:
    """Bytes of parameters and buffers, in their own dtype or in another."""
    tensors = (*module.parameters(), *module.buffers())
    return sum(t.numel() * (dtype or t.dtype).itemsize for t in tensors)


def _text_bytes(want: Wanted) -> int:
    """The text encoder in the transformer's dtype; the pocket world's table in float32."""
    preset = want.preset
    half = preset.family == "lingbot" and want.cuda
    return _bytes(_text(preset.text), want.dtype if half else torch.float32)


@functools.lru_cache(maxsize=4)
def _text(params: UMT5Params | PocketTextParams) -> UMT5Encoder | PocketText:
    if isinstance(params, UMT5Params):
        return on_meta(UMT5Encoder, params)
    return on_meta(PocketText, params)
