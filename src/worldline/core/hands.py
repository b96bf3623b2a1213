"""What a visitor's hands ask for, folded into the motions of one chunk at a time; pure.

Keys, sticks, pointer, scripts and camera paths become one control: a `Motion` per latent frame.
Every key and stick message says all that is held, so the newest one alone decides what is held: no
lost, late or compacted message can leave a key stuck, and whatever lets go of everything does.

- What is held now moves the camera from the first latent frame on.
- A press that was released before any chunk showed it lasts as long as its timestamps say, at least
  one latent frame and at most this chunk, also from the first frame on. A later press of the
  opposite key takes it back. Timestamps decide nothing else.
- Pointer turns are walked off at full speed at most; a bounded rest is carried to later chunks.
- A script or path replaces what is held; whatever moves after it ends it. `speed` scales keys,
  sticks and scripts; turns and paths are in degrees and world units, and stay what they are.

Ids: an input is applied at the first latent frame that is made with it. A release waits for the end
of the press that it made short. `inputs` never falls.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from types import MappingProxyType
from typing import Final, NamedTuple

import msgspec

from worldline.core.actions import ACTIONS, check_actions
from worldline.core.errors import ControlError
from worldline.core.live.client import Keys, Pad, Pointer, Release, Script
from worldline.core.motion import MOTIONLESS, Motion, Rig, clipped, from_actions, motions_of

MAX_WAITING = 1024  # receipts that wait for a chunk; of more, the oldest are not given
MAX_TURN_DEG = 3600.0
CARRY_FRAMES = 8  # latent frames of turning at full speed that are carried to the next chunk
MAX_PATH = 4096  # latent frames, 17 minutes at 4 per second
STICK = "stick"
_OPPOSITE: Final[Mapping[str, str]] = MappingProxyType(
    dict(zip("wsadijkl", "swdaklij", strict=True))
)


class Tap(NamedTuple):
    """A press that is over and that no chunk has shown: what moved, how, how long, who ended it."""

    what: str
    motion: Motion
    lasted_ms: float
    ended_by: int


class Course(NamedTuple):
    """Motions that are played by themselves, from `at` on, once or for ever."""

    motions: tuple[Motion, ...]
    loop: bool
    at: int = 0


class Hands(msgspec.Struct, frozen=True, kw_only=True):
    """All that is held and all that waits for a chunk; of bounded size.

    `fresh` is when each key (or `STICK`) went down whose press no chunk has shown, in the sender's
    ms, and `peak` the furthest the stick went since. `turn` is degrees right and up still to go.
    `newest` is the last message taken, `shown` what the last chunk reported, `waiting` the ids that
    are not applied yet.
    """

    speed: float = 1.0
    held: tuple[str, ...] = ()
    stick: Motion = MOTIONLESS
    fresh: tuple[tuple[str, float], ...] = ()
    peak: Motion = MOTIONLESS
    taps: tuple[Tap, ...] = ()
    turn: tuple[float, float] = (0.0, 0.0)
    course: Course | None = None
    newest: int = 0
    shown: int = 0
    waiting: tuple[int, ...] = ()

    @property
    def moving(self) -> bool:
        """Whether the next chunk moves, or more than one will."""
        held = bool(self.held or self.taps or self.course) or self.stick != MOTIONLESS
        return held or self.turn != (0.0, 0.0)


class Applied(NamedTuple):
    """Input `id` shapes the world from this latent frame of the chunk on."""

    id: int
    latent_frame: int


class Sample(NamedTuple):
    """The controls of one chunk: per latent frame a motion and the newest input it shows."""

    motions: tuple[Motion, ...]
    inputs: tuple[int, ...]
    applied: tuple[Applied, ...]


def fold(hands: Hands, message: Keys | Pad | Pointer | Script | Release) -> Hands:
    """Take a message: all of it, or none and `ControlError`.

    One that is older than the newest taken changes nothing but is still answered.
    """
    stale = message.id <= hands.newest
    match message:
        case Keys():
            held = _ordered(message.held)
            after = _hold_keys(hands, held, at_ms=_number(message.at_ms), id=message.id)
        case Pad():
            stick = clipped(message.x, message.z, yaw=message.yaw, pitch=message.pitch)
            after = _hold_stick(hands, stick, at_ms=_number(message.at_ms), id=message.id)
        case Pointer():
            after = _turn(hands, _number(message.yaw), _number(message.pitch))
        case Script():
            motions = motions_of(message.frames)
            if hands.speed != 1.0:
                motions = tuple(motion.scaled(hands.speed) for motion in motions)
            after = _follow(hands, Course(motions, loop=False))
        case Release():
            after = let_go(hands)
    return noted(hands if stale else after, message.id, newest=True)


def fold_path(hands: Hands, motions: Sequence[Motion], *, loop: bool, id: int) -> Hands:
    """Walk a camera path that was resampled to latent frames; raises `ControlError` if too long."""
    check_path(len(motions))
    stale = id <= hands.newest
    after = hands if stale else _follow(hands, Course(tuple(motions), loop))
    return noted(after, id, newest=True)


def check_path(frames: int) -> None:
    """Raises `ControlError` for a path of more than `MAX_PATH` latent frames, or of none."""
    if not 0 < frames <= MAX_PATH:
        raise ControlError(
            "the path is too long", expected=f"1 to {MAX_PATH} latent frames", got=frames
        )


def noted(hands: Hands, id: int, *, newest: bool = False) -> Hands:
    """Let input `id` be applied with the next chunk; `newest` where it says what is held."""
    waiting = (*hands.waiting, id)[-MAX_WAITING:]
    latest = max(hands.newest, id) if newest else hands.newest
    return msgspec.structs.replace(hands, waiting=waiting, newest=latest)


def with_speed(hands: Hands, speed: float) -> Hands:
    """Scale all later motion of keys, sticks and scripts."""
    return msgspec.structs.replace(hands, speed=min(max(_number(speed), 0.0), 1.0))


def let_go(hands: Hands) -> Hands:
    """Hold nothing, play nothing and turn no further; ids stay."""
    return Hands(speed=hands.speed, newest=hands.newest, shown=hands.shown, waiting=hands.waiting)


def sample(hands: Hands, frames: int, *, latent_s: float, rig: Rig) -> tuple[Hands, Sample]:
    """The controls of the next chunk of `frames` latent frames, each `latent_s` seconds of video.

    What is returned as hands holds afterwards.
    """
    assert frames > 0, "a chunk has at least one latent frame"
    lengths = [_length(tap, frames, latent_s) for tap in hands.taps]
    course, played = _play(hands.course, frames)
    turn, motions = hands.turn, list[Motion]()
    for frame in range(frames):
        taps = [tap for tap, length in zip(hands.taps, lengths, strict=True) if frame < length]
        base = played[frame] if hands.course else _held(hands, taps)
        turn, motion = _walk_off(turn, base, rig)
        motions.append(motion)
    ends = dict[int, int]()
    for tap, length in zip(hands.taps, lengths, strict=True):
        ends[tap.ended_by] = max(length, ends.get(tap.ended_by, 0))
    applied = tuple(Applied(id, ends.get(id, 0)) for id in hands.waiting)
    inputs = tuple(
        max((hands.shown, *(id for id, start in applied if start <= frame)))
        for frame in range(frames)
    )
    after = msgspec.structs.replace(
        hands,
        fresh=(),
        peak=MOTIONLESS,
        taps=(),
        turn=_carried(turn, rig),
        course=course,
        shown=inputs[-1],
        waiting=tuple(id for id, start in applied if start >= frames),
    )
    seen = tuple(entry for entry in applied if entry.latent_frame < frames)
    return after, Sample(tuple(motions), inputs, seen)


def _hold_keys(hands: Hands, held: tuple[str, ...], *, at_ms: float, id: int) -> Hands:
    fresh, taps = dict(hands.fresh), {tap.what: tap for tap in hands.taps}
    for key in hands.held:
        if key not in held and key in fresh:
            lasted = at_ms - fresh.pop(key)
            taps[key] = Tap(key, from_actions(key), lasted, id)
    for key in held:
        if key not in hands.held:
            taps.pop(_OPPOSITE[key], None)
            tapped = taps.pop(key, None)
            fresh[key] = at_ms - (tapped.lasted_ms if tapped else 0.0)
    return msgspec.structs.replace(
        hands,
        held=held,
        fresh=tuple(fresh.items()),
        taps=tuple(taps.values()),
        course=None if held else hands.course,
    )


def _hold_stick(hands: Hands, stick: Motion, *, at_ms: float, id: int) -> Hands:
    fresh, taps = dict(hands.fresh), {tap.what: tap for tap in hands.taps}
    peak = hands.peak
    if stick != MOTIONLESS:
        fresh.setdefault(STICK, at_ms)
        peak = max(peak, stick, key=_size)
        taps.pop(STICK, None)
    elif STICK in fresh and hands.stick != MOTIONLESS:
        taps[STICK] = Tap(STICK, peak, at_ms - fresh.pop(STICK), id)
        peak = MOTIONLESS
    return msgspec.structs.replace(
        hands,
        stick=stick,
        fresh=tuple(fresh.items()),
        peak=peak,
        taps=tuple(taps.values()),
        course=hands.course if stick == MOTIONLESS else None,
    )


def _turn(hands: Hands, yaw: float, pitch: float) -> Hands:
    if yaw == pitch == 0.0:
        return hands
    right, up = hands.turn
    turn = (_within(right + yaw, MAX_TURN_DEG), _within(up + pitch, MAX_TURN_DEG))
    return msgspec.structs.replace(hands, turn=turn, course=None)


def _follow(hands: Hands, course: Course) -> Hands:
    return msgspec.structs.replace(let_go(hands), course=course)


def _held(hands: Hands, taps: Sequence[Tap]) -> Motion:
    """Keys, stick and taps together, at the visitor's speed."""
    keys = from_actions({*hands.held, *(tap.what for tap in taps if tap.what != STICK)})
    stick = next((tap.motion for tap in taps if tap.what == STICK), hands.stick)
    if hands.speed != 1.0:  # at full speed, bit for bit what the letters give
        keys, stick = keys.scaled(hands.speed), stick.scaled(hands.speed)
    if stick == MOTIONLESS:
        return keys
    return clipped(
        keys.x + stick.x, keys.z + stick.z, yaw=keys.yaw + stick.yaw, pitch=keys.pitch + stick.pitch
    )


def _walk_off(
    turn: tuple[float, float], base: Motion, rig: Rig
) -> tuple[tuple[float, float], Motion]:
    """Turn as far as one latent frame allows; the rest of the turn, and the motion."""
    if turn == (0.0, 0.0):
        return turn, base
    yaw_left, yaw = _one_axis(turn[0], base.yaw, rig.yaw_deg)
    pitch_left, pitch = _one_axis(turn[1], base.pitch, rig.pitch_deg)
    return (yaw_left, pitch_left), clipped(base.x, base.z, yaw=yaw, pitch=pitch)


def _one_axis(degrees: float, base: float, full_deg: float) -> tuple[float, float]:
    if degrees == 0.0 or full_deg == 0.0:
        return 0.0, base
    share = base + degrees / full_deg
    fits = _within(share, 1.0)
    return (0.0 if fits == share else (share - fits) * full_deg), fits


def _carried(turn: tuple[float, float], rig: Rig) -> tuple[float, float]:
    return (
        _within(turn[0], CARRY_FRAMES * rig.yaw_deg),
        _within(turn[1], CARRY_FRAMES * rig.pitch_deg),
    )


def _play(course: Course | None, frames: int) -> tuple[Course | None, tuple[Motion, ...]]:
    """What is left of a course after so many frames, and its motions in them."""
    if course is None:
        return None, ()
    motions, count = course.motions, len(course.motions)
    if course.loop:
        played = tuple(motions[(course.at + frame) % count] for frame in range(frames))
        return course._replace(at=(course.at + frames) % count), played
    played = motions[course.at : course.at + frames]
    played += (MOTIONLESS,) * (frames - len(played))
    after = course._replace(at=course.at + frames)
    return (after if after.at < count else None), played


def _length(tap: Tap, frames: int, latent_s: float) -> int:
    """Latent frames a tap lasts."""
    wished = tap.lasted_ms / (latent_s * 1000.0)
    return int(min(max(wished, 1.0), float(frames)) + 0.5)


def _ordered(actions: Sequence[str]) -> tuple[str, ...]:
    held = check_actions(actions)
    return tuple(key for key in ACTIONS if key in held)


def _size(motion: Motion) -> float:
    return max(abs(motion.x), abs(motion.z), abs(motion.yaw), abs(motion.pitch))


def _within(value: float, limit: float) -> float:
    return min(max(value, -limit), limit)


def _number(value: float) -> float:
    if not math.isfinite(value):
        raise ControlError("not a number", expected="a finite number", got=value)
    return value
