"""Load a model: find its files, build its networks, fill them, and say what was loaded.

The one entry is `load_components`. Peak host memory is what the networks keep on the host plus one
tensor; nothing is read until every key and shape has been compared.
"""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor

from worldline.core.config import DEFAULT_OPTIONS, EngineOptions
from worldline.core.errors import CapacityError, ConfigError
from worldline.models.layouts import Layout, find_layout, stated_frames
from worldline.models.lingbot.dit import LingBotDiT
from worldline.models.pocket.text import PocketText
from worldline.models.pocket.vae import PocketVAE
from worldline.models.preset import Preset, RuntimeValues
from worldline.models.registry import get_preset
from worldline.models.wan.text import UMT5Text, load_tokenizer
from worldline.models.wan.tiny import TinyDecoder
from worldline.runtime.device import autoencoder_dtype
from worldline.runtime.fill import Progress, fill_from, fill_random
from worldline.runtime.hub import locate
from worldline.runtime.memory import host_bytes
from worldline.runtime.parts import Networks, Plan, Vae, build_networks, make_plan
from worldline.runtime.placement import Placement
from worldline.runtime.preview import load_preview, random_preview
from worldline.runtime.stand_in import RandomText

DTYPES = {"float32": torch.float32, "bfloat16": torch.bfloat16}
WHOLE_FILE = 64 * 1024 * 1024  # bytes; larger files are identified by samples
SAMPLES, SAMPLE_BYTES = 16, 4096

log = logging.getLogger(__name__)


class TextEncoder(Protocol):
    """What the engine asks of a text encoder."""

    @property
    def text_len(self) -> int:
        """Rows of an encoded prompt, `S`."""
        ...

    @property
    def text_dim(self) -> int:
        """Width of a row."""
        ...

    def encode(self, prompts: list[str]) -> Tensor:
        """`[B, S=text_len, text_dim]`, zero after each prompt's true length."""
        ...


@dataclass(frozen=True, kw_only=True)
class Components:
    """A loaded model. `low_noise_dit` is the second expert of a base model, else None; `preview` is
    the tiny decoder, where one was asked for.

    `checkpoint` is what the files themselves state of chunk, window and sink; `weights_id` is equal
    for equal weights and cheap to compute; `layout` is the layout found, or `random`.
    """

    preset: Preset
    dit: LingBotDiT
    vae: Vae
    text: TextEncoder
    weights_id: str
    layout: str = "in memory"
    checkpoint: RuntimeValues = field(default_factory=RuntimeValues)
    low_noise_dit: LingBotDiT | None = None
    preview: TinyDecoder | None = None


def load_components(
    model: str,
    *,
    device: torch.device | str,
    dtype: str | None = None,
    mode: str = "exact",
    random_weights: bool = False,
    seed: int = 0,
    options: EngineOptions = DEFAULT_OPTIONS,
    progress: Progress | None = None,
) -> Components:
    """Load a preset, a local folder, or a hub repository onto `device`.

    `dtype` is that of the transformer: `float32`, `bfloat16`, or None for the family's own (see
    `default_dtype`). `random_weights` builds a preset's networks from `seed` without any file, with
    `RandomText` in place of a text encoder that would need a tokenizer. In mode `8bit` the
    transformer is quantised while it is read; `options` say where the networks are kept. `progress`
    gets `(done_bytes, total_bytes, label)`. Raises `ConfigError` and the `CheckpointError` family.
    """
    device, wanted = torch.device(device), _parse_dtype(dtype)

    def placement(preset: Preset) -> Placement:
        precision = wanted or default_dtype(preset, device)
        return Placement(device, precision, mode=mode, options=options)

    if random_weights:
        preset = get_preset(model)
        return _load_random(preset, placement(preset), seed=seed, decoder=options.decoder)
    location = locate(model)
    experts = location.preset is not None and location.preset.experts > 1
    layout = find_layout(location.roots, prefer="experts" if experts else "causal")
    plan = make_plan(layout, location.preset)
    if plan.preset.notice is not None:
        log.warning("%s", plan.preset.notice)
    spots = placement(plan.preset)
    text = _text_of(plan, layout, spots)
    preview = load_preview(options.decoder, plan.preset, location.roots, spots)
    _fill(plan, spots, progress or _silent)
    return _from_files(plan, layout, text=text, preview=preview)


def load_autoencoder(
    model: str, *, device: torch.device, dtype: str | None, mode: str, random_weights: bool
) -> Vae:
    """The autoencoder of a model alone, with the weights that `load_components` gives it."""
    if random_weights:
        preset = get_preset(model)
        vae, source = build_networks(preset).vae, None
    else:
        location = locate(model)
        plan = make_plan(find_layout(location.roots, prefer="causal"), location.preset)
        preset, vae = plan.preset, plan.networks.vae
        source = next(source for _, module, source in plan.pairs() if module is vae)
    precision = _parse_dtype(dtype) or default_dtype(preset, device)
    spot = Placement(device, precision, mode=mode, options=DEFAULT_OPTIONS).prepare(vae)
    if source is None:
        fill_random(vae, device=device, dtype_of=spot.dtype_of, seed=0, label="autoencoder")
    else:
        fill_from(vae, source, device=device, dtype_of=spot.dtype_of)
    _settle(vae)
    return vae if device.type != "cpu" else vae.to(autoencoder_dtype(device, mode, precision))


def _from_files(
    plan: Plan, layout: Layout, *, text: TextEncoder, preview: TinyDecoder | None
) -> Components:
    return _assemble(
        plan.preset,
        plan.networks,
        checkpoint=RuntimeValues(**stated_frames(layout)),
        text=text,
        weights_id=weights_id(layout),
        layout=layout.name,
        preview=preview,
    )


def default_dtype(preset: Preset, device: torch.device) -> torch.dtype:
    """bfloat16 for LingBot on CUDA, as on the official GPU path; float32 everywhere else."""
    half = preset.family == "lingbot" and device.type == "cuda"
    return torch.bfloat16 if half else torch.float32


def weights_id(layout: Layout) -> str:
    """Short hash of a checkpoint: names, sizes and contents of its files, wherever they are.

    Files up to 64 MiB count whole; of larger ones their head (a safetensors header), tail (the
    check sums of a `.pth`) and 16 samples between, so a checkpoint of 100 GB takes milliseconds.
    """
    parts = [files for files in (*layout.dit, layout.vae, layout.text) if files is not None]
    paths = dict.fromkeys(path for part in parts for path in part.files)
    tokenizer = sorted(p for p in layout.tokenizer.iterdir()) if layout.tokenizer else []
    digest = hashlib.sha256()
    for path in [*paths, *(p for p in tokenizer if p.is_file())]:
        size = path.stat().st_size
        digest.update(f"{path.name}\0{size}\0".encode())
        for piece in _pieces(path, size):
            digest.update(piece)
    return digest.hexdigest()[:16]


def _pieces(path: Path, size: int) -> Iterable[bytes]:
    with path.open("rb") as file:
        if size <= WHOLE_FILE:
            yield file.read()
            return
        for sample in range(SAMPLES + 1):
            file.seek((size - SAMPLE_BYTES) * sample // SAMPLES)
            yield file.read(SAMPLE_BYTES)


def _parse_dtype(dtype: str | None) -> torch.dtype | None:
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError("unknown dtype", expected=" | ".join(DTYPES), got=dtype)
    return None if dtype is None else DTYPES[dtype]


def _silent(done: int, total: int, label: str) -> None:
    """No one watches the progress."""


def _fill(plan: Plan, placement: Placement, progress: Progress) -> None:
    """Read every tensor of every network, telling how far it is."""
    total = sum(source.nbytes for source in plan.sources)
    before = 0
    for label, module, source in plan.pairs():
        progress(before, total, label)
        spot = placement.prepare(module)
        fill_from(
            module,
            source,
            device=spot.device,
            dtype_of=spot.dtype_of,
            done=_counter(before, total, label, progress),
            store=spot.store,
        )
        _settle(module)
        before += source.nbytes
        progress(before, total, label)


def _settle(module: object) -> None:
    """Lay the pocket autoencoder's weights out as its convolutions run fastest on a CPU."""
    if isinstance(module, PocketVAE):
        for parameter in module.parameters():
            if parameter.ndim == 4:
                parameter.data = parameter.data.contiguous(memory_format=torch.channels_last)


def _counter(before: int, total: int, label: str, progress: Progress) -> Callable[[int], None]:
    """A callback that adds up bytes and reports the sum."""
    done = before

    def add(nbytes: int) -> None:
        nonlocal done
        done += nbytes
        progress(min(done, total), total, label)

    return add


def _text_of(plan: Plan, layout: Layout, placement: Placement) -> TextEncoder:
    """The text encoder, before its weights: a tokenizer that cannot be read should fail first."""
    text = plan.networks.text
    if isinstance(text, PocketText):
        return text
    assert layout.tokenizer is not None, "make_plan requires it for UMT5"
    tokenizer = load_tokenizer(layout.tokenizer)
    return placement.text(UMT5Text(text, tokenizer, plan.preset.dit.text_len))


def _load_random(preset: Preset, placement: Placement, *, seed: int, decoder: str) -> Components:
    preview = random_preview(decoder, preset, placement, seed=seed)
    networks = build_networks(preset)
    wanted = [
        (label, module, placement.prepare(module))
        for label, module in networks.labelled()
        if label != "text encoder"
    ]
    _check_room(sum(placement.least_bytes(module, spot) for _, module, spot in wanted))
    for label, module, spot in wanted:
        fill_random(
            module,
            device=spot.device,
            dtype_of=spot.dtype_of,
            seed=seed,
            label=label,
            store=spot.store,
        )
        _settle(module)
    text = RandomText(
        preset.dit.text_len,
        preset.dit.text_dim,
        seed=seed,
        device=placement.device,
        dtype=placement.dtype,
    )
    return _assemble(
        preset,
        networks,
        checkpoint=RuntimeValues(),
        text=text,
        weights_id=f"random-{seed}",
        layout="random",
        preview=preview,
    )


def _check_room(taken: int) -> None:
    """Raise `CapacityError` where made-up weights do not fit the host: a world file may name any
    preset, and a host without memory ends processes without a word."""
    room = host_bytes()
    if taken > room:
        raise CapacityError(
            "the weights do not fit into memory",
            expected=f"at most {room >> 20} MiB",
            got=f"{taken >> 20} MiB",
        )


def _assemble(
    preset: Preset,
    networks: Networks,
    *,
    checkpoint: RuntimeValues,
    text: TextEncoder,
    weights_id: str,
    layout: str,
    preview: TinyDecoder | None,
) -> Components:
    dits = networks.dits
    return Components(
        preset=preset,
        checkpoint=checkpoint,
        dit=dits[0],
        low_noise_dit=dits[1] if len(dits) > 1 else None,
        vae=networks.vae,
        text=text,
        weights_id=weights_id,
        layout=layout,
        preview=preview,
    )
