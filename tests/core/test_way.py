"""Where the camera of a walk was: the live camera's way, and recorded poses laid end to end."""

from __future__ import annotations

import numpy as np
import pytest

from tests import worlds
from worldline.core.camera import START, CameraState, advance
from worldline.core.motion import Motion, Pose, Rig
from worldline.core.trajectory import per_picture
from worldline.core.walk import Stepped, pose_rows
from worldline.core.way import Way

RIG = Rig()


def walk(camera: CameraState, motions: list[Motion], *, first: bool) -> list[CameraState]:
    """The live camera at each latent frame; the very first stays where it is."""
    path: list[CameraState] = []
    for index, motion in enumerate(motions):
        if not (first and index == 0):
            camera = advance(camera, motion, RIG)
        path.append(camera)
    return path


def test_motions_are_where_the_engine_says() -> None:
    motions = [Motion(z=1.0, yaw=0.3), Motion(x=0.5), Motion(pitch=1.0)]
    way, told, found, camera = Way(RIG), list[Pose](), list[np.ndarray](), START
    for chunk in range(3):
        path = walk(camera, motions, first=chunk == 0)
        camera = path[-1]
        poses = [state.pose for state in path]
        found.append(way.pictures(Stepped(motions=tuple(motions)), poses))
        told += poses
    assert [len(part) for part in found] == [9, 12, 12]
    np.testing.assert_allclose(np.concatenate(found), per_picture(told), atol=1e-6)


def test_recorded_poses_go_on_from_where_the_camera_was_and_leave_it_there() -> None:
    way, still = Way(RIG), [START.pose] * 3
    rows = pose_rows([worlds.turned(0), worlds.turned(90), worlds.turned(0)])
    first = way.pictures(Stepped(poses=rows), still)
    # A step ahead that is not looked at (the start), one ahead and a right turn, one to the right.
    start = RIG.move
    np.testing.assert_allclose(first[0, :3, 3], [0, 0, start])
    np.testing.assert_allclose(first[4, :3, 3], [0, 0, 2 * start], atol=1e-9)
    np.testing.assert_allclose(first[8, :3, 3], [start, 0, 2 * start], atol=1e-9)
    ahead = walk(START, [Motion(z=1.0)] * 3, first=False)
    second = way.pictures(Stepped(motions=(Motion(z=1.0),) * 3), [state.pose for state in ahead])
    np.testing.assert_allclose(second[-1, :3, 3], [4 * start, 0, 2 * start], atol=1e-9)
    assert second[-1, 0, 2] == pytest.approx(1.0)  # it looks along x
