"""`next_chunk`: conditions, denoise passes, context pass, decode. The heart of the engine.

Reads a session's state and writes it back only at the end, so a chunk that fails leaves the camera,
the decoder and the cursor as they were; the ring's slots of that chunk are simply written again.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from worldline.core.errors import PromptError
from worldline.models.lingbot.blocks import TextAttend
from worldline.models.lingbot.dit import LingBotDiT, TimeTables
from worldline.models.preset import Preset
from worldline.ops.block_math import PLAIN, BlockMath
from worldline.ops.vae import StreamingVae
from worldline.runtime import conditions, verify
from worldline.runtime.conditions import Controls, Motion
from worldline.runtime.passes import (
    LATENT_CHANNELS,
    ChunkInputs,
    ModelInput,
    context_pass,
    denoise_pass,
)
from worldline.runtime.state import PromptStates, SessionState
from worldline.runtime.step_cache import StepCache
from worldline.runtime.text_cache import Text, TextCache
from worldline.runtime.text_rows import distinct_text, kept_rows
from worldline.runtime.timing import StageClock
from worldline.sampling.dmd import euler_step, renoise, to_x0

CONTEXT_STEP = -1  # the context pass has a step index of its own: timestep 0 is not step 0
CONTEXT_TIMESTEP = 0


class Generated(NamedTuple):
    """A chunk as it leaves the networks: clean latents `[1, 16, T, h, w]`, video in [-1, 1]."""

    latents: Tensor
    video: Tensor  # 1 3 F H W


class Engine(NamedTuple):
    """What all sessions of a worker share: networks, and the workspace of the chunk in flight."""

    preset: Preset
    dit: LingBotDiT
    vae: StreamingVae
    texts: TextCache
    workspace: StepCache
    stationary: dict[tuple[int, int], Tensor]  # per latent grid
    reanchor_at: int  # latent frames
    camera_cache: bool
    without: frozenset[str] = frozenset()  # savings that are switched off, see `savings`
    synchronise: bool = False
    math: BlockMath = PLAIN  # what computes between the matmuls

    def clock(self) -> StageClock:
        """A stage clock of this device."""
        return StageClock(self.dit.device, synchronise=self.synchronise)

    def text(self, prompt: str) -> Text:
        """Text states of a prompt on the device. Raises `PromptError` if it is empty."""
        if not prompt.strip():
            raise PromptError("the prompt is empty", expected="some words", got=repr(prompt))
        return self.texts.get(prompt)


class PassInputs:
    """Asked by every pass for its inputs; those of the first pass are made at once."""

    def __init__(self, make: Callable[[], ChunkInputs]) -> None:
        self._make = make
        self._first: ChunkInputs | None = make()

    def __call__(self) -> ChunkInputs:
        """The inputs of the next pass."""
        first, self._first = self._first, None
        return first or self._make()


def next_chunk(
    engine: Engine, state: SessionState, controls: Controls, clock: StageClock
) -> Generated:
    """Generate the next chunk of a session.

    Its video has `1 + 4(T-1)` frames for the first chunk and `4T` for later ones.
    """
    start, count = state.next_frame, state.settings.chunk
    frames = range(start, start + count)
    reanchor(engine, state)
    with clock.stage("encode"):
        condition = picture_condition(engine, state, frames)
    with clock.stage("conditions"):
        prompt = conditions.advance_prompt(state.prompt)
        motion = conditions.fold_motion(state.camera, controls, engine.preset.rig, frames)
        inputs = PassInputs(partial(chunk_inputs, engine, state, motion, prompt))
    latents = denoise_chunk(engine, state, condition, inputs, clock)
    with clock.stage("decode"):
        video, decoder = engine.vae.decode_stream(latents, state.decoder)
    state.prompt, state.camera, state.decoder = prompt, motion.camera, decoder
    state.next_chunk += 1
    return Generated(latents, video)


def reanchor(engine: Engine, state: SessionState) -> None:
    """Move the origin of time when the next chunk would pass the limit of positions.

    All cached keys, sink included, are turned by the same offset in place. RoPE is a rotation, so
    attention does not change in real arithmetic; in half precision every key loses one rounding,
    hence half the limit at a time.
    """
    start = state.next_frame - state.anchor
    if start + state.settings.chunk <= engine.reanchor_at:
        return
    offset = start - engine.reanchor_at // 2
    state.kv.turn(engine.dit.rope([-offset], 1, 1))
    state.anchor += offset


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
    engine: Engine, state: SessionState, motion: Motion, prompt: PromptStates
) -> ChunkInputs:
    """What all passes of the chunk share, each computed once per what it depends on.

    Asked for by every pass; only what a changed input or a switched-off saving demands is computed.
    """
    dit, caches = engine.dit, state.caches
    rows, columns = state.geometry.tokens
    start, count = state.next_frame, state.settings.chunk
    text = prompt.current
    verify.verify_text(text, dit.params.text_dim)
    cross = caches.get("cross_kv", (), lambda: project_text(engine, prompt), sources=(text,))
    times = range(start - state.anchor, start - state.anchor + count)
    rope = caches.get(
        "rope", (times, rows, columns, dit.device), lambda: dit.rope(times, rows, columns)
    )
    pressed = (state.next_chunk, motion.relative.tobytes(), motion.keys.tobytes())
    rays = caches.get(
        "rays",
        pressed,
        lambda: conditions.control_tensor(state, motion, dit.params.control_dim).to(dit.device),
    )
    verify.verify_control(rays, dit.params.control_channels, (count, *state.geometry.latent))
    embedding = caches.get("camera", (), lambda: dit.embed_camera(rays), sources=(rays,))
    camera = embedding
    if engine.camera_cache and "camera" not in engine.without:
        # All blocks' scale and shift: gigabytes at 14B, so it belongs to the worker, not the state.
        camera = engine.workspace.get(
            "camera_modulation",
            (state.session_id, state.next_chunk),
            lambda: dit.camera_modulation(embedding),
            sources=(embedding,),
        )
    return ChunkInputs((count, rows, columns), rope, camera, cross, engine.math)


def project_text(engine: Engine, prompt: PromptStates) -> Sequence[TextAttend]:
    """Keys and values of the text in force, for every block."""
    dit, states = engine.dit, prompt.current
    if prompt.rows is not None and "text_pads" not in engine.without:
        kept = kept_rows(prompt.rows, states.shape[1])
        if kept is not None:
            return distinct_text(dit, states, kept)
    return dit.cross_kv(dit.embed_text(states))


def denoise_chunk(
    engine: Engine,
    state: SessionState,
    condition: Tensor,
    inputs: PassInputs,
    clock: StageClock,
) -> Tensor:
    """Denoise passes, then the context pass: clean latents `[1, 16, T, h, w]`, float32."""
    dit, schedule, sampler = engine.dit, state.schedule, engine.preset.sampler.kind
    shape = (1, LATENT_CHANNELS, *condition.shape[2:])
    draw = partial(_noise, state, shape, condition.device)
    fill = _input_writer(condition, once="condition_half" not in engine.without)
    state.kv.begin_chunk(state.next_frame, condition.shape[2])
    x = clean = draw(0)
    verify.verify_latents(x, LATENT_CHANNELS)
    with clock.stage("denoise"):
        for step, (t, sigma) in enumerate(zip(schedule.timesteps, schedule.sigma_x0, strict=True)):
            time = time_tables(dit, state.caches, step, t)
            flow = denoise_pass(dit, fill(x), time=time, inputs=inputs(), kv=state.kv)
            clean = to_x0(x, flow, sigma)
            if step < len(schedule.sigma_renoise):
                following = schedule.sigma_renoise[step]
                if sampler == "euler":
                    x = euler_step(x, flow, sigma, following)
                else:
                    x = renoise(clean, draw(step + 1), following)
    with clock.stage("context"):
        time = time_tables(dit, state.caches, CONTEXT_STEP, CONTEXT_TIMESTEP)
        commit = denoise_pass if "update_cache_only" in engine.without else context_pass
        commit(dit, fill(clean), time=time, inputs=inputs(), kv=state.kv)
    engine.workspace.clear()
    return clean


def time_tables(dit: LingBotDiT, caches: StepCache, step: int, t: float) -> TimeTables:
    """Modulation of all blocks at timestep `t`; one live entry per step index `step`."""

    def compute() -> TimeTables:
        timesteps = torch.tensor([t], device=dit.device)
        verify.verify_timesteps(timesteps)
        return dit.time_tables(dit.embed_time(timesteps))

    return caches.get(f"time/{step}", (t, (1,), dit.dtype, dit.device), compute)


def _input_writer(condition: Tensor, *, once: bool) -> Callable[[Tensor], Tensor]:
    """Put latents beside the condition; with `once` the condition half is written only now."""
    if once:
        return ModelInput(condition).with_latents
    return lambda latents: ModelInput(condition).with_latents(latents)


def _noise(state: SessionState, shape: tuple[int, ...], device: torch.device, index: int) -> Tensor:
    return state.noise(state.next_chunk, index, shape).to(device)
