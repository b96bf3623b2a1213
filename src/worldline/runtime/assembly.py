"""From a loaded model and the engine's options to what all its sessions share."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple
from weakref import WeakSet

import torch
from torch import Tensor

from worldline.core.config import EngineOptions
from worldline.core.errors import ConfigError
from worldline.kernels.choice import attention_chooser, choose_math
from worldline.models.lingbot.dit import LingBotDiT
from worldline.models.preset import RuntimeParams
from worldline.models.wan.tiny import PreviewVae
from worldline.ops.block_math import BlockMath, PlainMath
from worldline.ops.collectives import ALONE, Collectives
from worldline.ops.vae import StreamingVae
from worldline.runtime.first_chunk import FirstChunks
from worldline.runtime.kv_cache import FrameRing, KVRing, RingParams, one_attention
from worldline.runtime.kv_int8 import Int8Ring
from worldline.runtime.lane import choose_lane
from worldline.runtime.ledger import Ledger
from worldline.runtime.loader import Components
from worldline.runtime.negative_cache import NegativeCache, guards_wanted
from worldline.runtime.parallel.shards import Shards, check_degree
from worldline.runtime.parallel.vae import share_vae
from worldline.runtime.passes import EagerPasses, Passes
from worldline.runtime.ring_pool import RingPool
from worldline.runtime.savings import check_levers, check_savings
from worldline.runtime.shared import Engine
from worldline.runtime.state import Geometry
from worldline.runtime.step_cache import StepCache
from worldline.runtime.text_cache import TextCache

IDLE_RINGS = 2  # kept for the next visitor where graphs hold their addresses


class Manner(NamedTuple):
    """How a world computes; see `World`."""

    mode: str
    options: EngineOptions
    without: Collection[str]
    reanchor_at: int
    synchronise: bool


def assemble(components: Components, manner: Manner, group: Collectives = ALONE) -> Engine:
    """What every session of a world shares. Raises `ConfigError` for what cannot go together.

    Here a world becomes one of many ranks: everything else asks `Engine.shards`.
    """
    mode, options, *_ = manner
    off = check_savings(manner.without)
    _check_ranks(components, group)
    device = components.dit.device
    dit = _joined(components.dit, options, off)
    passes = _passes(EagerPasses(dit), options, device, off)
    texts, negatives = _texts(components, device)
    return Engine(
        preset=components.preset,
        dit=dit,
        vae=_vae(components, group),
        texts=texts,
        negatives=negatives,
        workspace=StepCache(),
        buffers=StepCache(),
        stationary={},
        reanchor_at=manner.reanchor_at,
        camera_cache=options.camera_cache == "auto",
        passes=passes,
        first_chunks=FirstChunks(_kept_bytes(options, off, group)),
        rings=_rings(passes),
        ledger=Ledger(),
        ring_kind=Int8Ring if options.kv == "8bit" else KVRing,
        chooser=attention_chooser(mode=mode, device=device),
        lane=choose_lane(device, off),
        math=_math(mode, options, device, off),
        without=off,
        levers=check_levers(options.lossy),
        recache=options.recache,
        synchronise=manner.synchronise,
        shards=Shards(group),
        weights=components.weights_id,
        timeline_bytes=options.timeline_mb * 2**20,
        sessions=WeakSet(),
    )


def _joined(dit: LingBotDiT, options: EngineOptions, off: frozenset[str]) -> LingBotDiT:
    if "qkv" not in off and options.offload == "off":
        dit.join_projections()
    return dit


def _rings(passes: Passes) -> RingPool:
    recorded = not isinstance(passes, EagerPasses)
    return RingPool(idle=IDLE_RINGS if recorded else 0, drop=passes.forget)


def _check_ranks(components: Components, group: Collectives) -> None:
    """Refuse ranks that the heads cannot be spread over. Raises `ConfigError`."""
    pocket = components.preset.family == "pocket"  # three heads, to be tried out on two ranks
    check_degree(components.dit.params.num_heads, group.size, uneven=pocket)


def _vae(components: Components, group: Collectives) -> StreamingVae:
    full, preview = share_vae(components.vae, group.aside), components.preview
    return full if preview is None else PreviewVae(full, preview)


def _kept_bytes(options: EngineOptions, off: frozenset[str], group: Collectives) -> int:
    """Bytes for first chunks; none on several ranks.

    Their parts differ in size, so they would not drop the same starts, and a chunk that one rank
    generates and another recalls never ends.
    """
    return 0 if "first_chunk" in off or group.size > 1 else options.first_chunks_mb * 2**20


def ring_params(engine: Engine, geometry: Geometry, settings: RuntimeParams) -> RingParams:
    """What a session of that size has of a ring."""
    dit = engine.dit
    return RingParams(
        layers=dit.params.num_layers,
        heads=engine.shards.heads(dit.params.num_heads),
        head_dim=dit.params.head_dim,
        tokens_per_frame=geometry.tokens_per_frame,
        window=settings.window,
        sink=settings.sink,
        max_attention_frames=settings.max_attention_frames,
        time_order="ring_order" in engine.without,
    )


def take_ring(engine: Engine, geometry: Geometry, settings: RuntimeParams) -> FrameRing:
    """An empty ring for a session of that size."""
    dit, params = engine.dit, ring_params(engine, geometry, settings)
    pick = one_attention if engine.chooser is None else engine.chooser.pick
    return engine.rings.take(
        params, lambda: engine.ring_kind(params, dtype=dit.dtype, device=dit.device, pick=pick)
    )


def _texts(components: Components, device: torch.device) -> tuple[TextCache, NegativeCache]:
    """What keeps prompts, and what keeps the negative prompt of films."""

    def encode(prompt: str) -> Tensor:
        return components.text.encode([prompt]).to(device)

    guarded = guards_wanted()
    return TextCache(encode), NegativeCache(encode, model=components.weights_id, guarded=guarded)


def _math(
    mode: str, options: EngineOptions, device: torch.device, off: frozenset[str]
) -> BlockMath:
    joins = "qkv" not in off
    if "kernels" in off:
        return PlainMath(joins=joins)
    if options.compile == "off":
        return choose_math(options.kernels, mode=mode, device=device, joins=joins)
    if options.kernels == "triton":
        raise ConfigError("two ways to compute between the matmuls", got="--compile and --kernels")
    from worldline.runtime.compiled import CompiledMath

    return CompiledMath(joins=joins)


def _passes(
    eager: EagerPasses, options: EngineOptions, device: torch.device, off: frozenset[str]
) -> Passes:
    if options.graphs == "off" or "graphs" in off:
        return eager
    if device.type != "cuda":
        raise ConfigError("graphs are for CUDA devices", expected="--graphs off", got=str(device))
    if options.offload != "off":
        raise ConfigError("blocks in host memory have no fixed address", expected="--graphs off")
    from worldline.runtime.graphs import CudaGraphs, GraphedPasses

    return GraphedPasses(eager, CudaGraphs())
