"""Frames as they are decoded: the same pictures, in order, before the chunk is complete."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

import worldline
from tests import tiny
from tests.preview import random_decoder
from worldline.core.camera import Intrinsics
from worldline.core.chunk import Decoded
from worldline.core.errors import AbortedError, ControlError
from worldline.core.motion import START_POSE, Motion, Rig
from worldline.runtime.conditions import Controls
from worldline.runtime.engine import World
from worldline.runtime.lane import InTurn
from worldline.runtime.passes import EagerPasses
from worldline.runtime.session import Session

WALK: list[Controls] = [[("w",), (), ("l",)], None, [Motion(z=0.5, yaw=-0.2)] * 3]


def preview_world() -> World:
    """The small model with a tiny decoder on the screen."""
    plain = tiny.world()
    return World(dataclasses.replace(plain.components, preview=random_decoder()))


def watched(session: Session, i: int) -> tuple[np.ndarray, list[Decoded]]:
    """One chunk: its frames, and what was handed on."""
    parts: list[Decoded] = []
    chunk = session.step(WALK[i % 3], on_frames=parts.append)
    assert [part.latent_frame for part in parts] == [0, 1, 2]
    assert [part.pose for part in parts] == list(chunk.poses)
    firsts = np.cumsum([0, *(len(part.frames) for part in parts[:-1])])
    assert [part.first for part in parts] == firsts.tolist()
    assert [len(part.frames) for part in parts] == [1 if i == 0 else 4, 4, 4]
    assert np.array_equal(np.concatenate([part.frames for part in parts]), chunk.frames)
    return chunk.frames, parts


@pytest.mark.parametrize("make", [tiny.world, preview_world], ids=["full", "tiny decoder"])
def test_streamed_frames_are_those_of_the_chunk(make: Callable[[], World]) -> None:
    """For both decoders of Wan's latents; the second walk begins with a chunk that was kept."""
    with make().start(tiny.picture(), tiny.PROMPT, 3, steps=2) as session:
        plain = [session.step(WALK[i % 3]).frames for i in range(5)]
    world = make()
    for _ in range(2):
        with world.start(tiny.picture(), tiny.PROMPT, 3, steps=2) as session:
            for i, expected in enumerate(plain):
                frames, _ = watched(session, i)
                assert np.array_equal(frames, expected), f"chunk {i}"
                session.prepare()
    assert world.shared.first_chunks.recalled == 1


def test_streamed_frames_of_the_pocket_world() -> None:
    noise = np.random.default_rng(1).integers(0, 256, (96, 160, 3), dtype=np.uint8)
    films = []
    for streams in (False, True):
        world = worldline.load("pocket", random_weights=True, threads=1)
        with world.start(noise, "a red hall", 7, steps=1, chunk=3, window=9) as session:
            films.append(
                [
                    watched(session, i)[0] if streams else session.step(WALK[i % 3]).frames
                    for i in range(3)
                ]
            )
    for plain, streamed in zip(*films, strict=True):
        assert np.array_equal(plain, streamed)


def test_pictures_are_out_before_the_context_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    order: list[str] = []
    plain = EagerPasses.commit

    def commit(passes: EagerPasses, x: torch.Tensor, **given: object) -> None:
        order.append("context")
        plain(passes, x, **given)  # type: ignore[arg-type]

    monkeypatch.setattr(EagerPasses, "commit", commit)
    with tiny.world().start(tiny.picture(), tiny.PROMPT, steps=1) as session:
        session.step(on_frames=lambda part: order.append(f"frames {part.latent_frame}"))
    assert order == ["frames 0", "frames 1", "frames 2", "context"]


class Queueing(InTurn):
    """A lane that fetches only when it is waited for, as that of a GPU."""

    queues = True

    def __init__(self) -> None:
        super().__init__()
        self.waited: list[int] = []

    def fetching(self, video: torch.Tensor) -> Callable[[], NDArray[np.uint8]]:
        def wait() -> NDArray[np.uint8]:
            self.waited.append(video.shape[2])
            return self.fetch(video)

        return wait


def unseen(decoded: Decoded) -> None:
    """Nobody is to see this."""
    raise AssertionError(f"shown: {decoded.latent_frame}")


def test_where_work_is_queued_frames_are_waited_for_at_the_end() -> None:
    """Each latent frame by itself, none twice, and up to the first of them all can be given up."""
    with tiny.world().start(tiny.picture(), tiny.PROMPT, 3, steps=2) as session:
        plain = [session.step(WALK[i % 3]).frames for i in range(3)]
    world, lane = tiny.world(), Queueing()
    world.shared = world.shared._replace(lane=lane)
    with world.start(tiny.picture(), tiny.PROMPT, 3, steps=2) as session:
        for i, expected in enumerate(plain):
            asked = iter([False] * 4)  # the last before the context pass
            with pytest.raises(AbortedError):
                session.step(WALK[i], aborted=lambda a=asked: next(a, True), on_frames=unseen)
            lane.waited.clear()
            assert np.array_equal(watched(session, i)[0], expected)
            assert lane.waited == [1 if i == 0 else 4, 4, 4]


def test_poses_say_where_the_camera_is() -> None:
    """The first latent frame of a world is its picture, whatever is pressed."""
    with tiny.world().start(tiny.picture(), tiny.PROMPT, steps=1) as session:
        rig = session.rig
        poses = [*session.step([("w", "l")] * 3).poses, *session.step([Motion(yaw=0.5)] * 3).poses]
    assert poses[0] == START_POSE
    turns = [0, 1, 2, 2.5, 3, 3.5]
    assert [pose.yaw for pose in poses] == pytest.approx([rig.yaw_deg * turn for turn in turns])
    assert poses[-1].c2w[3::4] == poses[2].c2w[3::4]  # turning does not walk


def test_speed_and_lens_are_the_sessions_own() -> None:
    """Another rig moves the camera by its own speed, another lens shows another picture."""
    world, frames = tiny.world(), []
    lens = Intrinsics(250.0, 250.0, 416.0, 240.0)
    for rig, k in ((None, None), (Rig(move=2.0, yaw_deg=10.0), None), (None, lens)):
        with world.start(tiny.picture(), tiny.PROMPT, steps=1, rig=rig, intrinsics=k) as session:
            chunk = session.step([("l",)] * 3)
            frames.append(chunk.frames)
            assert chunk.poses[-1].yaw == pytest.approx(2 * session.rig.yaw_deg)
            wide = (k or world.preset.intrinsics).fx * tiny.WIDTH / 832
            assert session.intrinsics.fx == pytest.approx(wide)
    assert not np.array_equal(frames[0], frames[1]) and not np.array_equal(frames[0], frames[2])
    for wrong in ({"rig": Rig(move=0.0)}, {"intrinsics": Intrinsics(0.0, 1.0, 1.0, 1.0)}):
        with pytest.raises(ControlError):
            world.start(tiny.picture(), tiny.PROMPT, **wrong)  # type: ignore[arg-type]
    assert world.counts().rings == 0


@pytest.mark.parametrize(
    "motions",
    [[Motion()] * 2, [Motion()] * 4, [Motion(x=float("nan"))] * 3, [Motion(yaw=1.5)] * 3],
    ids=["few", "many", "nan", "fast"],
)
def test_motions_that_cannot_be_are_refused(motions: list[Motion]) -> None:
    with tiny.world().start(tiny.picture(), tiny.PROMPT, steps=1) as session:
        with pytest.raises(ControlError):
            session.step(motions)
        assert session.next_chunk == 0
        assert session.step().poses[-1] == START_POSE
