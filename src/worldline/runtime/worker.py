"""The worker process: loads the model, then answers one call after the other.

One thread owns the device and runs `rank_loop`; it knows nothing about sockets, clocks or users. A
second thread only moves bytes from the pipe into a queue, so that the end of the parent is noticed
while a chunk is computed. Torch is imported by the engine, here and nowhere in the parent.

Several ranks are several such processes. Rank 0 has the calls and tells the others what it does
(`feed`); they run `follow_loop`, answer nobody, and tell the parent only what each call came to.
"""

from __future__ import annotations

import importlib
import logging
import os
import queue
import shutil
import signal
import sys
import threading
from collections.abc import Callable
from multiprocessing.connection import Connection, wait
from multiprocessing.process import parent_process
from pathlib import Path
from typing import Any, Final, NamedTuple, NoReturn

from worldline.core.errors import WorkerError, WorldlineError
from worldline.runtime import protocol
from worldline.runtime.feed import Follower, Item, Leader, Order, Part, read_item
from worldline.runtime.progress import Cells, Stamps
from worldline.runtime.protocol import (
    Answer,
    Call,
    LoadProgress,
    Outcome,
    ReadyReply,
    Reply,
    ShutdownRequest,
    WorkerSettings,
    outcome_of,
)
from worldline.runtime.rank import EngineWorld, Rank

log = logging.getLogger("worldline.worker")
Send = Callable[[Answer], None]

LEFT: Final = 75  # exit code of a rank that ends because another one has
# What an autoencoder on a rank of its own needs, where torch is.
AUTOENCODER: Final = "worldline.runtime.parallel.vae_rank:work"
PASSES: Final = "worldline.runtime.parallel.vae_rank:passes"
ATTACH: Final = "worldline.runtime.parallel.far_vae:attach"
FAILED: Final = 70  # of one that cannot do what the others do


def passes_of(settings: WorkerSettings) -> int:
    """How many ranks share out the passes, and with them every call; they are the first ones."""
    return settings.ranks - (settings.own_vae and settings.ranks > 1)


def compiles(settings: WorkerSettings) -> bool:
    """Whether something may be compiled, recorded or measured whenever it is met first."""
    options = settings.options
    eager = (options.compile, options.graphs) == ("off", "off") and options.kernels != "triton"
    return settings.mode != "exact" or not eager


class Seat(NamedTuple):
    """What a process is given: its rank, its pipe to the parent, the stamps of all ranks.

    `feed` of rank 0 leads to the others, that of another rank comes from rank 0; in the folder
    `meeting` several ranks find each other.
    """

    rank: int
    pipe: Connection
    feed: list[Connection]
    board: Cells
    meeting: str | None


def rank_loop(
    rank: Rank, inbox: queue.SimpleQueue[Call], send: Send, *, part: Part | None = None
) -> None:
    """Answer calls in the order they came until `ShutdownRequest`; move what is to be moved.

    What is done here is told to the other ranks before it is done.
    """
    part = part or Part()
    while True:
        try:
            if not rank.moves:
                part.stamps.wait()
            call = inbox.get(block=not rank.moves)
        except queue.Empty:
            part.order(Order.MOVE)
            rank.advance()
            continue
        part.order(call)
        part.stamps.took()
        if isinstance(call.body, ShutdownRequest):
            return rank.close_all()
        reply = _answer_or_error(rank, call, send, part)
        if reply is not None:
            send(Answer(call.id, reply))
        if rank.moves:
            part.order(Order.MOVE)
            rank.advance()
        if inbox.empty():
            part.order(Order.PREPARE)
            rank.prepare()


def follow_loop(rank: Rank, send: Send, *, part: Follower) -> None:
    """Do what rank 0 does, until it says `ShutdownRequest`."""
    while True:
        item = part.next()
        if item is Order.MOVE:
            rank.advance()
        elif item is Order.PREPARE:
            rank.prepare()
        elif isinstance(item, Call):
            if isinstance(item.body, ShutdownRequest):
                return rank.close_all()
            reply = _answer_or_error(rank, item, send, part)
            if reply is not None:
                send(Answer(item.id, reply))


def main(settings: WorkerSettings, seat: Seat) -> None:
    """Entry of the process; never returns."""
    try:
        work(settings, seat)
    except OSError:  # the parent or another rank is gone
        leave(LEFT)
    leave(0)


def leave(code: int) -> NoReturn:
    """End the process: taking torch down in good order needs seconds and frees nothing more."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def work(settings: WorkerSettings, seat: Seat) -> None:
    """Load the model and answer calls until the parent says otherwise or is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # where it cannot be blocked: spawn.start_ranks
    logging.basicConfig(level=logging.INFO, format="%(levelname)s %(name)s: %(message)s")
    stamps = Stamps(seat.board, seat.rank, compiles=compiles(settings))
    if seat.rank >= passes_of(settings):
        return _decode(settings, seat, stamps)
    if seat.rank:
        return _follow(settings, seat, stamps)
    inbox: queue.SimpleQueue[Call] = queue.SimpleQueue()
    threading.Thread(target=_receive, args=(seat, inbox), name="calls", daemon=True).start()

    def send(answer: Answer) -> None:
        seat.pipe.send_bytes(protocol.encode(answer))

    part = Leader(seat.feed, stamps=stamps) if seat.feed else Part(stamps=stamps)
    world = _load(settings, seat, send)
    if world is not None:
        send(Answer(protocol.UNASKED, ReadyReply(info=world.info)))
        rank_loop(Rank(world, part), inbox, send, part=part)


def _follow(settings: WorkerSettings, seat: Seat, stamps: Stamps) -> None:
    """The same for another rank than 0, which answers with what each call came to."""
    orders: queue.SimpleQueue[Item] = queue.SimpleQueue()
    threading.Thread(
        target=_receive_orders, args=(seat, orders), name="orders", daemon=True
    ).start()
    part = Follower(seat.rank, settings.ranks, orders=orders, stamps=stamps)

    def send(answer: Answer) -> None:
        outcome = outcome_of(answer.body)
        if outcome is not None:
            seat.pipe.send_bytes(protocol.encode(Answer(answer.id, Outcome(what=outcome))))

    def refuse(answer: Answer) -> None:
        if isinstance(answer.body, protocol.ErrorReply):
            seat.pipe.send_bytes(protocol.encode(answer))

    world = _load(settings, seat, refuse)
    if world is not None:
        follow_loop(Rank(world, part), send, part=part)


def _decode(settings: WorkerSettings, seat: Seat, stamps: Stamps) -> None:
    """The rank of the autoencoder: does what is asked of it and knows no calls."""
    orders = _Unread(stamps)
    threading.Thread(
        target=_receive_orders, args=(seat, orders), name="orders", daemon=True
    ).start()
    try:
        _named(AUTOENCODER)(settings, _join(settings, seat), stamps)
    except WorkerError:
        raise OSError("another rank is gone") from None
    except Exception as error:
        if not isinstance(error, WorldlineError):
            log.exception("the autoencoder failed")
        reply = protocol.error_to_reply(error)
        seat.pipe.send_bytes(protocol.encode(Answer(protocol.UNASKED, reply)))


class _Unread(queue.SimpleQueue[Item]):
    """Takes the orders of a rank that none of them is for."""

    def __init__(self, stamps: Stamps) -> None:
        self._stamps = stamps

    def put(self, item: Item, block: bool = True, timeout: float | None = None) -> None:
        """Count it as taken: it waits for nothing."""
        del item, block, timeout
        self._stamps.took()


def _load(settings: WorkerSettings, seat: Seat, send: Send) -> EngineWorld | None:
    """The loaded model; None, and the parent knows, if it cannot be loaded."""
    try:
        return load_engine(settings, seat, send)
    except Exception as error:
        if not isinstance(error, WorldlineError):
            log.exception("loading %s failed", settings.model)
        send(Answer(protocol.UNASKED, protocol.error_to_reply(error)))
        return None


def load_engine(settings: WorkerSettings, seat: Seat, send: Send) -> EngineWorld:
    """Import the engine, join the other ranks if there are any, and load, reporting progress."""
    send(Answer(protocol.UNASKED, LoadProgress(stage="starting", done=0, total=0)))
    load = _named(settings.engine)
    device = settings.device_of(seat.rank)

    def report(done: int, total: int, stage: str) -> None:
        progress = LoadProgress(stage=stage, done=done, total=total)
        send(Answer(protocol.UNASKED, progress))

    whole = group = None if seat.meeting is None else _join(settings, seat)
    if passes_of(settings) < settings.ranks:
        group = _named(PASSES)(settings, whole)
    world: EngineWorld = load(
        settings.model,
        device=device,
        dtype=settings.dtype,
        mode=settings.mode,
        random_weights=settings.random_weights,
        threads=settings.threads,
        options=settings.options,
        progress=report,
        **({} if group is None else {"group": group}),
    )
    if group is not None:
        group.meet()
    if group is not whole:
        _named(ATTACH)(world, whole)
    return world


def _join(settings: WorkerSettings, seat: Seat) -> Any:
    """The group of all ranks, once they have found each other."""
    assert seat.meeting is not None, "several ranks meet somewhere"
    return _named(settings.join)(
        Path(seat.meeting, "store").as_uri(),
        rank=seat.rank,
        size=settings.ranks,
        device=settings.device_of(seat.rank),
    )


def _named(name: str) -> Callable[..., Any]:
    """What `module:attribute` stands for."""
    module, _, attribute = name.partition(":")
    return getattr(importlib.import_module(module), attribute)


def _receive(seat: Seat, inbox: queue.SimpleQueue[Call]) -> None:
    """Pipe to queue; when the parent is gone there is nobody to work for."""
    while True:
        try:
            call = protocol.decode_call(seat.pipe.recv_bytes())
        except (EOFError, OSError):
            if seat.meeting is not None:
                shutil.rmtree(seat.meeting, ignore_errors=True)
            os._exit(0)
        inbox.put(call)
        if isinstance(call.body, ShutdownRequest):
            return


def _receive_orders(seat: Seat, orders: queue.SimpleQueue[Item]) -> None:
    """What rank 0 says, to queue; without it, or without the parent, there is nothing to do."""
    (feed,), parent = seat.feed, parent_process()
    assert parent is not None, "ranks are children"
    try:
        while feed in wait([feed, parent.sentinel]):
            item = read_item(feed.recv_bytes())
            orders.put(item)
            if isinstance(item, Call) and isinstance(item.body, ShutdownRequest):
                return
    except (EOFError, OSError):
        pass
    os._exit(LEFT)


def _answer_or_error(rank: Rank, call: Call, send: Send, part: Part) -> Reply | None:
    """An error belongs to the call that caused it and to no other session.

    Not so among several ranks when it is nobody's input: the others may have gone on without this
    one, which therefore ends, and with it all of them.
    """
    try:
        return rank.answer(call.body, lambda reply: send(Answer(call.id, reply)))
    except WorldlineError as error:
        if part.size > 1 and isinstance(error, WorkerError):
            log.error("rank %d leaves: %s", part.rank, error)
            leave(LEFT)
        return protocol.error_to_reply(error)
    except Exception as error:
        log.exception("%s failed", type(call.body).__name__)
        if part.size > 1:
            leave(FAILED)
        return protocol.error_to_reply(error)
