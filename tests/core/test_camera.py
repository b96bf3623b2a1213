"""The live rig and the offline poses, against hand-made cases; recordings are in tests/parity."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldline.core.camera import (
    DEFAULT_INTRINSICS,
    START,
    CameraState,
    Intrinsics,
    Rig,
    advance,
    check_poses,
    framewise_relative,
    interpolate_poses,
    load_trajectory,
    poses_from_keys,
    relative_pose,
    relative_to_first,
    scale_intrinsics,
)
from worldline.core.errors import ControlError

RIG = Rig()
HELD = st.frozensets(st.sampled_from("wasdijkl"))


def walk(*frames: str, rig: Rig = RIG, start: CameraState = START) -> CameraState:
    for keys in frames:
        start = advance(start, keys, rig)
    return start


def motion(state: CameraState, keys: str, rig: Rig = RIG) -> np.ndarray:
    return relative_pose(state.c2w, advance(state, keys, rig).c2w, rig.move)


@pytest.mark.parametrize(
    ("keys", "direction"),
    [("w", (0, 0, 1)), ("s", (0, 0, -1)), ("a", (-1, 0, 0)), ("d", (1, 0, 0))],
)
def test_a_straight_move_is_one_full_step(keys: str, direction: tuple[int, int, int]) -> None:
    np.testing.assert_allclose(walk(keys, keys).c2w[:3, 3], np.multiply(direction, 0.1))
    np.testing.assert_allclose(motion(START, keys)[:3, 3], direction, atol=1e-12)


@pytest.mark.parametrize("keys", ["wd", "wa", "sd", "sa", "wdl", "sai"])
def test_a_diagonal_is_as_fast_as_a_straight_move(keys: str) -> None:
    assert np.linalg.norm(motion(START, keys)[:3, 3]) == pytest.approx(1.0, abs=1e-12)


def test_the_scale_of_a_move_ignores_what_was_done_before() -> None:
    after = walk(*["wd"] * 7, "s", "", "jk", "a")
    assert np.linalg.norm(motion(after, "w")[:3, 3]) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(("keys", "sign"), [("l", 1), ("j", -1)])
def test_yaw_turns_about_world_y(keys: str, sign: int) -> None:
    ahead = walk(keys).c2w[:3, 2]
    angle = math.radians(6.0)
    np.testing.assert_allclose(ahead, [sign * math.sin(angle), 0, math.cos(angle)], atol=1e-12)


@pytest.mark.parametrize(("keys", "sign"), [("i", -1), ("k", 1)])
def test_pitch_tilts_the_view_up_and_down(keys: str, sign: int) -> None:
    ahead = walk(keys).c2w[:3, 2]
    angle = math.radians(4.0)
    np.testing.assert_allclose(ahead, [0, sign * math.sin(angle), math.cos(angle)], atol=1e-12)


def test_yaw_stays_about_the_world_axis_when_looking_up() -> None:
    state = walk(*["i"] * 10, *["l"] * 15)
    right = state.c2w[:3, 0]
    np.testing.assert_allclose(right, [0, 0, -1], atol=1e-12)


def test_a_move_uses_the_new_rotation() -> None:
    angle = math.radians(6.0)
    expected = np.multiply(0.05, [math.sin(angle), 0, math.cos(angle)])
    np.testing.assert_allclose(walk("wl").c2w[:3, 3], expected, atol=1e-12)


def test_a_move_stays_on_the_ground_when_looking_up() -> None:
    state = walk(*["i"] * 15, "w")
    np.testing.assert_allclose(state.c2w[:3, 3], [0, 0, 0.05], atol=1e-12)


def test_a_pitch_step_past_the_limit_ends_at_the_limit() -> None:
    state = walk(*["i"] * 22)
    assert state.pitch_deg == 85.0
    assert math.degrees(math.asin(-state.c2w[1, 2])) == pytest.approx(85.0, abs=1e-9)
    assert walk("k", start=state).pitch_deg == 81.0
    assert walk(*["k"] * 100).pitch_deg == -85.0


@pytest.mark.parametrize("keys", ["ws", "ad", "wsad", "ik", "jl", "ijkl", "wasdijkl", ""])
def test_opposite_keys_cancel(keys: str) -> None:
    start = walk("wl", "i")
    np.testing.assert_allclose(walk(keys, start=start).c2w, start.c2w, atol=1e-12)


@pytest.mark.parametrize(
    "actions", [["x"], ["W"], ["forward"], [""], [None], [3], None, 7, [["w"]]]
)
def test_an_unknown_action_is_refused(actions: object) -> None:
    with pytest.raises(ControlError):
        advance(START, actions, RIG)  # type: ignore[arg-type]


def test_the_start_cannot_be_changed_in_place() -> None:
    with pytest.raises(ValueError, match="read-only"):
        START.c2w[0, 3] = 1.0


def test_hours_of_turning_leave_a_rotation() -> None:
    state = START
    for i in range(4000):
        state = advance(state, "wl" if i % 3 else "id", RIG)
    rotation = state.c2w[:3, :3]
    np.testing.assert_allclose(rotation.T @ rotation, np.eye(3), atol=1e-14)


@given(st.lists(HELD, max_size=30), HELD)
@settings(max_examples=60, deadline=None)
def test_the_state_stays_bounded_whatever_is_pressed(
    before: list[frozenset[str]], now: frozenset[str]
) -> None:
    state = START
    for keys in before:
        state = advance(state, keys, RIG)
    after = advance(state, now, RIG)
    step = relative_pose(state.c2w, after.c2w, RIG.move)
    moved = ("w" in now) != ("s" in now) or ("a" in now) != ("d" in now)
    assert np.linalg.norm(step[:3, 3]) == pytest.approx(float(moved), abs=1e-9)
    assert abs(after.pitch_deg) <= 85.0
    assert after.c2w[1, 3] == 0.0
    np.testing.assert_allclose(after.c2w[:3, :3] @ after.c2w[:3, :3].T, np.eye(3), atol=1e-12)
    # The same keys at the same pitch are the same motion wherever the camera stands.
    here = CameraState(np.eye(4), state.pitch_deg)
    c, s = math.cos(math.radians(here.pitch_deg)), math.sin(math.radians(here.pitch_deg))
    here.c2w[1:3, 1:3] = [[c, -s], [s, c]]
    there = relative_pose(here.c2w, advance(here, now, RIG).c2w, RIG.move)
    np.testing.assert_allclose(step, there, atol=1e-9)


def test_relative_pose_refuses_a_scale_of_zero() -> None:
    with pytest.raises(ControlError, match="positive"):
        relative_pose(np.eye(4), np.eye(4), 0.0)


def test_intrinsics_scale_with_each_side() -> None:
    assert scale_intrinsics(DEFAULT_INTRINSICS, 416, 480) == Intrinsics(250, 500, 208, 240)


def test_offline_keys_integrate_per_pixel_frame() -> None:
    wasd = np.array([[1, 0, 0, 1], [0, 0, 0, 0]])
    ijkl = np.array([[0, 0, 0, 0], [0, 0, 0, 1]])
    poses = poses_from_keys(wasd, ijkl)
    assert poses.shape == (3, 4, 4)
    np.testing.assert_array_equal(poses[0], np.eye(4))
    # The official diagonal is longer than a straight move.
    np.testing.assert_allclose(poses[1, :3, 3], [0.05, 0, 0.05], atol=1e-6)
    assert math.degrees(math.atan2(poses[2, 0, 2], poses[2, 2, 2])) == pytest.approx(2.0)


def test_an_offline_pitch_step_past_the_limit_is_dropped() -> None:
    frames = 60
    poses = poses_from_keys(np.zeros((frames, 4)), np.tile([1, 0, 0, 0], (frames, 1)))
    assert math.degrees(math.asin(-poses[-1, 1, 2])) == pytest.approx(84.0)


@pytest.mark.parametrize(
    ("wasd", "ijkl"),
    [
        (np.zeros((3, 3)), np.zeros((3, 4))),
        (np.zeros((3, 4)), np.zeros((2, 4))),
        (np.zeros(4), np.zeros(4)),
        (np.full((2, 4), np.nan), np.zeros((2, 4))),
        ([["w", "a", "s", "d"]], np.zeros((1, 4))),
        ([[0, 0, 0], [0]], np.zeros((2, 4))),
    ],
)
def test_bad_key_arrays_are_refused(wasd: object, ijkl: object) -> None:
    with pytest.raises(ControlError):
        poses_from_keys(wasd, ijkl)  # type: ignore[arg-type]


def turned(degrees: float, position: tuple[float, float, float] = (0, 0, 0)) -> np.ndarray:
    c, s = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    pose = np.eye(4)
    pose[:3, :3] = [[c, 0, s], [0, 1, 0], [-s, 0, c]]
    pose[:3, 3] = position
    return pose


def test_interpolation_takes_the_great_arc_and_the_straight_line() -> None:
    poses = np.stack([turned(0), turned(90, (2, 4, 6))])
    got = interpolate_poses(poses, 5)
    for i, pose in enumerate(got):
        np.testing.assert_allclose(pose, turned(22.5 * i, (0.5 * i, i, 1.5 * i)), atol=1e-12)


def test_interpolation_crosses_half_turns_the_short_way() -> None:
    got = interpolate_poses(np.stack([turned(170), turned(-170)]), 3)
    np.testing.assert_allclose(got[1, :3, :3], turned(180)[:3, :3], atol=1e-12)


@given(st.floats(-180, 180), st.integers(1, 9))
@settings(max_examples=40, deadline=None)
def test_interpolation_keeps_both_ends(degrees: float, count: int) -> None:
    poses = np.stack([turned(degrees), turned(3), turned(-degrees, (1, 2, 3))])
    got = interpolate_poses(poses, count)
    np.testing.assert_allclose(got[0], poses[0], atol=1e-9)
    if count > 1:
        np.testing.assert_allclose(got[-1], poses[-1], atol=1e-9)


def test_one_pose_can_be_repeated_but_none_cannot_be_asked_for() -> None:
    np.testing.assert_allclose(interpolate_poses([turned(30)], 3), np.tile(turned(30), (3, 1, 1)))
    with pytest.raises(ControlError):
        interpolate_poses([turned(30)], 0)


def test_relative_poses_start_at_the_identity_and_are_normalised_over_the_clip() -> None:
    poses = np.stack([turned(10, (5, 0, 0)), turned(10, (5, 0, 2)), turned(40, (5, 0, 2.5))])
    steps = framewise_relative(poses, normalise=False)
    np.testing.assert_array_equal(steps[0], np.eye(4))
    np.testing.assert_allclose(np.linalg.norm(steps[:, :3, 3], axis=1), [0, 2, 0.5], atol=1e-5)
    lengths = np.linalg.norm(framewise_relative(poses)[:, :3, 3], axis=1)
    np.testing.assert_allclose(lengths, [0, 1, 0.25], atol=1e-5)
    first = relative_to_first(poses)
    np.testing.assert_allclose(np.linalg.norm(first[:, :3, 3], axis=1), [0, 0.8, 1], atol=1e-5)
    np.testing.assert_allclose(first[2, :3, :3], turned(30)[:3, :3], atol=1e-6)


def test_a_path_that_stands_still_is_not_divided_by_zero() -> None:
    np.testing.assert_array_equal(
        framewise_relative([np.eye(4)] * 3), np.tile(np.eye(4, dtype=np.float32), (3, 1, 1))
    )


BAD_POSES = {
    "one matrix": np.eye(4),
    "3x4": np.zeros((2, 3, 4)),
    "empty": np.zeros((0, 4, 4)),
    "nan": np.full((1, 4, 4), np.nan),
    "no rotation": np.diag([2.0, 2, 2, 1])[None],
    "mirror": np.diag([-1.0, 1, 1, 1])[None],
    "last row": np.eye(4)[None] + np.eye(4)[None, :, ::-1] * 0.1,
    "text": np.array(["a"]),
    "complex": np.eye(4, dtype=complex)[None],
}


@pytest.mark.parametrize("name", BAD_POSES)
def test_bad_poses_are_refused(name: str, tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", BAD_POSES[name])
    np.save(tmp_path / "k.npy", [[500.0, 500, 416, 240]])
    with pytest.raises(ControlError):
        load_trajectory(tmp_path / "p.npy", tmp_path / "k.npy")
    with pytest.raises(ControlError):
        framewise_relative(BAD_POSES[name])


@pytest.mark.parametrize(
    "k",
    [np.zeros((2, 3)), np.zeros((1, 3, 3)), np.zeros((0, 4)), [500, np.nan, 1, 1], [0, 1, 2, 3]],
)
def test_bad_intrinsics_are_refused(k: object, tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.eye(4)[None])
    np.save(tmp_path / "k.npy", np.array(k, dtype=np.float64))
    with pytest.raises(ControlError):
        load_trajectory(tmp_path / "p.npy", tmp_path / "k.npy")


def test_a_trajectory_is_read_with_the_first_row_of_its_intrinsics(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.stack([turned(0), turned(5)]).astype(np.float32))
    np.save(tmp_path / "k.npy", [[500, 501, 416, 240], [1, 1, 1, 1]])
    path = load_trajectory(tmp_path / "p.npy", str(tmp_path / "k.npy"))
    assert path.c2w.shape == (2, 4, 4)
    assert path.c2w.dtype == np.float64
    assert path.intrinsics == Intrinsics(500, 501, 416, 240)


@pytest.mark.parametrize("content", [b"", b"no array", b"\x93NUMPY\x01\x00", None])
def test_files_that_hold_no_array_are_refused(content: bytes | None, tmp_path: Path) -> None:
    path = tmp_path / "p.npy"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(ControlError, match="array file"):
        load_trajectory(path, path)


def test_a_pickled_array_is_never_opened(tmp_path: Path) -> None:
    np.save(tmp_path / "p.npy", np.array([{"a": 1}], dtype=object), allow_pickle=True)
    with pytest.raises(ControlError, match="array file"):
        load_trajectory(tmp_path / "p.npy", tmp_path / "p.npy")


@pytest.mark.parametrize("value", [1e200, -1e308, 1.1])
def test_numbers_beyond_any_rotation_are_refused_without_computing(value: float) -> None:
    poses = np.tile(np.eye(4), (2, 1, 1))
    poses[1, 0, 1] = value
    with pytest.raises(ControlError, match="no rotation"):
        check_poses(poses)
