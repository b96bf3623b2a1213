"""What others are told of a loaded model."""

from __future__ import annotations

import torch

from worldline.core.config import EngineOptions, WorldInfo
from worldline.models.preset import resolve_runtime
from worldline.runtime.loader import Components
from worldline.runtime.machine import machine_name
from worldline.runtime.shared import Engine


def describe(
    components: Components, mode: str, shared: Engine, options: EngineOptions
) -> WorldInfo:
    """What a client must know of a loaded model; nothing has been planned yet."""
    preset, dit = components.preset, components.dit
    settings = resolve_runtime(preset, components.checkpoint)
    return WorldInfo(
        model=preset.name,
        family=preset.family,
        width=preset.width,
        height=preset.height,
        sizes=preset.sizes,
        fps=preset.fps,
        chunk=settings.chunk,
        window=settings.window,
        sink=settings.sink,
        steps=len(settings.steps),
        device=str(dit.device),
        dtype=str(dit.dtype).removeprefix("torch."),
        mode=mode,
        licence=preset.licence,
        notice=preset.notice,
        weights=components.weights_id,
        threads=torch.get_num_threads(),
        torch=str(torch.__version__),
        machine=machine_name(dit.device),
        options=options,
        encoded=components.vae.stationary_latent + 1,
        rings=max(1, shared.rings.idle),
        ranks=shared.shards.ranks,
        live=preset.live,
        overlap=int(preset.bidirectional),
    )
