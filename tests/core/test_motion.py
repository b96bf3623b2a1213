"""Motions: letters give the camera they always gave, and nothing goes beyond full speed."""

from __future__ import annotations

import math
from itertools import combinations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from worldline.core.actions import ACTIONS
from worldline.core.camera import START, advance, relative_pose
from worldline.core.errors import ControlError
from worldline.core.motion import (
    MOTIONLESS,
    START_POSE,
    Motion,
    Rig,
    check_rig,
    clipped,
    from_actions,
    motions_of,
)

RIG = Rig(move=0.05, yaw_deg=5.0, pitch_deg=3.0, pitch_limit_deg=18.0)
SHARE = st.floats(-1.0, 1.0)
MOTION = st.builds(Motion, SHARE, SHARE, SHARE, SHARE)


def test_letters_and_their_motions_give_the_same_bits() -> None:
    """Every set of up to four letters, after a walk that has left every number crooked."""
    state = START
    for keys in ("wl", "ai", "dj", "w"):
        state = advance(state, keys, RIG)
    for count in range(5):
        for keys in combinations(ACTIONS, count):
            by_letters, by_motion = (advance(state, c, RIG) for c in (keys, from_actions(keys)))
            assert by_letters.c2w.tobytes() == by_motion.c2w.tobytes()
            assert by_letters.pitch_deg == by_motion.pitch_deg


def test_half_a_stick_is_half_the_way() -> None:
    whole, half = advance(START, Motion(z=1.0), RIG), advance(START, Motion(z=0.5), RIG)
    assert half.c2w[2, 3] == pytest.approx(whole.c2w[2, 3] / 2)
    diagonal = advance(START, Motion(x=1.0, z=1.0), RIG)
    assert np.linalg.norm(diagonal.c2w[:3, 3]) == pytest.approx(RIG.move)
    near = advance(START, Motion(x=0.3, z=0.4), RIG)
    assert np.linalg.norm(near.c2w[:3, 3]) == pytest.approx(RIG.move / 2)


@given(MOTION, st.floats(0.0, 1.0))
def test_speed_scales_the_walk_and_the_turn(motion: Motion, share: float) -> None:
    full, slow = advance(START, motion, RIG), advance(START, motion.scaled(share), RIG)
    assert np.linalg.norm(slow.c2w[:3, 3]) == pytest.approx(
        share * np.linalg.norm(full.c2w[:3, 3]), abs=1e-12
    )
    assert slow.yaw_deg == pytest.approx(share * full.yaw_deg, abs=1e-12)


@given(st.lists(MOTION, max_size=40))
def test_a_step_is_never_longer_than_full_speed(motions: list[Motion]) -> None:
    state = START
    for motion in motions:
        after = advance(state, motion, RIG)
        relative = relative_pose(state.c2w, after.c2w, RIG.move)
        assert np.linalg.norm(relative[:3, 3]) <= 1.0 + 1e-9
        assert abs(after.pitch_deg) <= RIG.pitch_limit_deg
        state = after


def test_poses_tell_the_whole_turn() -> None:
    assert START.pose == START_POSE
    state = START
    for _ in range(100):
        state = advance(state, Motion(yaw=-1.0, pitch=1.0), RIG)
    assert (state.pose.yaw, state.pose.pitch) == (pytest.approx(-500.0), 18.0)
    assert np.allclose(np.reshape(state.pose.c2w, (3, 4)), state.c2w[:3])


@pytest.mark.parametrize("motion", [Motion(x=1.1), Motion(yaw=math.nan), Motion(pitch=-math.inf)])
def test_what_is_beyond_full_speed_is_refused(motion: Motion) -> None:
    with pytest.raises(ControlError):
        advance(START, motion, RIG)


def test_clipping_limits_each_share() -> None:
    assert clipped(3.0, -0.5, yaw=-9.0, pitch=math.inf) == Motion(1.0, -0.5, -1.0, 1.0)
    with pytest.raises(ControlError):
        clipped(math.nan, 0.0)


def test_opposite_letters_cancel_and_unknown_ones_are_refused() -> None:
    assert motions_of([("w", "s"), ("w", "d", "i"), ()]) == (
        MOTIONLESS,
        Motion(x=1.0, z=1.0, pitch=1.0),
        MOTIONLESS,
    )
    with pytest.raises(ControlError):
        from_actions(("q",))


@pytest.mark.parametrize(
    "rig", [Rig(move=0.0), Rig(move=math.nan), Rig(yaw_deg=-1.0), Rig(pitch_limit_deg=90.0)]
)
def test_a_rig_that_moves_no_camera_is_refused(rig: Rig) -> None:
    with pytest.raises(ControlError):
        check_rig(rig)
