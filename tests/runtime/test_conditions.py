"""Pictures, prompts and controls become tensors: counts, first frames, blends and streaming."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from worldline.core.camera import START, Rig
from worldline.core.errors import ControlError, ShapeError
from worldline.core.motion import Motion, from_actions
from worldline.ops.vae import StreamState
from worldline.runtime import conditions
from worldline.runtime.conditions import PoseControls
from worldline.runtime.state import ImageCondition, PromptStates
from worldline.runtime.text_cache import Text

RIG = Rig()


class CountingState:
    def __init__(self, latents: int) -> None:
        self.latents = latents

    def clone(self) -> CountingState:
        return CountingState(self.latents)


class CountingVae:
    """Latent i is filled with min(i, 5): stationary from 5; counts the frames it was given."""

    stationary_latent = 5
    frame_by_frame = True

    def __init__(self) -> None:
        self.pixel_frames = 0

    def encode_stream(self, video: Tensor, state: StreamState | None) -> tuple[Tensor, StreamState]:
        done = 0 if state is None else getattr(state, "latents")  # noqa: B009
        frames = video.shape[2]
        assert frames % 4 == (1 if done == 0 else 0)
        new = (frames + 3) // 4
        self.pixel_frames += frames
        values = [float(min(i, 5)) for i in range(done, done + new)]
        latents = torch.tensor(values).view(1, 1, new, 1, 1).expand(1, 16, new, 2, 2)
        return latents.clone(), CountingState(done + new)

    def decode_stream(
        self, latents: Tensor, state: StreamState | None
    ) -> tuple[Tensor, StreamState]:
        raise AssertionError("not used")


def test_picture_is_encoded_as_far_as_needed_and_no_further() -> None:
    vae, image = CountingVae(), ImageCondition(torch.zeros(1, 3, 1, 16, 16))
    stationary = None
    seen = []
    for start in range(0, 12, 3):
        stationary = conditions.encode_picture(vae, image, start + 3, stationary)
        condition = conditions.image_condition(image, range(start, start + 3), stationary)
        assert condition.shape == (1, 20, 3, 2, 2)
        seen += condition[0, 4, :, 0, 0].tolist()
        assert condition[0, :4, :, 0, 0].sum() == (4 if start == 0 else 0)
    assert seen == [0, 1, 2, 3, 4, 5, 5, 5, 5, 5, 5, 5]
    assert image.encoded == 6
    assert vae.pixel_frames == 1 + 4 * 5


def test_known_stationary_latent_saves_the_rest() -> None:
    vae, image = CountingVae(), ImageCondition(torch.zeros(1, 3, 1, 16, 16))
    known = torch.full((1, 16, 1, 2, 2), 5.0)
    assert conditions.encode_picture(vae, image, 9, known) is known
    assert image.encoded == 5
    condition = conditions.image_condition(image, range(6, 9), known)
    assert condition[0, 4, :, 0, 0].tolist() == [5, 5, 5]


@pytest.mark.parametrize("one_by_one", [False, True])
def test_what_is_encoded_together_is_nobodys_business(one_by_one: bool) -> None:
    """An autoencoder whose batches differ in rounding is given one latent frame at a time."""
    vae, image, calls = CountingVae(), ImageCondition(torch.zeros(1, 3, 1, 16, 16)), list[int]()
    vae.frame_by_frame = not one_by_one
    encode = vae.encode_stream

    def counted(video: Tensor, state: StreamState | None) -> tuple[Tensor, StreamState]:
        calls.append(video.shape[2])
        return encode(video, state)

    vae.encode_stream = counted
    conditions.encode_picture(vae, image, 3, None)
    assert calls == ([1, 4, 4] if one_by_one else [9]) and image.encoded == 3


def test_first_latent_frame_stands_still() -> None:
    motion = conditions.fold_motion(START, [["w"], ["w"], ["l"]], RIG, range(3))
    assert np.array_equal(motion.relative[0], np.eye(4, dtype=np.float32))
    assert np.allclose(motion.relative[1, :3, 3], [0, 0, 1])
    assert not np.allclose(motion.relative[2, :3, :3], np.eye(3))
    assert motion.keys.tolist() == [[1, 0, 0, 0], [1, 0, 0, 0], [0, 0, 0, 0]]
    later = conditions.fold_motion(motion.camera, [["w"]], RIG, range(3, 4))
    assert np.allclose(later.relative[0, :3, 3], [0, 0, 1], atol=1e-6)


def test_scale_never_looks_back() -> None:
    camera = conditions.fold_motion(START, [["w", "d"]] * 3, RIG, range(1, 4)).camera
    straight = conditions.fold_motion(camera, [["w"]], RIG, range(4, 5)).relative[0, :3, 3]
    assert np.isclose(np.linalg.norm(straight), 1.0)
    diagonal = conditions.fold_motion(camera, [["w", "d"]], RIG, range(4, 5)).relative[0, :3, 3]
    assert np.isclose(np.linalg.norm(diagonal), 1.0)


def test_idle_is_identity_poses() -> None:
    motion = conditions.fold_motion(START, None, RIG, range(5, 8))
    assert np.array_equal(motion.relative, np.tile(np.eye(4, dtype=np.float32), (3, 1, 1)))


@pytest.mark.parametrize(
    "controls",
    [
        [["w"]],
        [["w"], ["x"]],
        np.eye(4)[None],
        np.full((2, 4, 4), np.nan),
        np.zeros((2, 3, 4)),
        np.full((2, 4, 4), "w"),
        PoseControls(np.tile(np.eye(4), (2, 1, 1)), np.zeros((1, 4))),
    ],
    ids=["too few", "unknown action", "one pose", "NaN", "wrong shape", "words", "keys"],
)
def test_unusable_controls(controls: conditions.Controls) -> None:
    with pytest.raises(ControlError):
        conditions.fold_motion(START, controls, RIG, range(2))


def test_prompt_blend_is_linear_and_ends_on_the_target() -> None:
    old, new = torch.zeros(1, 2, 3), torch.ones(1, 2, 3)
    prompt = PromptStates(old, old, old)
    assert conditions.advance_prompt(prompt) is prompt
    prompt = conditions.switch_prompt(prompt, Text(new, 2), 4)
    levels = []
    for _ in range(5):
        prompt = conditions.advance_prompt(prompt)
        levels.append(float(prompt.current.mean()))
    assert levels == [0.25, 0.5, 0.75, 1.0, 1.0]
    assert torch.equal(prompt.current, new)
    with pytest.raises(ShapeError):
        conditions.switch_prompt(prompt, Text(torch.ones(1, 3, 3), 3), 2)
    assert conditions.switch_prompt(prompt, Text(old, 0), 0).current is old


@pytest.mark.parametrize("keys", ["", "w", "wl", "sa", "ijd", "k"])
def test_motions_reach_the_network_as_their_letters_do(keys: str) -> None:
    """Relative poses, keys and the camera, bit for bit, at the start of a world and later."""
    for frames in (range(3), range(3, 6)):
        letters = conditions.fold_motion(START, [keys] * 3, RIG, frames)
        motions = conditions.fold_motion(START, [from_actions(keys)] * 3, RIG, frames)
        assert letters.relative.tobytes() == motions.relative.tobytes()
        assert letters.keys.tobytes() == motions.keys.tobytes()
        assert [c.pose for c in letters.path] == [c.pose for c in motions.path]
        assert letters.camera.pose == letters.path[-1].pose


def test_half_a_stick_is_half_a_motion_and_a_whole_key() -> None:
    half = conditions.fold_motion(START, [Motion(x=-0.3, z=0.4)], RIG, range(1, 2))
    assert np.linalg.norm(half.relative[0, :3, 3]) == pytest.approx(0.5)
    assert half.keys.tolist() == [[1, 1, 0, 0]]
    drift = conditions.fold_motion(START, [Motion(z=0.01)], RIG, range(1, 2))
    assert not drift.keys.any() and drift.relative[0, 2, 3] > 0
