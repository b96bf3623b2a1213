"""Parking piece by piece: who else is on the device waits for one piece at most."""

from __future__ import annotations

import queue
from collections.abc import Iterator

import numpy as np
import pytest

from tests import tiny
from tests.runtime import fake_engine
from tests.runtime.fake_engine import CHUNK, HEIGHT, PIECES, WIDTH, open_request
from worldline.core.config import EngineOptions
from worldline.core.errors import SessionMissingError
from worldline.runtime.moves import Moves
from worldline.runtime.protocol import (
    Answer,
    Call,
    CloseRequest,
    CountRequest,
    Counts,
    DoneReply,
    ErrorReply,
    ParkRequest,
    Reply,
    Request,
    ResetRequest,
    ShutdownRequest,
    StepReply,
    StepRequest,
)
from worldline.runtime.rank import Rank
from worldline.runtime.shm import FrameSlots
from worldline.runtime.worker import rank_loop

IDLE = ((),) * CHUNK
PARK, BACK = ParkRequest(session_id="a"), ParkRequest(session_id="a", back=True)
COUNT, CLOSE = CountRequest(), CloseRequest(session_id="a")


def answered(*bodies: Request) -> list[tuple[int, Reply]]:
    """Replies in the order they were sent, by the number of the call, the two openings left out."""
    inbox: queue.SimpleQueue[Call] = queue.SimpleQueue()
    answers: list[Answer] = []
    calls = [open_request("a", seed=10), open_request("b", seed=50), *bodies, ShutdownRequest()]
    for number, body in enumerate(calls):
        inbox.put(Call(number - 1, body))
    rank_loop(Rank(fake_engine.FakeWorld()), inbox, answers.append)
    return [(answer.id, answer.body) for answer in answers[2:]]


def test_others_are_answered_between_the_pieces() -> None:
    """One piece after every call: the move of three ends after the third that follows it."""
    replies = answered(PARK, *[COUNT] * (PIECES + 2))
    order = [number for number, _ in replies]
    assert order == [2, 3, 4, 1, 5, 6]
    parked = [body.parked for _, body in replies if isinstance(body, Counts)]
    assert parked == [0, 0, 0, 1, 1]
    assert dict(replies)[1] == DoneReply(session_id="a")


def test_a_call_for_the_session_ends_its_move_first() -> None:
    slots = FrameSlots()
    size = (4 * CHUNK - 3) * HEIGHT * WIDTH * 3
    step = StepRequest(
        session_id="a", chunk_index=0, actions=IDLE, slot=slots.acquire(size, timeout_s=1)
    )
    try:
        for call, kind in ((step, StepReply), (ResetRequest(session_id="a"), DoneReply)):
            replies = answered(PARK, call)
            assert [number for number, _ in replies] == [1, 2]
            assert isinstance(replies[1][1], kind)
    finally:
        slots.close()


def test_a_move_back_waits_for_the_move_there() -> None:
    replies = answered(PARK, BACK, *[COUNT] * PIECES)
    assert [number for number, _ in replies] == [1, 3, 4, 5, 2]
    assert all(not isinstance(body, ErrorReply) for _, body in replies)


def test_a_session_that_is_closed_is_moved_no_further() -> None:
    replies = answered(PARK, CLOSE, COUNT)
    assert [number for number, _ in replies] == [1, 2, 3]
    refused = replies[0][1]
    assert isinstance(refused, ErrorReply) and refused.code == "session_closed"
    assert isinstance(replies[2][1], Counts) and replies[2][1].sessions == 1


def test_an_end_in_the_middle_of_a_move_is_an_end() -> None:
    replies = answered(PARK)
    assert [number for number, _ in replies] == [1]
    assert isinstance(replies[0][1], ErrorReply)


def test_what_fails_is_told_to_who_asked() -> None:
    def pieces() -> Iterator[None]:
        yield
        raise SessionMissingError("gone")

    told: list[Reply] = []
    moves = Moves()
    moves.begin("a", pieces(), told.append)
    moves.advance()
    assert told == [] and len(moves) == 1
    moves.advance()
    assert len(moves) == 0
    assert isinstance(told[0], ErrorReply) and told[0].code == SessionMissingError.code
    moves.advance()
    moves.cancel("a")
    assert len(told) == 1


@pytest.mark.parametrize("back", [False, True])
def test_a_move_that_is_not_finished_has_changed_nothing(back: bool) -> None:
    """At any piece, with chunks of another session in between."""
    with tiny.world().start(tiny.picture(), tiny.PROMPT, 3, steps=1) as session:
        plain = [session.step().frames for _ in range(4)]
    world = tiny.world(options=EngineOptions(timeline_mb=0))  # moments would be counted too
    session = world.start(tiny.picture(), tiny.PROMPT, 3, steps=1)
    other = world.start(tiny.picture(1), tiny.PROMPT, 4, steps=1)
    assert np.array_equal(session.step().frames, plain[0])
    if back:
        session.park()
    before = world.counts()
    for count in range(1, 4):  # of the frames: those of one chunk
        pieces = session.moving(back=back)
        for _ in range(count):
            next(pieces)
            other.step()
        pieces.close()  # type: ignore[attr-defined]
        assert session.parked == back and world.counts() == before
    assert [np.array_equal(session.step().frames, frames) for frames in plain[1:]] == [True] * 3
