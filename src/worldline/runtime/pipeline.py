"""`next_chunk`: conditions, denoise passes, decode, context pass. The heart of the engine.

Reads a session's state and writes it back only at the end, so a chunk that fails, or is given up
between two passes, leaves the camera, the decoder and the cursor as they were; the ring's slots of
that chunk are simply written again.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from worldline.ops.vae import StreamState
from worldline.runtime import conditions, levers, replay, verify
from worldline.runtime.conditions import Controls, Moved
from worldline.runtime.first_chunk import Generated, Opening, key_of, recall
from worldline.runtime.inputs import (
    PassInputs,
    chunk_inputs,
    commit,
    model_input,
    picture_condition,
    time_tables,
    turns,
)
from worldline.runtime.outlet import Outlet
from worldline.runtime.passes import LATENT_CHANNELS
from worldline.runtime.shared import Engine
from worldline.runtime.state import PromptStates, SessionState
from worldline.runtime.timeline import Record
from worldline.runtime.timing import StageClock
from worldline.runtime.transfer import download, upload
from worldline.sampling.dmd import euler_step, renoise, to_x0
from worldline.sampling.schedules import thinned


class Coming(NamedTuple):
    """A chunk about to be made: its latent frames, what moves and is said, and who waits for it."""

    frames: range
    motion: Moved
    prompt: PromptStates
    outlet: Outlet
    steps: int | None = None
    known: Tensor | None = None  # its clean latents, where it was made before


def next_chunk(
    engine: Engine,
    state: SessionState,
    controls: Controls,
    clock: StageClock,
    *,
    outlet: Outlet | None = None,
    steps: int | None = None,
) -> Generated:
    """Generate the next chunk of a session; an equal start's first one may be kept already.

    With `steps` it takes so few denoise passes; None takes all. Its video has `1 + 4(T-1)` frames
    for the first chunk and `4T` for later ones. A chunk that fails or is given up leaves the
    session where it was.
    """
    outlet = outlet or Outlet()
    frames = range(state.next_frame, state.next_frame + state.settings.chunk)
    with clock.stage("conditions"):
        outlet.check()
        prompt = conditions.advance_prompt(state.prompt)
        motion = conditions.fold_motion(state.camera, controls, state.rig, frames)
        outlet.poses = tuple(camera.pose for camera in motion.path)
        key = key_of(engine, state, motion)
        kept = recall(engine, state, key)
    state.opening = None  # what it left in the session is about to change
    coming = Coming(frames, motion, prompt, outlet, steps)
    try:
        made = kept or generate(engine, state, coming, clock)
        hand_on(engine, made, outlet, clock)
    except BaseException:
        engine.workspace.clear()
        state.kv.rewind(frames.start)
        raise
    write_back(state, coming, made)
    state.opening = None if key is None or kept else Opening(key, made._replace(host=None))
    return made


def write_back(state: SessionState, coming: Coming, made: Generated) -> None:
    """Let the session stand behind the chunk that was made."""
    frames, motion, prompt, *_ = coming
    if state.timeline is not None:
        host = download(made.latents) if made.host is None else made.host
        shift = state.sink_shift
        state.timeline.append(Record(frames, host, motion, prompt.said, state.anchor, shift))
    if state.past is not None:
        past = replay.Past(frames, made.latents, motion, prompt, state.anchor)
        state.past.keep(past, state.kv.present_frames(frames.stop))
    if state.film is not None:
        state.film.append(made.latents)
    state.prompt, state.camera, state.decoder = prompt, motion.camera, made.decoder
    state.next_chunk += 1


def generate(engine: Engine, state: SessionState, coming: Coming, clock: StageClock) -> Generated:
    """Conditions, denoise passes, decode, context pass; of the state only the ring changes.

    Between two passes it may be given up. Not so where the window's history has been made anew: the
    ring then holds another text's, which the session would not have without this chunk.
    """
    frames, motion, prompt, outlet, steps, known = coming
    reanchor(engine, state)
    levers.hold_sink(engine, state)
    with clock.stage("encode"):
        condition = picture_condition(engine, state, frames)
    if engine.recache and replay.is_due(state, prompt):
        outlet.commit()
        with clock.stage("context"):
            engine.entered("recache")
            replay.recache(engine, state, prompt)
    with clock.stage("conditions"):
        inputs = PassInputs(
            partial(chunk_inputs, engine, state, motion, prompt=prompt, frames=frames)
        )
        visible = levers.visible_frames(engine, state, motion)
        state.kv.begin_chunk(frames.start, len(frames), visible=visible)
        fill = model_input(engine, condition)
    with clock.stage("denoise"):
        latents = known
        if latents is None:
            latents = denoise(engine, state, fill, inputs, outlet, steps=steps)
    outlet.check()
    # Before the context pass: it is queued first, and pictures do not wait for what nobody sees.
    with engine.lane.decoding(latents), clock.stage("decode"):
        host = download(latents)  # before the frames: who has these has the latents too
        video, decoder = decode(engine, latents, state.decoder, outlet)
    outlet.check()
    with clock.stage("context"):
        if levers.LAST_STEP_KV not in engine.levers:
            commit(engine, state, latents, fill=fill, inputs=inputs())
    engine.workspace.clear()
    return Generated(latents, video, decoder, host)


def decode(
    engine: Engine, latents: Tensor, history: StreamState | None, outlet: Outlet
) -> tuple[Tensor, StreamState]:
    """The video of a chunk and the decoder's next history.

    Where somebody watches, latent frame by latent frame if that changes no bit: each is on its way
    before the next begins.
    """
    if not outlet.streams:
        return engine.vae.decode_stream(latents, history)
    parts: list[Tensor] = []
    for some in latents.split(1, dim=2) if engine.vae.frame_by_frame else (latents,):
        video, history = engine.vae.decode_stream(some, history)
        parts.append(video)
        outlet.expect(engine.lane.fetching(video))
        if not engine.lane.queues:
            outlet.hand_on()
    assert history is not None, "there is at least one latent frame"
    return (parts[0] if len(parts) == 1 else torch.cat(parts, dim=2)), history


def hand_on(engine: Engine, made: Generated, outlet: Outlet, clock: StageClock) -> None:
    """Hand on what was decoded and is not yet seen: where work is queued, or of a kept chunk."""
    if outlet.streams:
        with clock.stage("transfer"):
            if not outlet.begun:  # an equal start's
                outlet.expect(engine.lane.fetching(made.video))
            outlet.hand_on()


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
    state.kv.turn(turns(engine.dit, [-offset], 1, 1))
    state.anchor += offset


def denoise(
    engine: Engine,
    state: SessionState,
    fill: Callable[[Tensor], Tensor],
    inputs: PassInputs,
    outlet: Outlet,
    *,
    steps: int | None = None,
) -> Tensor:
    """Denoise passes over the frames the ring is aimed at: latents `[1, 16, T, h, w]`, float32."""
    schedule, sampler = state.schedule, engine.preset.sampler.kind
    if steps is not None:
        schedule = thinned(schedule, steps)
    shape = (1, LATENT_CHANNELS, state.settings.chunk, *state.geometry.latent)
    x = clean = noise(engine, state, shape, 0)
    verify.verify_latents(x, LATENT_CHANNELS)
    for step, (t, sigma) in enumerate(zip(schedule.timesteps, schedule.sigma_x0, strict=True)):
        outlet.check()
        time = time_tables(engine.dit, state.caches, step, t)
        flow = engine.passes.denoise(fill(x), time=time, inputs=inputs(), kv=state.kv)
        clean = to_x0(x, flow, sigma)
        if step < len(schedule.sigma_renoise):
            following = schedule.sigma_renoise[step]
            if sampler == "euler":
                x = euler_step(x, flow, sigma, following)
            else:
                x = renoise(clean, noise(engine, state, shape, step + 1), following)
    return clean


def noise(engine: Engine, state: SessionState, shape: tuple[int, ...], index: int) -> Tensor:
    """Noise of pass `index` of the next chunk, on the device."""
    return upload(state.noise(state.next_chunk, index, shape), engine.dit.device)
