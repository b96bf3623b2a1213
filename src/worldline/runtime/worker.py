"""The worker process: loads the model, then answers one call after the other.

One thread owns the device and runs `rank_loop`; it knows nothing about sockets, clocks or users. A
second thread only moves bytes from the pipe into a queue, so that the end of the parent is noticed
while a chunk is computed. Torch is imported by the engine, here and nowhere in the parent.
"""

from __future__ import annotations

import contextlib
import importlib
import logging
import os
import queue
import signal
import sys
import threading
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any, Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from worldline.core.chunk import Chunk
from worldline.core.config import WorldInfo
from worldline.core.errors import ImageError, SessionError, SessionMissingError, WorldlineError
from worldline.runtime import protocol
from worldline.runtime.protocol import (
    Answer,
    Call,
    CloseReply,
    CloseRequest,
    LoadProgress,
    OpenReply,
    OpenRequest,
    ReadyReply,
    Reply,
    ShutdownRequest,
    StepReply,
    StepRequest,
    WorkerSettings,
)
from worldline.runtime.shm import SlotWriter

log = logging.getLogger("worldline.worker")
Send = Callable[[Answer], None]


class EngineSession(Protocol):
    """What the worker needs of a session of the engine."""

    width: int
    height: int
    chunk: int
    window: int
    sink: int
    steps: int

    def step(
        self,
        controls: tuple[tuple[str, ...], ...],
        *,
        prompt: str | None = None,
        blend_chunks: int = 0,
    ) -> Chunk:
        """Generate the next chunk."""
        ...

    def prepare(self) -> None:
        """Do what the next chunk will need and can be had before its controls are known."""
        ...

    def close(self) -> None:
        """Drop everything the session holds."""
        ...


class EngineWorld(Protocol):
    """What the worker needs of a loaded model; `worldline.World` is one."""

    info: WorldInfo

    def start(
        self,
        image: NDArray[np.uint8],
        prompt: str,
        seed: int = 42,
        *,
        width: int | None = None,
        height: int | None = None,
        chunk: int | None = None,
        window: int | None = None,
        sink: int | None = None,
        shift: float | None = None,
        steps: int | None = None,
    ) -> EngineSession:
        """Start a session."""
        ...


class _Live:
    def __init__(self, session: EngineSession) -> None:
        self.session = session
        self.slots = SlotWriter()
        self.next_index = 0


class Rank:
    """The sessions of one loaded model; every method runs on the device thread."""

    def __init__(self, world: EngineWorld) -> None:
        self._world = world
        self._live: dict[str, _Live] = {}
        self._last: _Live | None = None

    def answer(self, body: protocol.Request) -> Reply:
        """The reply to one call. Raises whatever the engine raises."""
        if isinstance(body, OpenRequest):
            return self._open(body)
        if isinstance(body, StepRequest):
            return self._step(body)
        if isinstance(body, CloseRequest):
            return self._close(body)
        raise AssertionError(f"the loop must not pass on {body!r}")

    def prepare(self) -> None:
        """Do what the session stepped last can have done before its next chunk is asked for.

        An error is not lost: the chunk does the same work again and raises it to its caller.
        """
        live, self._last = self._last, None
        if live is not None:
            with contextlib.suppress(Exception):
                live.session.prepare()

    def close_all(self) -> None:
        """Drop every session."""
        for session_id in list(self._live):
            self._close(CloseRequest(session_id=session_id))

    def _open(self, request: OpenRequest) -> OpenReply:
        if request.session_id in self._live:
            raise SessionError("a session with this id is open", got=request.session_id)
        session = self._world.start(
            _picture(request),
            request.prompt,
            request.seed,
            width=request.width,
            height=request.height,
            chunk=request.chunk,
            window=request.window,
            sink=request.sink,
            shift=request.shift,
            steps=request.steps,
        )
        self._live[request.session_id] = _Live(session)
        return OpenReply(
            session_id=request.session_id,
            width=session.width,
            height=session.height,
            fps=self._world.info.fps,
            chunk=session.chunk,
            window=session.window,
            sink=session.sink,
            steps=session.steps,
        )

    def _step(self, request: StepRequest) -> StepReply:
        live = self._live.get(request.session_id)
        expected = 0 if live is None else live.next_index
        if live is None or request.chunk_index != expected:
            raise SessionMissingError(
                "no session stands before this chunk",
                expected=f"chunk {expected} of an open session",
                got=f"chunk {request.chunk_index} of session {request.session_id}",
            )
        assert request.slot is not None, "the handle names a slot in every step"
        chunk = live.session.step(
            request.actions, prompt=request.prompt, blend_chunks=request.blend_chunks
        )
        live.next_index += 1
        self._last = live
        started = time.perf_counter()
        live.slots.write(request.slot, chunk.frames)
        copied_ms = (time.perf_counter() - started) * 1000
        frames, height, width, _ = chunk.frames.shape
        return StepReply(
            session_id=request.session_id,
            chunk_index=chunk.index,
            shape=(frames, height, width, 3),
            timings=msgspec.structs.replace(
                chunk.timings,
                transfer_ms=chunk.timings.transfer_ms + copied_ms,
                total_ms=chunk.timings.total_ms + copied_ms,
            ),
        )

    def _close(self, request: CloseRequest) -> CloseReply:
        live = self._live.pop(request.session_id, None)
        if live is not None:
            if live is self._last:
                self._last = None
            live.slots.close()
            live.session.close()
        return CloseReply(session_id=request.session_id)


def rank_loop(rank: Rank, inbox: queue.SimpleQueue[Call], send: Send) -> None:
    """Answer calls in the order they came until `ShutdownRequest`."""
    while True:
        call = inbox.get()
        if isinstance(call.body, ShutdownRequest):
            return rank.close_all()
        send(Answer(call.id, _answer_or_error(rank, call.body)))
        if inbox.empty():
            rank.prepare()


def main(settings: WorkerSettings, pipe: Connection) -> None:
    """Entry of the process; never returns."""
    work(settings, pipe)
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(0)  # taking torch down in good order needs seconds and frees nothing more


def work(settings: WorkerSettings, pipe: Connection) -> None:
    """Load the model and answer calls until the parent says otherwise or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it cannot be blocked: spawn.start_worker
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    inbox: queue.SimpleQueue[Call] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(pipe, inbox), name="calls", daemon=True).start()

    def send(answer: Answer) -> None:
        pipe.send_bytes(protocol.encode(answer))

    try:
        world = load_engine(settings, send)
    except Exception as error:
        if not isinstance(error, WorldlineError):
            log.exception("loading %s failed", settings.model)
        send(Answer(protocol.UNASKED, protocol.error_to_reply(error)))
        return
    send(Answer(protocol.UNASKED, ReadyReply(info=world.info)))
    rank_loop(Rank(world), inbox, send)


def load_engine(settings: WorkerSettings, send: Send) -> EngineWorld:
    """Import the engine and load the model, reporting progress."""
    module, _, name = settings.engine.partition(":")
    send(Answer(protocol.UNASKED, LoadProgress(stage="starting", done=0, total=0)))
    load: Callable[..., Any] = getattr(importlib.import_module(module), name)

    def report(done: int, total: int, stage: str) -> None:
        progress = LoadProgress(stage=stage, done=done, total=total)
        send(Answer(protocol.UNASKED, progress))

    return load(
        settings.model,
        device=settings.device,
        dtype=settings.dtype,
        mode=settings.mode,
        random_weights=settings.random_weights,
        threads=settings.threads,
        options=settings.options,
        progress=report,
    )


def _receive(pipe: Connection, inbox: queue.SimpleQueue[Call]) -> None:
    """Pipe to queue; when the parent is gone there is nobody to work for."""
    while True:
        try:
            call = protocol.decode_call(pipe.recv_bytes())
        except (EOFError, OSError):
            os._exit(0)
        inbox.put(call)
        if isinstance(call.body, ShutdownRequest):
            return


def _answer_or_error(rank: Rank, body: protocol.Request) -> Reply:
    """An error belongs to the call that caused it and to no other session."""
    try:
        return rank.answer(body)
    except WorldlineError as error:
        return protocol.error_to_reply(error)
    except Exception as error:
        log.exception("%s failed", type(body).__name__)
        return protocol.error_to_reply(error)


def _picture(request: OpenRequest) -> NDArray[np.uint8]:
    """The start picture, uint8 `H W 3`."""
    shape = (request.image_height, request.image_width, 3)
    if min(shape) < 1 or len(request.image) != shape[0] * shape[1] * 3:
        raise ImageError(
            "the picture's bytes do not fit its size",
            expected=f"{shape[0]} x {shape[1]} x 3 bytes",
            got=f"{len(request.image)} bytes",
        )
    return np.frombuffer(request.image, dtype=np.uint8).reshape(shape)  # H W 3
