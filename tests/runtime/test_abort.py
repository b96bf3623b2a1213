"""A chunk that is given up, at any pass, leaves its session as it was: what follows is equal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests import tiny
from worldline.core.config import EngineOptions
from worldline.core.errors import AbortedError
from worldline.core.motion import Motion
from worldline.runtime.conditions import Controls
from worldline.runtime.engine import World
from worldline.runtime.lane import InTurn
from worldline.runtime.session import Session

WALK: list[Controls] = [[("w",), (), ("l",)], None, [("s", "k")] * 3]
OTHER: Controls = [Motion(x=-1.0, yaw=0.3)] * 3  # what the hand had asked for before
CHUNKS = 5  # 15 latent frames through a window of 7: the ring wraps in the third
STEPS = 2
POLLS = 1 + STEPS + 2  # at the start, before each denoise pass, decoding and the context pass
SNOW: dict[str, Any] = {"prompt": "snow"}
PROMPTS = {2: "a frozen lake at night", 3: "a red hall"}
WORLDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "reanchored": {"reanchor_at": 6},
    "int8": {"options": EngineOptions(kv="8bit")},
    "levers": {"options": EngineOptions(lossy=("still_window=6", "sink_distance=10"))},
    "time order": {"without": {"ring_order", "first_chunk"}},
    "recached": {"options": EngineOptions(recache=True)},
}


class AbortAt:
    """Answers yes when it is asked for the `n`-th time, and counts how often it was asked."""

    def __init__(self, n: int) -> None:
        self.n = n
        self.asked = 0

    def __call__(self) -> bool:
        self.asked += 1
        return self.asked == self.n + 1


def start(world: World) -> Session:
    return world.start(tiny.picture(), tiny.PROMPT, 3, steps=STEPS, keep_latents=True)


def undisturbed(world: World) -> list[NDArray[np.uint8]]:
    with start(world) as session:
        return [
            session.step(WALK[i % 3], prompt=PROMPTS.get(i), blend_chunks=1 if i == 3 else 0).frames
            for i in range(CHUNKS)
        ]


def told(session: Session) -> tuple[object, ...]:
    """What a chunk changes of a session, all but the ring."""
    state = session.state
    return (
        state.next_chunk,
        state.camera,
        id(state.decoder),
        id(state.prompt),
        state.start,
        len(state.film or ()),
        state.kv._end,
    )


def give_up(session: Session, poll: int, controls: Controls, **asked: Any) -> None:
    """Abort the next chunk at one of its polls and see that nothing but the ring has changed."""
    before, aborted = told(session), AbortAt(poll)
    with pytest.raises(AbortedError):
        session.step(controls, aborted=aborted, **asked)
    assert aborted.asked == poll + 1
    assert told(session) == before
    assert len(session.engine.workspace) == 0


@pytest.mark.parametrize("name", WORLDS)
def test_aborting_at_every_pass_changes_no_bit(name: str) -> None:
    """Of every chunk, by other hands and with another prompt, before it is made as it should be."""
    plain = undisturbed(tiny.world(**WORLDS[name]))
    world = tiny.world(**WORLDS[name])
    with start(world) as session:
        for i, expected in enumerate(plain):
            asked: dict[str, Any] = {
                "prompt": PROMPTS.get(i),
                "blend_chunks": 1 if i == 3 else 0,
            }
            # Where the window's history is made anew, a chunk goes to its end: see below.
            polls = 1 if name == "recached" and i in PROMPTS else POLLS
            for poll in range(polls):
                give_up(session, poll, WALK[i % 3], **asked)
                give_up(session, poll, OTHER, **(asked if name == "recached" else SNOW))
            counted = AbortAt(-1)
            chunk = session.step(WALK[i % 3], aborted=counted, **asked)
            assert counted.asked == polls
            assert np.array_equal(chunk.frames, expected), f"chunk {i}"
        assert np.array_equal(np.concatenate(list(session.recording())), np.concatenate(plain))


def test_history_made_anew_cannot_be_taken_back() -> None:
    """Nor does it need to be: the chunk that has begun it succeeds."""
    options = EngineOptions(recache=True)
    plain = undisturbed(tiny.world(options=options))
    with start(tiny.world(options=options)) as session:
        for i, expected in enumerate(plain):
            late = AbortAt(1) if i in (2, 3) else AbortAt(-1)
            blend = 1 if i == 3 else 0
            chunk = session.step(
                WALK[i % 3], prompt=PROMPTS.get(i), blend_chunks=blend, aborted=late
            )
            assert np.array_equal(chunk.frames, expected), f"chunk {i}"


def test_a_turned_ring_is_turned_once() -> None:
    """Aborting the chunk that moves the origin of time does not move it again."""
    session = start(tiny.world(reanchor_at=6))
    session.step(WALK[0])
    session.step(WALK[0])
    anchors = set[int]()
    for poll in range(1, POLLS):
        give_up(session, poll, WALK[1])
        anchors.add(session.state.anchor)
    assert len(anchors) == 1 and anchors != {0}


class Paced(InTurn):
    """A lane that notes when it is waited for."""

    def __init__(self, order: list[str]) -> None:
        super().__init__()
        self._order = order

    def pace(self) -> None:
        self._order.append("wait")


def test_the_queue_is_kept_short_where_a_chunk_may_be_given_up() -> None:
    """The device has come near before each question; nobody waits for it where none is asked."""
    order: list[str] = []
    world = tiny.world()
    world.shared = world.shared._replace(lane=Paced(order))
    session = start(world)

    def aborted() -> bool:
        order.append("ask")
        return False

    session.step(WALK[0])
    assert order == []
    session.step(WALK[0], aborted=aborted)
    assert order == ["wait", "ask"] * POLLS


def test_after_frames_were_shown_nothing_is_given_up() -> None:
    shown: list[int] = []
    session = start(tiny.world())

    def aborted() -> bool:
        return bool(shown)  # the hand changes its mind when it sees the first picture

    chunk = session.step(
        WALK[0], aborted=aborted, on_frames=lambda part: shown.append(part.latent_frame)
    )
    assert shown == [0, 1, 2]
    assert chunk.index == 0 and session.next_chunk == 1


def test_the_ring_itself_is_equal_after_the_same_chunk() -> None:
    """Keys, values and the decoder's history bit for bit, not only the pictures of them."""
    plain, aborted = start(tiny.world()), start(tiny.world())
    for i in range(4):
        plain.step(WALK[i % 3])
        for poll in (2, POLLS - 1):
            give_up(aborted, poll, OTHER)
        aborted.step(WALK[i % 3])
        for a, b in zip(tensors(plain), tensors(aborted), strict=True):
            assert torch.equal(a, b)


def tensors(session: Session) -> Sequence[torch.Tensor]:
    state = session.state
    frames = state.kv.present_frames(state.next_frame)
    slots = getattr(state.decoder, "slots")  # noqa: B009  # of Wan's decoder
    return [*state.kv.take(frames), *(slot for slot in slots if slot is not None)]
