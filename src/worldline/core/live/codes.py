"""The words and numbers of endings in `worldline.v1`: close codes, error codes, notices.

Every socket that we end has a close code between 4000 and 4999 and, before it, one message that
says why: `bye` for an end that is no failure, `error` with `fatal` for one that is. A close code is
4000 plus the HTTP status of the same meaning where there is one. The `code` of an `error` is that
of its class in `core.errors`. What breaks the rules of WebSocket itself is ended below us, without
a message: 1009 for a message that is too long to be read.
"""

from __future__ import annotations

import enum
from typing import Final, Literal

from msgspec import UNSET, UnsetType

from worldline.core.errors import WorldlineError
from worldline.core.live.server import Bye, Failure


class Close(enum.IntEnum):
    """Why a socket of `worldline.v1` was closed by the server."""

    COMPLETE = 4000  # the world had the length it was asked for
    LEFT = 4001  # its holder ended it, or a spectator left
    BAD_MESSAGE = 4400  # unusable messages, too many of them or the first one
    UNAUTHORIZED = 4401  # a token is missing or wrong
    FORBIDDEN = 4403  # this origin may not
    UNKNOWN_WORLD = 4404  # no world of that name or token, or not any more
    TIMED_OUT = 4408  # nothing was said in time
    TAKEN_OVER = 4409  # the same world was opened on another connection: do not come back
    OVER = 4410  # the world ended: idle, at the end of its lifetime, its holder gone
    TOO_MANY = 4429  # this client has its share
    BROKEN = 4500  # our fault, and the world is lost
    BUSY = 4503  # no place, or the server stops: come back later


NoticeCode = Literal[
    "idle",  # the world closes unless an input comes
    "lifetime",  # the world closes
    "holder_gone",  # the holder's connection is lost; the world waits for it, or for who asks
    "holder_back",  # it is there again
    "init_timeout",  # the socket closes unless `hello`, then `enter`, `rejoin` or `watch` comes
    "heartbeat",  # the socket counts as gone unless something is said
    "warming_up",  # the model is not ready yet
    "draining",  # the server stops; the world closes
    "control_asked",  # a viewer asks for the controls
    "recording_limit",  # a recording has ended by itself: its length, or the room for it
    "recording_failed",  # a recording has ended: it cannot be written, or there is no H.264 now
    "recovering",  # the worker is lost; the world waits for another and goes on where it was
    "recovered",  # it goes on
    "other_model",  # what made a world file is other here: the walk may look different
]
ByeCode = Literal[
    "complete", "left", "idle", "lifetime", "holder_gone", "taken_over", "draining", "stopped"
]

_CLOSE_OF_BYE: Final[dict[ByeCode, Close]] = {
    "complete": Close.COMPLETE,
    "left": Close.LEFT,
    "idle": Close.OVER,
    "lifetime": Close.OVER,
    "holder_gone": Close.OVER,
    "taken_over": Close.TAKEN_OVER,
    "draining": Close.BUSY,
    "stopped": Close.BUSY,
}
_CLOSES_OF_ERRORS: Final = frozenset(Close) - set(_CLOSE_OF_BYE.values()) | {Close.BUSY}
_BYES: Final[dict[ByeCode, str]] = {
    "complete": "the world has the length it was asked for",
    "left": "the world was left",
    "idle": "no input came for too long",
    "lifetime": "the world reached its maximum lifetime",
    "holder_gone": "whoever held the controls did not come back in time",
    "taken_over": "the world was opened on another connection",
    "draining": "the server is being stopped",
    "stopped": "the server has stopped",
}


def close_of(reason: WorldlineError | ByeCode) -> Close:
    """The close code that goes with an error, or with an end that is none."""
    if isinstance(reason, str):
        return _CLOSE_OF_BYE[reason]
    code = 4000 + reason.http_status
    return Close(code) if code in _CLOSES_OF_ERRORS else Close.BROKEN


def bye(code: ByeCode) -> Bye:
    """The last message before a close that is no failure."""
    return Bye(code=code, message=_BYES[code])


def failure(
    error: WorldlineError,
    *,
    id: int | None = None,
    fatal: bool = False,
    retry_after_ms: int | UnsetType = UNSET,
) -> Failure:
    """An error as it is told; `id` is the input it answers."""
    return Failure(
        code=error.code,
        message=error.message,
        retryable=error.retryable,
        fatal=fatal,
        id=UNSET if id is None else id,
        expected=UNSET if error.expected is None else error.expected,
        got=UNSET if error.got is None else error.got,
        retry_after_ms=retry_after_ms,
    )
