"""What the passes of a chunk take: text, rays, positions, times, each computed once.

Asked for by every pass; only what a changed input or a switched-off saving demands is computed.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch
from torch import Tensor

from worldline.models.lingbot.blocks import TextAttend
from worldline.models.lingbot.dit import LingBotDiT, TimeTables
from worldline.ops.rope import RopeTable, rope_table
from worldline.runtime import conditions, verify
from worldline.runtime.conditions import Moved
from worldline.runtime.passes import ChunkInputs, ModelInput
from worldline.runtime.shared import Engine
from worldline.runtime.state import PromptStates, SessionState
from worldline.runtime.step_cache import StepCache
from worldline.runtime.text_rows import distinct_text, kept_rows
from worldline.runtime.transfer import upload
from worldline.runtime.tree import map_tensors

CONTEXT_STEP = -1  # the context pass has a step index of its own: timestep 0 is not step 0
CONTEXT_TIMESTEP = 0


class PassInputs:
    """Asked by every pass for its inputs; those of the first pass are made at once."""

    def __init__(self, make: Callable[[], ChunkInputs]) -> None:
        self._make = make
        self._first: ChunkInputs | None = make()

    def __call__(self) -> ChunkInputs:
        """The inputs of the next pass."""
        first, self._first = self._first, None
        return first or self._make()


def picture_condition(engine: Engine, state: SessionState, frames: range) -> Tensor:
    """Condition half of the input, `[1, 20, T, h, w]`; encodes more of the picture if need be."""
    grid = state.geometry.latent
    stationary = conditions.encode_picture(
        engine.vae, state.image, frames.stop, engine.stationary.get(grid)
    )
    if stationary is not None:
        engine.stationary[grid] = stationary
    condition = conditions.image_condition(state.image, frames, stationary)
    verify.verify_image_latents(condition)
    return condition


def chunk_inputs(
    engine: Engine, state: SessionState, motion: Moved, *, prompt: PromptStates, frames: range
) -> ChunkInputs:
    """What all passes over latent frames `frames` share."""
    engine.wear()
    dit, caches = engine.dit, state.caches
    rows, columns = state.geometry.tokens
    text = prompt.current
    verify.verify_text(text, dit.params.text_dim)
    cross = caches.get("cross_kv", (), lambda: project_text(engine, prompt), sources=(text,))
    times = range(frames.start - state.anchor, frames.stop - state.anchor)
    shard = engine.shards.of(len(frames) * rows * columns)
    # What a rank has of a table: which tokens, how many in a frame and in a row, and where.
    place = (shard.tokens, rows * columns, columns, dit.device)
    rope = caches.get(
        "rope",
        (times, place),
        lambda: turns(dit, times, rows, columns, tokens=shard.tokens),
    )
    pressed = (frames, motion.relative.tobytes(), motion.keys.tobytes())
    rays = caches.get("rays", pressed, lambda: _rays(dit, state, motion))
    verify.verify_control(rays, dit.params.control_channels, (len(frames), *state.geometry.latent))
    embedding = caches.get("camera", place, lambda: dit.embed_camera(rays, shard), sources=(rays,))
    camera = embedding
    if engine.camera_cache and "camera" not in engine.without:
        # All blocks' scale and shift: gigabytes at 14B, so it belongs to the worker, not the state.
        camera = engine.workspace.get(
            "camera_modulation",
            (state.session_id, frames, place),
            lambda: engine.passes.camera(embedding),
            sources=(embedding,),
        )
    return ChunkInputs((len(frames), rows, columns), rope, camera, cross, engine.math, shard)


def project_text(engine: Engine, prompt: PromptStates) -> Sequence[TextAttend]:
    """Keys and values of the text in force, for every block."""
    dit, states = engine.dit, prompt.current
    if prompt.rows is not None and "text_pads" not in engine.without:
        kept = kept_rows(prompt.rows, states.shape[1])
        if kept is not None:
            return distinct_text(dit, states, kept, math=engine.math)
    return dit.cross_kv(dit.embed_text(states))


def turns(
    dit: LingBotDiT, times: Sequence[int], rows: int, columns: int, *, tokens: range | None = None
) -> RopeTable:
    """RoPE table of latent frames at positions `times`, on the transformer's device.

    With `tokens` only for those.
    """
    table = rope_table(times, rows, columns, head_dim=dit.params.head_dim, tokens=tokens)
    return map_tensors(table, partial(upload, device=dit.device))


def time_tables(dit: LingBotDiT, caches: StepCache, step: int, t: float) -> TimeTables:
    """Modulation of all blocks at timestep `t`; one live entry per step index `step`."""

    def compute() -> TimeTables:
        timesteps = upload(torch.tensor([t]), dit.device)
        verify.verify_timesteps(timesteps)
        return dit.time_tables(dit.embed_time(timesteps))

    return caches.get(f"time/{step}", (t, (1,), dit.dtype, dit.device), compute)


def model_input(engine: Engine, condition: Tensor) -> Callable[[Tensor], Tensor]:
    """Puts latents beside the condition half, which is written only now."""
    if "condition_half" in engine.without:
        return lambda latents: ModelInput(condition).with_latents(latents)
    if "buffers" in engine.without:
        return ModelInput(condition).with_latents
    place = condition.shape, condition.dtype, condition.device
    kept = engine.buffers.get("model_input", place, lambda: ModelInput(condition))
    kept.write_condition(condition)
    return kept.with_latents


def commit(
    engine: Engine,
    state: SessionState,
    latents: Tensor,
    *,
    fill: Callable[[Tensor], Tensor],
    inputs: ChunkInputs,
) -> None:
    """Context pass: what the ring, aimed at these frames, is to remember of clean `latents`."""
    time = time_tables(engine.dit, state.caches, CONTEXT_STEP, CONTEXT_TIMESTEP)
    whole = "update_cache_only" in engine.without
    run = engine.passes.denoise if whole else engine.passes.commit
    run(fill(latents), time=time, inputs=inputs, kv=state.kv)


def _rays(dit: LingBotDiT, state: SessionState, motion: Moved) -> Tensor:
    return upload(conditions.control_tensor(state, motion, dit.params.control_dim), dit.device)
