"""From what a visitor gives to what the network takes: picture, prompt and controls to tensors.

Knows nothing of denoising. Functions read a `SessionState` and return values; only the encoded part
of the picture and the prompt states are written back, and both can be called again safely.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import NamedTuple

import msgspec
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from worldline.core.camera import CameraState, advance, relative_pose, scale_intrinsics
from worldline.core.errors import ControlError
from worldline.core.motion import Motion, Rig
from worldline.core.snapshot import LightPrompt
from worldline.models.lingbot.params import ACTION_CHANNELS
from worldline.ops.plucker import action_condition, camera_condition
from worldline.ops.vae import StreamingVae
from worldline.runtime import verify
from worldline.runtime.state import ImageCondition, PromptStates, SessionState
from worldline.runtime.text_cache import Text

MASK_CHANNELS = 4
WALK_KEYS = "wasd"
KEY_SHARE = 0.05  # of full speed: the rounding of a resampled path is no key


class PoseControls(NamedTuple):
    """Recorded motion of one chunk: framewise relative poses `[T, 4, 4]`, keys w a s d `[T, 4]`."""

    relative: NDArray[np.floating]
    keys: NDArray[np.floating] | None = None


Controls = Sequence[Collection[str]] | Sequence[Motion] | NDArray[np.floating] | PoseControls | None


class Moved(NamedTuple):
    """Controls of a chunk as the network sees them, and the camera at each of its latent frames."""

    relative: NDArray[np.float32]
    keys: NDArray[np.float32]
    path: tuple[CameraState, ...]

    @property
    def camera(self) -> CameraState:
        """The camera after the chunk."""
        return self.path[-1]


def fold_motion(camera: CameraState, controls: Controls, rig: Rig, frames: range) -> Moved:
    """Turn the controls of latent frames `frames` into relative poses and keys.

    None is idle. The relative pose of latent frame 0 is the identity whatever is pressed: it is the
    picture itself. Raises `ControlError` for a wrong count or shape and for unknown actions.
    """
    count = len(frames)
    if controls is None:
        controls = [()] * count
    if isinstance(controls, np.ndarray):
        controls = PoseControls(controls)
    if isinstance(controls, PoseControls):
        return _recorded(camera, controls, count)
    if len(controls) != count:
        expected = f"{count} latent frames"
        raise ControlError("actions do not fit the chunk", expected=expected, got=len(controls))
    relative = np.tile(np.eye(4), (count, 1, 1))
    keys = np.zeros((count, len(WALK_KEYS)), dtype=np.float32)
    path: list[CameraState] = []
    for i, (frame, asked) in enumerate(zip(frames, controls, strict=True)):
        after = advance(camera, asked, rig)
        keys[i] = _keys(asked)
        if frame != 0:
            relative[i] = relative_pose(camera.c2w, after.c2w, rig.move)
            camera = after
        path.append(camera)
    return Moved(relative.astype(np.float32), keys, tuple(path))


def _keys(asked: Collection[str] | Motion) -> list[bool]:
    """Which of w a s d are down; of a motion, those whose way it goes faster than `KEY_SHARE`."""
    if not isinstance(asked, Motion):
        return [key in asked for key in WALK_KEYS]
    return [way > KEY_SHARE for way in (asked.z, -asked.x, -asked.z, asked.x)]


def _recorded(camera: CameraState, controls: PoseControls, count: int) -> Moved:
    relative = np.asarray(controls.relative)
    if relative.shape != (count, 4, 4):
        raise ControlError("poses do not fit the chunk", expected=(count, 4, 4), got=relative.shape)
    if relative.dtype.kind not in "fiu" or not np.isfinite(relative).all():
        raise ControlError("poses hold other values than finite numbers", got=relative.dtype)
    keys = np.zeros((count, 4)) if controls.keys is None else np.asarray(controls.keys)
    if keys.shape != (count, 4):
        raise ControlError("keys do not fit the chunk", expected=(count, 4), got=keys.shape)
    return Moved(relative.astype(np.float32), keys.astype(np.float32), (camera,) * count)


def control_tensor(state: SessionState, motion: Moved, control_dim: int) -> Tensor:
    """Rays of a chunk on the latent grid: `[1, 384|448, T, h, w]`, float32 on the CPU.

    Always a tensor: standing still is a motion too (identity poses), not the absence of a camera.
    """
    width, height = state.geometry
    intrinsics = torch.tensor(scale_intrinsics(state.intrinsics, width, height))
    relative = torch.from_numpy(motion.relative)
    if control_dim == ACTION_CHANNELS:
        keys = torch.from_numpy(motion.keys)
        return action_condition(relative, intrinsics, keys, height, width)
    return camera_condition(relative, intrinsics, height, width)


def encode_picture(
    vae: StreamingVae, image: ImageCondition, until: int, stationary: Tensor | None
) -> Tensor | None:
    """Encode the condition clip up to latent frame `until`; return its stationary latent if known.

    `stationary [1, 16, 1, h, w]` is what an earlier session of the same size found: it does not
    depend on the picture, so nothing past that index is encoded again. What is encoded together
    changes no bit.
    """
    most = min(until, vae.stationary_latent + (stationary is None))
    while image.encoded < most:
        limit = most if vae.frame_by_frame else image.encoded + 1
        if image.latents is None:
            grey = 4 * (limit - 1)
            video = torch.cat([image.picture, _grey(image.picture, grey)], dim=2)
            latents, encoder = vae.encode_stream(video, None)
        else:
            video = _grey(image.picture, 4 * (limit - image.encoded))
            more, encoder = vae.encode_stream(video, image.encoder)
            latents = torch.cat([image.latents, more], dim=2)
        image.latents, image.encoder = latents, encoder  # both or neither
    if stationary is None and image.latents is not None and image.encoded > vae.stationary_latent:
        return image.latents[:, :, vae.stationary_latent :][:, :, :1].clone()
    return stationary


def _grey(picture: Tensor, frames: int) -> Tensor:
    shape = (*picture.shape[:2], frames, *picture.shape[3:])
    return torch.zeros(shape, dtype=picture.dtype, device=picture.device)


def image_condition(image: ImageCondition, frames: range, stationary: Tensor | None) -> Tensor:
    """Condition half of the input for latent frames `frames`: `[1, 20, T, h, w]`.

    Four mask channels (1 on latent frame 0, the picture, else 0), then the picture's latents.
    """
    assert image.latents is not None, "encode_picture comes first"
    known = image.latents
    parts = []
    for frame in frames:
        if frame < known.shape[2]:
            parts.append(known[:, :, frame : frame + 1])
        else:
            assert stationary is not None, "only the stationary latent may stand in"
            parts.append(stationary)
    latents = torch.cat(parts, dim=2)
    shape = (latents.shape[0], MASK_CHANNELS, *latents.shape[2:])
    mask = torch.zeros(shape, dtype=latents.dtype, device=latents.device)
    if frames.start == 0:
        mask[:, :, 0] = 1
    return torch.cat([mask, latents], dim=1)


def plain_prompt(words: str, text: Text) -> PromptStates:
    """One text and nothing else."""
    states, rows = text
    said = LightPrompt(words, rows=rows)
    return PromptStates(current=states, source=states, target=states, rows=rows, said=said)


def switch_prompt(
    prompt: PromptStates, text: Text, blend_chunks: int, *, words: str = ""
) -> PromptStates:
    """Head for a new text, said in `words`, at once or over `blend_chunks` chunks.

    Raises `ShapeError` when it cannot be blended with the one in force.
    """
    if blend_chunks <= 0:
        return plain_prompt(words, text)
    states, rows = text
    rows = None if prompt.rows is None else max(prompt.rows, rows)
    source, target = verify.stack_text([prompt.current[0], states[0]]).split(1)
    return PromptStates(
        current=prompt.current,
        source=source,
        target=target,
        rows=rows,
        blend_chunks=blend_chunks,
        blended=0,
        said=prompt.said.switched(words, blend_chunks, rows),
    )


def advance_prompt(prompt: PromptStates) -> PromptStates:
    """Take one step of a blend; returns the same object when there is none."""
    if prompt.blended >= prompt.blend_chunks:
        return prompt
    blended = prompt.blended + 1
    if blended == prompt.blend_chunks:
        current = prompt.target
    else:
        current = torch.lerp(prompt.source, prompt.target, blended / prompt.blend_chunks)
    said = msgspec.structs.replace(prompt.said, blended=blended)
    return replace(prompt, current=current, blended=blended, said=said)
