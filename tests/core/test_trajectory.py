"""Paths that are followed: there and back by files, too fast, in other units, and hostile ones."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldline.core.camera import (
    DEFAULT_INTRINSICS,
    START,
    CameraState,
    advance,
    load_trajectory,
    scale_intrinsics,
)
from worldline.core.errors import ControlError
from worldline.core.motion import MOTIONLESS, Motion, Rig, check_motion
from worldline.core.rotation import turn
from worldline.core.trajectory import (
    MAX_LATENT_FRAMES,
    full_speed_scale,
    intrinsics_array,
    latent_frames,
    motions_along,
    per_picture,
    poses_array,
    transforms,
)

RIG = Rig(move=0.05, yaw_deg=5.0, pitch_deg=3.0, pitch_limit_deg=18.0)
LATENT_S = 0.25
SHARE = st.floats(-1.0, 1.0)


def walk(motions: list[Motion], start: CameraState = START) -> list[CameraState]:
    """The camera before the first motion and after each."""
    path = [start]
    for motion in motions:
        path.append(advance(path[-1], motion, RIG))
    return path


def lasting(path: list[CameraState], *, rate: float = 4.0) -> list[Motion]:
    """The motions that follow a path of one pose per latent frame."""
    c2w = [state.c2w for state in path]
    return list(motions_along(c2w, rate=rate, latent_s=LATENT_S, rig=RIG))


@given(st.lists(st.builds(Motion, SHARE, SHARE, SHARE, SHARE), min_size=1, max_size=30))
@settings(max_examples=60, deadline=None)
def test_a_walk_is_followed_exactly(motions: list[Motion]) -> None:
    """Also from another place: what is recorded and played again ends where it ended."""
    path = walk(motions)
    again = walk(lasting(path))
    assert np.allclose(again[-1].c2w, path[-1].c2w, atol=1e-9)
    elsewhere = walk([Motion(z=1.0, yaw=1.0)] * 7)[-1]
    moved = walk(lasting(path), elsewhere)
    assert np.allclose(moved[-1].c2w, elsewhere.c2w @ path[-1].c2w, atol=1e-9)


def test_a_path_that_starts_looking_up_is_level_by_its_world() -> None:
    path = walk([Motion(pitch=1.0)] * 4 + [Motion(z=1.0, yaw=1.0)] * 9)[4:]
    motions = lasting(path)
    assert all(m.z == pytest.approx(1.0) and m.yaw == pytest.approx(1.0) for m in motions)
    assert all(m.pitch == pytest.approx(0.0, abs=1e-9) for m in motions)


def test_a_path_in_a_tilted_world_begins_level() -> None:
    tilt = np.eye(4)
    tilt[:3, :3] = turn(np.eye(3), 0.0, 70.0)[[2, 0, 1]]  # another axis is down there
    path = walk([Motion(z=1.0)] * 5)
    motions = motions_along(
        [tilt @ state.c2w for state in path], rate=4.0, latent_s=LATENT_S, rig=RIG
    )
    assert all(m.z == pytest.approx(1.0) and abs(m.x) < 1e-9 for m in motions)


def test_pictures_between_latent_frames_make_no_difference() -> None:
    motions = [Motion(z=0.5, yaw=0.25), Motion(x=-0.5), Motion(yaw=-1.0, pitch=0.5), MOTIONLESS]
    path = walk(motions)
    poses = per_picture([state.pose for state in path])
    assert poses.shape == (17, 4, 4) and poses.dtype == np.float32
    followed = motions_along(poses, rate=16.0, latent_s=LATENT_S, rig=RIG)
    assert len(followed) == 4
    assert np.allclose(walk(list(followed))[-1].c2w, path[-1].c2w, atol=1e-5)


def test_too_fast_is_full_speed_and_catches_up() -> None:
    path = walk([Motion(z=1.0, yaw=1.0)] * 6)
    still = [*path, *[path[-1]] * 6]
    motions = lasting(still[::2])  # twice as fast
    assert motions[0] == Motion(x=motions[0].x, z=motions[0].z, yaw=1.0)
    assert math.hypot(motions[0].x, motions[0].z) == pytest.approx(1.0)
    assert np.allclose(walk(motions)[-1].c2w, path[-1].c2w, atol=1e-9)


def test_a_turn_goes_the_short_way_and_over_the_back() -> None:
    path = walk([Motion(yaw=1.0)] * 80)  # 400 degrees
    assert [m.yaw for m in lasting(path)] == pytest.approx([1.0] * 80)


def test_other_units_are_brought_to_full_speed() -> None:
    path = np.array([state.c2w for state in walk([Motion(z=1.0)] * 3 + [Motion(z=0.5)] * 3)])
    path[:, :3, 3] *= 300.0
    scale = full_speed_scale(path, rate=4.0, latent_s=LATENT_S, rig=RIG)
    motions = motions_along(path, rate=4.0, latent_s=LATENT_S, rig=RIG, scale=scale)
    assert [m.z for m in motions] == pytest.approx([1.0] * 3 + [0.5] * 3)


def test_files_come_back(tmp_path: pytest.TempPathFactory) -> None:
    path = walk([Motion(z=1.0, yaw=0.5)] * 5)
    poses = [state.pose for state in path]
    np.save(f"{tmp_path}/poses.npy", poses_array(poses))
    np.save(f"{tmp_path}/intrinsics.npy", intrinsics_array(DEFAULT_INTRINSICS, len(poses)))
    back = load_trajectory(f"{tmp_path}/poses.npy", f"{tmp_path}/intrinsics.npy")
    assert back.intrinsics == DEFAULT_INTRINSICS
    assert np.allclose(back.c2w, [state.c2w for state in path], atol=1e-6)


def test_transforms_have_opengl_axes() -> None:
    path = walk([Motion(z=1.0)] * 2)
    k = scale_intrinsics(DEFAULT_INTRINSICS, 160, 96)
    told = transforms([state.c2w for state in path], k, size=(160, 96))
    assert (told["w"], told["h"], told["fl_x"], told["cy"]) == (160, 96, k.fx, k.cy)
    last = np.array(told["frames"][2]["transform_matrix"])
    assert np.allclose(last[:3, 3], [0, 0, 2 * RIG.move])  # where it is does not change
    assert np.allclose(last[:3, :3], np.diag([1, -1, -1]))  # it looks along its own -z


HOSTILE = {
    "one pose": ([np.eye(4)], 4.0),
    "no rate": ([np.eye(4)] * 2, 0.0),
    "not a number": ([np.eye(4) * math.nan] * 2, 4.0),
    "infinite rate": ([np.eye(4)] * 2, math.inf),
    "a path of years": ([np.eye(4)] * 4096, 1e-9),
    "no rotation": ([np.eye(4), np.diag([2.0, 1, 1, 1])], 4.0),
    "far away": ([np.eye(4), np.eye(4) + 1e300 * np.eye(4, k=3)], 4.0),
    "ragged": ([[1.0] * 12, [1.0] * 11], 4.0),
    "words": ([["a"] * 12] * 2, 4.0),
    "empty": ([], 4.0),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_what_is_no_path_is_refused(name: str) -> None:
    c2w, rate = HOSTILE[name]
    with pytest.raises(ControlError):
        motions_along(c2w, rate=rate, latent_s=LATENT_S, rig=RIG)


@given(
    st.lists(st.lists(st.floats(-1e6, 1e6), min_size=3, max_size=3), min_size=2, max_size=9),
    st.floats(0.01, 1000.0),
)
@settings(max_examples=60, deadline=None)
def test_every_path_gives_motions_a_rig_can_make(places: list[list[float]], rate: float) -> None:
    poses = np.tile(np.eye(4), (len(places), 1, 1))
    poses[:, :3, 3] = places
    motions = motions_along(poses, rate=rate, latent_s=LATENT_S, rig=RIG)
    assert 1 <= len(motions) <= MAX_LATENT_FRAMES
    for motion in motions:
        assert math.hypot(check_motion(motion).x, motion.z) <= 1.0 + 1e-9


@pytest.mark.parametrize("rate", [5e-324, 1e-300, 1e-9])
def test_a_path_that_would_never_end_is_refused(rate: float) -> None:
    with pytest.raises(ControlError, match="too long"):
        latent_frames(4096, rate=rate, latent_s=0.25)
