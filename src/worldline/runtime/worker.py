"""The worker process: loads the model, then answers one call after the other.

One thread owns the device and runs `rank_loop`; it knows nothing about sockets, clocks or users. A
second thread only moves bytes from the pipe into a queue, so that the end of the parent is noticed
while a chunk is computed. Torch is imported by the engine, here and nowhere in the parent.
"""

from __future__ import annotations

import importlib
import logging
import os
import queue
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from worldline.core.errors import WorldlineError
from worldline.runtime import protocol
from worldline.runtime.protocol import (
    Answer,
    Call,
    LoadProgress,
    ReadyReply,
    Reply,
    ShutdownRequest,
    WorkerSettings,
)
from worldline.runtime.rank import EngineWorld, Rank

log = logging.getLogger("worldline.worker")
Send = Callable[[Answer], None]


def rank_loop(rank: Rank, inbox: queue.SimpleQueue[Call], send: Send) -> None:
    """Answer calls in the order they came until `ShutdownRequest`; move what is to be moved."""
    while True:
        try:
            call = inbox.get(block=not rank.moves)
        except queue.Empty:
            rank.moves.advance()
            continue
        if isinstance(call.body, ShutdownRequest):
            return rank.close_all()
        reply = _answer_or_error(rank, call, send)
        if reply is not None:
            send(Answer(call.id, reply))
        rank.moves.advance()
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


def _answer_or_error(rank: Rank, call: Call, send: Send) -> Reply | None:
    """An error belongs to the call that caused it and to no other session."""
    try:
        return rank.answer(call.body, lambda reply: send(Answer(call.id, reply)))
    except WorldlineError as error:
        return protocol.error_to_reply(error)
    except Exception as error:
        log.exception("%s failed", type(call.body).__name__)
        return protocol.error_to_reply(error)
