"""Where each network of a model goes, in which dtype, and by which way: decided before loading.

The transformer may be in eight bits (`--mode 8bit`) and its blocks in host memory (`--offload`);
the text encoder may stay in host memory (`--text-encoder`). Everything else is on the device.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn

from worldline.core.config import EngineOptions
from worldline.models.lingbot.dit import LingBotDiT
from worldline.models.pocket.text import PocketText
from worldline.models.wan.text import UMT5Encoder, UMT5Text
from worldline.models.wan.tiny import TinyDecoder
from worldline.quant.linear import is_native, quantise_linears
from worldline.runtime.fill import DtypeOf, Store, attach
from worldline.runtime.offload import BlockOffload
from worldline.runtime.parts import Vae

EIGHT_BIT_MODE = "8bit"


class Spot(NamedTuple):
    """What `fill` must know of one network: the device, each tensor's dtype, how it is stored."""

    device: torch.device
    dtype_of: DtypeOf
    store: Store


class Placement:
    """The rules of one model: `dtype` is the transformer's, `device` where it computes."""

    def __init__(
        self, device: torch.device, dtype: torch.dtype, *, mode: str, options: EngineOptions
    ) -> None:
        self.device = device
        self.dtype = dtype
        self._eight_bit = mode == EIGHT_BIT_MODE
        self._options = options

    def least_bytes(self, module: nn.Module, spot: Spot) -> int:
        """Bytes that a prepared network takes of the host at least."""
        if spot.device.type != "cpu":
            return 0
        small = self._eight_bit and isinstance(module, LingBotDiT)
        return sum(
            p.numel() * (1 if small else (spot.dtype_of(name) or p.dtype).itemsize)
            for name, p in module.named_parameters()
        )

    def prepare(self, module: nn.Module) -> Spot:
        """Rearrange a network on the meta device and say where its tensors go.

        The autoencoder is float32, its tiny decoder half precision on CUDA. UMT5 runs in the
        transformer's dtype on CUDA and stays as stored on the CPU, where float32 would double its
        11 GB for nothing. Raises `ConfigError` for an offload without room for a block.
        """
        if isinstance(module, LingBotDiT):
            return self._transformer(module)
        cuda = self.device.type == "cuda"
        if isinstance(module, TinyDecoder):
            half = torch.bfloat16 if cuda else torch.float32
            return Spot(self.device, lambda name: half, attach)
        if isinstance(module, Vae | PocketText):
            return Spot(self.device, lambda name: torch.float32, attach)
        assert isinstance(module, UMT5Encoder), f"no rule for {type(module).__name__}"
        where = self._options.text_encoder
        home = self.device if where == "device" else torch.device("cpu")
        computes_half = cuda and where != "cpu"
        return Spot(home, lambda name: self.dtype if computes_half else None, attach)

    def _transformer(self, dit: LingBotDiT) -> Spot:
        def dtype_of(name: str) -> torch.dtype:
            return dit.storage_dtype(name, self.dtype)

        if self._eight_bit:
            native = is_native(self.device)
            quantise_linears(dit, dit.takes_eight_bits, dtype=self.dtype, native=native)
        if self._options.offload == "off":
            return Spot(self.device, dtype_of, attach)
        offload = BlockOffload(
            dit,
            device=self.device,
            dtype_of=dtype_of,
            resident=self._options.resident_blocks,
        )
        return Spot(self.device, dtype_of, offload.store)

    def text(self, text: UMT5Text) -> UMT5Text | SwappedText:
        """The text encoder as the engine asks it."""
        return SwappedText(text, self.device) if self._options.text_encoder == "swap" else text


class SwappedText:
    """A text encoder that is on the device only while it encodes; its weights stay on the host."""

    def __init__(self, text: UMT5Text, device: torch.device) -> None:
        self._text = text
        self._device = device
        self.text_len = text.text_len
        self.text_dim = text.text_dim

    def encode(self, prompts: list[str]) -> Tensor:
        """See `UMT5Text.encode`; the device's copy is freed before this returns."""
        modules = list(self._text.encoder.modules())
        kept = [(m, leaf, p) for m in modules for leaf, p in m.named_parameters(recurse=False)]
        try:
            for module, leaf, parameter in kept:
                attach(module, leaf, parameter.data.to(self._device))
            return self._text.encode(prompts)
        finally:
            for module, leaf, parameter in kept:
                setattr(module, leaf, parameter)
