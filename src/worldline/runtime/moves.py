"""Sessions on their way to host memory or back, or along their walk, a piece at a time.

A large session is tens of gigabytes, and nobody else waits for all of it. One piece is moved after
every call that was answered, and piece after piece while nothing is asked; a call for the session
itself first brings its move to an end.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Generator, Iterator
from typing import NamedTuple

from worldline.core.errors import SessionClosedError
from worldline.runtime import protocol
from worldline.runtime.protocol import DoneReply, Reply

Tell = Callable[[Reply], None]  # sends a reply, or what comes before it


# What is moved piece by piece; a generator may return the reply, else it is `DoneReply`.
Pieces = Iterator[None] | Generator[None, None, Reply]


class _Move(NamedTuple):
    pieces: Pieces
    tell: Tell
    patient: bool


class Moves:
    """In the order they were asked for, one of a session at a time."""

    def __init__(self) -> None:
        self._moves: OrderedDict[str, _Move] = OrderedDict()

    def __len__(self) -> int:
        return len(self._moves)

    def __contains__(self, session_id: str) -> bool:
        return session_id in self._moves

    @property
    def patient(self) -> bool:
        """Whether the next piece may take long: it computes, or writes."""
        return bool(self._moves) and next(iter(self._moves.values())).patient

    def begin(self, session_id: str, pieces: Pieces, tell: Tell, *, patient: bool = False) -> None:
        """Move a session that is not being moved; `tell` gets the reply when it has ended.

        `patient` pieces may take long, each another time.
        """
        assert session_id not in self._moves, "the last move comes to its end first"
        self._moves[session_id] = _Move(pieces, tell, patient)

    def advance(self) -> None:
        """Move one piece of the session that asked first."""
        if self._moves:
            self._piece(next(iter(self._moves)))

    def finish(self, session_id: str) -> None:
        """Move all that is left of a session."""
        while session_id in self._moves:
            self._piece(session_id)

    def cancel(self, session_id: str) -> None:
        """Leave a session that is going to be closed where it was."""
        move = self._moves.pop(session_id, None)
        if move is not None:
            close = getattr(move.pieces, "close", None)  # generators have one
            if close is not None:
                close()
            move.tell(protocol.error_to_reply(SessionClosedError("closed while it was moved")))

    def cancel_all(self) -> None:
        """Leave everything that is on its way."""
        for session_id in list(self._moves):
            self.cancel(session_id)

    def _piece(self, session_id: str) -> None:
        move = self._moves[session_id]
        try:
            next(move.pieces)
            return
        except StopIteration as end:
            reply: Reply = end.value or DoneReply(session_id=session_id)
        except Exception as error:
            reply = protocol.error_to_reply(error)
        del self._moves[session_id]
        move.tell(reply)
