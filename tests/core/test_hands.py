"""Hands folded into chunks: single rules by hand, then what must hold whatever the wire does."""

from __future__ import annotations

import math
from collections.abc import Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from worldline.core.errors import ControlError
from worldline.core.hands import (
    CARRY_FRAMES,
    MAX_PATH,
    MAX_WAITING,
    Applied,
    Hands,
    Sample,
    fold,
    fold_path,
    let_go,
    noted,
    sample,
    with_speed,
)
from worldline.core.live.client import Keys, Pad, Pointer, Release, Script
from worldline.core.motion import MOTIONLESS, Motion, Rig, from_actions

LATENT_S = 0.25
RIG = Rig()
W, A, D, WL = from_actions("w"), from_actions("a"), from_actions("d"), from_actions("wl")
IDLE = Hands()


def after(hands: Hands, *messages: Keys | Pad | Pointer | Script | Release) -> Hands:
    for message in messages:
        hands = fold(hands, message)
    return hands


def chunk(hands: Hands, frames: int = 3, rig: Rig = RIG) -> tuple[Hands, Sample]:
    return sample(hands, frames, latent_s=LATENT_S, rig=rig)


def motions(*messages: Keys | Pad | Pointer | Script | Release) -> tuple[Motion, ...]:
    return chunk(after(IDLE, *messages))[1].motions


def keys(id: int, held: str, at_ms: float = 0.0) -> Keys:
    return Keys(id=id, at_ms=at_ms, held=tuple(held))  # pyright: ignore[reportArgumentType]


def script(id: int, *frames: str) -> Script:
    return Script(id=id, frames=tuple(tuple(held) for held in frames))  # pyright: ignore[reportArgumentType]


def test_idle_hands_stand_still() -> None:
    hands, got = chunk(IDLE)
    assert got == Sample((MOTIONLESS,) * 3, (0, 0, 0), ())
    assert hands == IDLE
    assert not IDLE.moving


def test_what_is_held_moves_from_the_first_latent_frame_until_it_is_released() -> None:
    hands, first = chunk(after(IDLE, keys(1, "w")))
    hands, second = chunk(hands)
    assert hands.moving
    hands, third = chunk(after(hands, keys(2, "")))
    assert (first.motions, second.motions, third.motions) == ((W,) * 3, (W,) * 3, (MOTIONLESS,) * 3)
    assert (first.inputs, second.inputs, third.inputs) == ((1,) * 3, (1,) * 3, (2,) * 3)
    assert (first.applied, second.applied, third.applied) == (
        (Applied(1, 0),),
        (),
        (Applied(2, 0),),
    )


@pytest.mark.parametrize(
    ("held_ms", "frames"), [(0, 1), (20, 1), (374, 1), (376, 2), (700, 3), (9000, 3), (-5, 1)]
)
def test_a_press_that_is_over_lasts_by_its_timestamps(held_ms: float, frames: int) -> None:
    hands, got = chunk(after(IDLE, keys(1, "w", 100), keys(2, "", 100 + held_ms)))
    assert got.motions == (W,) * frames + (MOTIONLESS,) * (3 - frames)
    assert not hands.moving


def test_a_release_is_applied_where_its_short_press_ends() -> None:
    _, got = chunk(after(IDLE, keys(1, "w"), keys(2, "", 10)))
    assert got.applied == (Applied(1, 0), Applied(2, 1))
    assert got.inputs == (1, 2, 2)


def test_a_press_as_long_as_the_chunk_leaves_its_release_to_the_next() -> None:
    hands, first = chunk(after(IDLE, keys(1, "w"), keys(2, "", 5000)))
    hands, second = chunk(hands)
    assert (first.motions, first.inputs, first.applied) == ((W,) * 3, (1,) * 3, (Applied(1, 0),))
    assert (second.motions, second.inputs) == ((MOTIONLESS,) * 3, (2,) * 3)
    assert second.applied == (Applied(2, 0),)


def test_a_tap_is_added_to_what_is_held() -> None:
    assert motions(keys(1, "w"), keys(2, "wl", 5), keys(3, "w", 9)) == (WL, W, W)


def test_a_press_that_a_chunk_has_shown_is_over_when_it_is_released() -> None:
    hands, _ = chunk(after(IDLE, keys(1, "w")))
    _, got = chunk(after(hands, keys(2, "", 9000)))
    assert got.motions == (MOTIONLESS,) * 3


def test_the_opposite_key_takes_a_tap_back() -> None:
    assert motions(keys(1, "a"), keys(2, "", 10), keys(3, "d", 20)) == (D,) * 3
    assert motions(keys(1, "a"), keys(2, "", 10), keys(3, "d", 20), keys(4, "", 30)) == (
        D,
        MOTIONLESS,
        MOTIONLESS,
    )


def test_taps_of_one_key_add_up() -> None:
    taps = [keys(1, "w", 0), keys(2, "", 250), keys(3, "w", 400), keys(4, "", 650)]
    assert motions(*taps) == (W, W, MOTIONLESS)


def test_an_older_message_changes_nothing_but_is_answered() -> None:
    hands = after(IDLE, keys(5, ""), keys(4, "w"))
    _, got = chunk(hands)
    assert got.motions == (MOTIONLESS,) * 3
    assert {applied.id for applied in got.applied} == {4, 5}
    assert got.inputs == (5,) * 3


def test_letting_go_lets_go_of_everything() -> None:
    hands = after(
        IDLE,
        keys(1, "w"),
        Pad(id=2, x=1.0),
        Pointer(id=3, yaw=90.0),
        keys(4, ""),
        Release(id=5),
    )
    hands, got = chunk(hands)
    assert got.motions == (MOTIONLESS,) * 3
    assert got.inputs == (5,) * 3
    assert not hands.moving
    running = after(IDLE, script(1, *"wwwwwwwww"))
    assert running.moving
    assert not let_go(running).moving


def test_a_script_is_played_once_and_replaces_what_is_held() -> None:
    hands = after(IDLE, keys(1, "d"), script(2, "w", "", "wl", "w"))
    hands, first = chunk(hands)
    assert hands.moving
    hands, second = chunk(hands)
    assert first.motions == (W, MOTIONLESS, WL)
    assert second.motions == (W, MOTIONLESS, MOTIONLESS)
    assert not hands.moving


@pytest.mark.parametrize("message", [keys(2, "a"), Pad(id=2, x=-1.0), Pointer(id=2, yaw=-1.0)])
def test_whatever_moves_ends_a_script(message: Keys | Pad | Pointer) -> None:
    hands = after(IDLE, script(1, *"wwwwwwwww"), message)
    assert W not in chunk(hands)[1].motions


@pytest.mark.parametrize("message", [keys(2, ""), Pad(id=2), Pointer(id=2)])
def test_hands_at_rest_leave_a_script_alone(message: Keys | Pad | Pointer) -> None:
    hands = after(IDLE, script(1, *"wwwwwwwww"), message)
    assert chunk(hands)[1].motions == (W,) * 3


def test_a_path_loops_or_ends() -> None:
    path = [Motion(z=0.1), Motion(z=0.2)]
    hands, got = chunk(fold_path(IDLE, path, loop=True, id=1))
    assert [motion.z for motion in got.motions] == [0.1, 0.2, 0.1]
    assert [motion.z for motion in chunk(hands)[1].motions] == [0.2, 0.1, 0.2]
    hands, got = chunk(fold_path(IDLE, path, loop=False, id=1))
    assert [motion.z for motion in got.motions] == [0.1, 0.2, 0.0]
    assert not hands.moving
    for length in (0, MAX_PATH + 1):
        with pytest.raises(ControlError, match="path"):
            fold_path(IDLE, path[:1] * length, loop=False, id=1)


def test_keys_and_stick_add_up_to_full_speed_at_most() -> None:
    assert motions(keys(1, "w"), Pad(id=2, z=0.5, yaw=-0.5)) == (Motion(z=1.0, yaw=-0.5),) * 3
    assert motions(Pad(id=1, x=0.25)) == (Motion(x=0.25),) * 3


def test_a_flick_of_the_stick_is_seen() -> None:
    flick = [Pad(id=1, x=0.5), Pad(id=2, x=0.9, at_ms=100), Pad(id=3, x=0.2, at_ms=400)]
    got = motions(*flick, Pad(id=4, at_ms=500))
    assert got == (Motion(x=0.9),) * 2 + (MOTIONLESS,)


def test_speed_scales_keys_and_sticks_and_scripts_but_neither_turns_nor_paths() -> None:
    slow = with_speed(IDLE, 0.5)
    assert chunk(after(slow, keys(1, "wl")))[1].motions == (Motion(z=0.5, yaw=0.5),) * 3
    assert chunk(after(slow, Pad(id=1, z=-1.0)))[1].motions == (Motion(z=-0.5),) * 3
    assert chunk(after(slow, script(1, "w")))[1].motions[0] == Motion(z=0.5)
    turned = chunk(after(slow, Pointer(id=1, yaw=RIG.yaw_deg)))[1].motions
    assert turned == (Motion(yaw=1.0), MOTIONLESS, MOTIONLESS)
    path = fold_path(slow, [Motion(z=0.8)], loop=False, id=1)
    assert chunk(path)[1].motions[0] == Motion(z=0.8)


def test_a_turn_is_walked_off_at_full_speed_and_its_rest_carried() -> None:
    hands, first = chunk(after(IDLE, Pointer(id=1, yaw=4 * RIG.yaw_deg, pitch=-2.0)))
    _, second = chunk(hands)
    assert [motion.yaw for motion in first.motions] == [1.0, 1.0, 1.0]
    assert [motion.yaw for motion in second.motions] == [1.0, 0.0, 0.0]
    assert [motion.pitch * RIG.pitch_deg for motion in first.motions] == [-2.0, 0.0, 0.0]


def test_a_carried_turn_is_bounded() -> None:
    hands, _ = chunk(after(IDLE, *(Pointer(id=i, yaw=3600.0, pitch=-3600.0) for i in range(1, 9))))
    assert hands.turn == (CARRY_FRAMES * RIG.yaw_deg, -CARRY_FRAMES * RIG.pitch_deg)


def test_a_rig_that_cannot_turn_forgets_turns() -> None:
    hands = after(IDLE, Pointer(id=1, yaw=5.0, pitch=5.0))
    hands, got = chunk(hands, rig=Rig(yaw_deg=0.0, pitch_deg=0.0))
    assert got.motions == (MOTIONLESS,) * 3
    assert not hands.moving


def test_other_inputs_are_applied_with_the_next_chunk() -> None:
    hands, got = chunk(noted(after(IDLE, keys(3, "w")), 7))
    assert got.applied == (Applied(3, 0), Applied(7, 0))
    assert got.inputs == (7,) * 3
    assert hands.newest == 3  # keys 4 may still come


@pytest.mark.parametrize(
    "message",
    [
        Keys(id=1, held=(), at_ms=math.nan),
        Pad(id=1, x=math.nan),
        Pad(id=1, at_ms=math.nan),
        Pointer(id=1, yaw=math.nan),
        Pointer(id=1, pitch=math.inf),
        Keys(id=1, held=("q",)),  # pyright: ignore[reportArgumentType]
    ],
)
def test_what_is_no_number_and_no_key_is_refused(message: Keys | Pad | Pointer) -> None:
    with pytest.raises(ControlError):
        fold(IDLE, message)


# What must hold whatever the wire does.

KEYS = st.frozensets(st.sampled_from("wasdijkl"), max_size=4).map(
    lambda held: "".join(sorted(held))
)
TIMES = st.floats(0, 1e7, allow_nan=False)
UNITS = st.floats(-1, 1)
MESSAGES = st.one_of(
    st.builds(lambda held, at: keys(1, held, at), KEYS, TIMES),
    st.builds(lambda x, z, at: Pad(id=1, x=x, z=z, at_ms=at), UNITS, UNITS, TIMES),
    st.builds(
        lambda yaw, pitch: Pointer(id=1, yaw=yaw, pitch=pitch),
        st.floats(-3600, 3600),
        st.floats(-3600, 3600),
    ),
    st.builds(lambda held: script(1, held), KEYS),
    st.just(Release(id=1)),
)
Message = Keys | Pad | Pointer | Script | Release


def numbered(messages: Sequence[Message]) -> list[Message]:
    """The messages as a client sends them, with rising ids."""
    return [
        type(message)(**{**{f: getattr(message, f) for f in message.__struct_fields__}, "id": i})
        for i, message in enumerate(messages, start=1)
    ]


def ended(hands: Hands, frames: int) -> Hands:
    """After as many chunks as anything carried may take."""
    for _ in range(2 + CARRY_FRAMES):
        hands, _ = chunk(hands, frames)
    return hands


@settings(max_examples=200, deadline=None)
@given(
    messages=st.lists(MESSAGES, max_size=12).map(numbered),
    frames=st.integers(1, 4),
    data=st.data(),
)
def test_a_key_up_is_never_lost(messages: list[Message], frames: int, data: st.DataObject) -> None:
    """Any messages may be lost, late or twice, chunks come anywhere: when the newest that arrived
    holds nothing, nothing moves for longer than what was short or carried."""
    kept = [m for m in messages if data.draw(st.booleans())]
    twice = kept + [m for m in kept if data.draw(st.booleans())]
    order = data.draw(st.permutations(twice))
    up = data.draw(st.sampled_from([Release(id=100), keys(100, "")]))
    order.insert(data.draw(st.integers(0, len(order))), up)
    if isinstance(up, Keys):
        order.append(Pad(id=101))
    hands = IDLE
    for message in order:
        hands = fold(hands, message)
        if data.draw(st.booleans()):
            hands, _ = chunk(hands, frames)
    assert hands.held == ()
    assert hands.stick == MOTIONLESS
    assert not ended(hands, frames).moving


@settings(max_examples=200, deadline=None)
@given(messages=st.lists(MESSAGES, max_size=12).map(numbered), frames=st.integers(1, 4))
def test_after_letting_go_the_very_next_chunk_stands_still(
    messages: list[Message], frames: int
) -> None:
    hands = after(IDLE, *messages)
    for released in (let_go(hands), fold(hands, Release(id=1000))):
        _, got = chunk(released, frames)
        assert got.motions == (MOTIONLESS,) * frames


@settings(max_examples=200, deadline=None)
@given(
    messages=st.lists(st.builds(lambda held, at: keys(1, held, at), KEYS, TIMES), max_size=10).map(
        numbered
    ),
    data=st.data(),
)
def test_compaction_does_not_change_what_is_held(
    messages: list[Message], data: st.DataObject
) -> None:
    """A client may leave out key messages that a newer one replaces."""
    every = after(IDLE, *messages)
    some = after(IDLE, *(m for m in messages[:-1] if data.draw(st.booleans())), *messages[-1:])
    assert some.held == every.held
    if messages:
        last = messages[-1]
        assert isinstance(last, Keys)
        assert set(every.held) == set(last.held)
        lasting = (from_actions(every.held),) * 3
        assert chunk(chunk(every)[0])[1].motions == chunk(chunk(some)[0])[1].motions == lasting


@settings(max_examples=200, deadline=None)
@given(
    plan=st.lists(st.one_of(MESSAGES, st.none()), max_size=16),
    frames=st.integers(1, 4),
)
def test_every_input_is_applied_once_and_in_order(plan: list[Message | None], frames: int) -> None:
    """None stands for a chunk. Motions stay within full speed, and what is shown never falls."""
    messages = iter(numbered([message for message in plan if message is not None]))
    hands, applied, shown = IDLE, list[int](), 0
    for step in [*plan, None, None]:
        if step is not None:
            hands = fold(hands, next(messages))
            continue
        hands, got = chunk(hands, frames)
        assert len(got.motions) == len(got.inputs) == frames
        for motion in got.motions:
            assert all(abs(v) <= 1 for v in (motion.x, motion.z, motion.yaw, motion.pitch))
        assert [shown, *got.inputs] == sorted([shown, *got.inputs])
        shown = got.inputs[-1]
        applied += [entry.id for entry in got.applied]
        assert all(0 <= entry.latent_frame < frames for entry in got.applied)
    assert sorted(applied) == list(range(1, len(applied) + 1))
    assert len(applied) == sum(message is not None for message in plan)


@given(count=st.integers(0, 3 * MAX_WAITING))
@settings(max_examples=10, deadline=None)
def test_what_waits_is_bounded(count: int) -> None:
    hands = IDLE
    for id in range(1, count + 1):
        hands = noted(hands, id)
    assert len(hands.waiting) == min(count, MAX_WAITING)
    assert list(hands.waiting) == list(range(max(0, count - MAX_WAITING) + 1, count + 1))


@settings(deadline=None)
@given(turns=st.lists(st.tuples(st.floats(-20, 20), st.floats(-20, 20)), max_size=6))
def test_a_turn_that_fits_is_walked_off_exactly(turns: list[tuple[float, float]]) -> None:
    hands = IDLE
    for i, (yaw, pitch) in enumerate(turns, start=1):
        hands = fold(hands, Pointer(id=i, yaw=yaw, pitch=pitch))
    right, up = hands.turn
    yaw = pitch = 0.0
    for _ in range(4):  # six turns of 20 degrees fit into thirty latent frames
        hands, got = chunk(hands, 30)
        yaw += sum(motion.yaw * RIG.yaw_deg for motion in got.motions)
        pitch += sum(motion.pitch * RIG.pitch_deg for motion in got.motions)
    assert (yaw, pitch) == pytest.approx((right, up), abs=1e-6)
    assert not hands.moving
