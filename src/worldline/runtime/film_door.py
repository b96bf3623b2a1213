"""The parent's side of films: their calls, and the pictures out of shared memory. Thread-safe."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future
from typing import NamedTuple

import msgspec
import numpy as np

from worldline.core.errors import SessionMissingError, WorkerDiedError
from worldline.runtime.film_calls import (
    FilmAdvance,
    FilmCall,
    FilmClose,
    FilmOpen,
    FilmReply,
    FilmTurn,
)
from worldline.runtime.protocol import ErrorReply, Reply, reply_to_error
from worldline.runtime.shm import FrameSlots

SLOT_WAIT_S = 60.0


class _Open(NamedTuple):
    turn_bytes: int
    slots: FrameSlots


class FilmDoor:
    """Films of one worker. `send` puts a call on its way; its future fails with the worker."""

    def __init__(self, send: Callable[[FilmCall], Future[Reply]]) -> None:
        self._send = send
        self._lock = threading.Lock()  # guards `_films`
        self._films: dict[str, _Open] = {}

    def call(self, call: FilmCall) -> FilmTurn:
        """One call, to its end; pictures are the caller's own copy.

        Raises what the engine raises, `SessionMissingError` and `WorkerDiedError`.
        """
        if isinstance(call, FilmAdvance):
            return self._advance(call)
        if isinstance(call, FilmClose):
            return self._close(call)
        return self._open(call)

    def close(self) -> None:
        """The worker is gone: give all shared memory back."""
        with self._lock:
            films, self._films = self._films, {}
        for film in films.values():
            film.slots.close()

    def _open(self, call: FilmOpen) -> FilmTurn:
        reply = _film_of(self._send(call).result())
        with self._lock:
            self._films[call.film_id] = _Open(reply.turn_bytes, FrameSlots(1))
        return FilmTurn(reply)

    def _advance(self, call: FilmAdvance) -> FilmTurn:
        with self._lock:
            film = self._films.get(call.film_id)
        if film is None:
            raise SessionMissingError("there is no such film", got=call.film_id)
        slot = film.slots.acquire(film.turn_bytes, timeout_s=SLOT_WAIT_S)
        try:
            reply = _film_of(self._send(msgspec.structs.replace(call, slot=slot)).result())
            if reply.shape is None:
                return FilmTurn(reply)
            return FilmTurn(reply, np.array(film.slots.view(slot.index, reply.shape)))
        finally:
            film.slots.release(slot.index)

    def _close(self, call: FilmClose) -> FilmTurn:
        with self._lock:
            film = self._films.pop(call.film_id, None)
        with contextlib.suppress(WorkerDiedError):  # a dead worker holds nothing
            reply = self._send(call).result()
            if isinstance(reply, ErrorReply):
                raise reply_to_error(reply)
        if film is not None:
            film.slots.close()
        return FilmTurn(None)


def _film_of(reply: Reply) -> FilmReply:
    if isinstance(reply, ErrorReply):
        raise reply_to_error(reply)
    assert isinstance(reply, FilmReply), f"expected a film, got {reply!r}"
    return reply
