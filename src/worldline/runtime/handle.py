"""The only door to the engine: a blocking, thread-safe, torch-free proxy of the worker process.

`EngineHandle` is what the server depends on; `WorkerHandle` is the real one. Calls of several
threads interleave in the worker first come, first served. Errors raised in the worker are raised
again here as the same class. When the worker dies, every pending and later call raises
`WorkerDiedError`.
"""

from __future__ import annotations

import atexit
import contextlib
import itertools
import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future, InvalidStateError
from typing import NamedTuple, TypeVar

import msgspec

from worldline.core.config import WorldInfo
from worldline.core.errors import SessionClosedError, SessionMissingError, WorkerDiedError
from worldline.runtime import protocol
from worldline.runtime.contract import EngineHandle as EngineHandle
from worldline.runtime.contract import OnFrames as OnFrames
from worldline.runtime.film_calls import FilmCall, FilmTurn
from worldline.runtime.film_door import FilmDoor
from worldline.runtime.protocol import (
    Answer,
    BranchRequest,
    Call,
    CloseReply,
    CloseRequest,
    CountRequest,
    Counts,
    DoneReply,
    ErrorReply,
    FramesReply,
    LoadProgress,
    OpenReply,
    OpenRequest,
    ParkRequest,
    ReadyReply,
    Reply,
    Request,
    ResetRequest,
    RewindRequest,
    RewoundReply,
    SavedReply,
    ShutdownRequest,
    SlotRef,
    SnapshotRequest,
    StepReply,
    StepRequest,
    WorkerSettings,
)
from worldline.runtime.ranks import Ranks
from worldline.runtime.results import ComingChunk
from worldline.runtime.results import StepResult as StepResult
from worldline.runtime.shm import SLOTS_PER_SESSION as SLOTS_PER_SESSION
from worldline.runtime.shm import FrameSlots
from worldline.runtime.warming import MAX_CHUNKS as MAX_CHUNKS
from worldline.runtime.warming import enough_chunks as enough_chunks
from worldline.runtime.warming import grey as grey
from worldline.runtime.warming import turning as turning

R = TypeVar("R")
Progress = Callable[[LoadProgress], None]
SLOT_WAIT_S = 60.0


class _Session(NamedTuple):
    opened: OpenReply
    slots: FrameSlots
    running: set[int]  # slots of the steps on their way, one or none


class _Pending(NamedTuple):
    """A call on its way: its reply, and who wants to know what comes before it."""

    reply: Future[Reply]
    before: Callable[[FramesReply], None] | None


class WorkerHandle:
    """The engine in its own process. Make one with `spawn`; end it with `shutdown`.

    The constructor only starts the process: who has something else to do meanwhile calls
    `wait_until_loaded` after it, before anything else.
    """

    def __init__(
        self,
        settings: WorkerSettings,
        *,
        on_progress: Progress | None = None,
        slot_wait_s: float = SLOT_WAIT_S,
    ) -> None:
        self._on_progress = on_progress
        self._slot_wait_s = slot_wait_s
        self._ready: Future[WorldInfo] = Future()
        self._pending: dict[int, _Pending] = {}
        self._sessions: dict[str, _Session] = {}
        self._ids = itertools.count(protocol.UNASKED + 1)
        self._lock = threading.Lock()  # guards _pending and _sessions, and the moment of death
        self._sending = threading.Lock()
        self._ended = threading.Event()
        self._sent = 0  # calls that went to the worker
        self._films = FilmDoor(self._send)
        self._ranks = Ranks(
            settings, sent=lambda: self._sent, on_trouble=self._fail_all, on_refusal=self._refuse
        )
        # Only the reader waits for the processes: waitpid from two threads loses exit codes.
        self._reader = threading.Thread(target=self._read, name="worker-answers", daemon=True)
        self._reader.start()
        self._ranks.start()
        atexit.register(self.shutdown)

    @classmethod
    def spawn(
        cls,
        settings: WorkerSettings,
        *,
        on_progress: Progress | None = None,
        slot_wait_s: float = SLOT_WAIT_S,
        load_timeout_s: float | None = None,
    ) -> WorkerHandle:
        """Start a worker and return once its model is loaded.

        `on_progress` is called from another thread while it loads. `slot_wait_s` is how long a step
        waits for the reader to give a frame slot back.
        Raises: what loading raised (CheckpointError, ConfigError, ...), WorkerDiedError or
        TimeoutError.
        """
        handle = cls(settings, on_progress=on_progress, slot_wait_s=slot_wait_s)
        handle.wait_until_loaded(load_timeout_s)
        return handle

    def wait_until_loaded(self, limit_s: float | None = None) -> None:
        """Return once the model is loaded, or end the worker. Raises: see `spawn`."""
        try:
            self._ready.result(limit_s)
        except BaseException:  # also Ctrl-C: no worker may stay behind
            self.shutdown(limit_s=0)
            raise

    @property
    def info(self) -> WorldInfo:
        """The loaded model."""
        return self._ready.result(0)

    @property
    def pid(self) -> int:
        """Process id of the worker, of several ranks that of rank 0."""
        return self._ranks.pids[0]

    @property
    def pids(self) -> list[int]:
        """Process ids of all ranks, in order."""
        return self._ranks.pids

    def open(self, request: OpenRequest) -> OpenReply:
        """See `EngineHandle.open`."""
        return self._opened(self._send(request))

    def step(self, request: StepRequest, *, on_frames: OnFrames | None = None) -> StepResult:
        """See `EngineHandle.step`."""
        session = self._session(request.session_id)
        slot = self._slot(session, request.chunk_index)
        coming = ComingChunk.of(
            session.opened, request.chunk_index, slots=session.slots, index=slot.index
        )
        request = msgspec.structs.replace(request, slot=slot, stream=on_frames is not None)
        arrived: queue.SimpleQueue[FramesReply | None] = queue.SimpleQueue()
        future: Future[Reply] | None = None
        with self._lock:
            session.running.add(slot.index)
        try:
            future = self._send(request, before=arrived.put)
            future.add_done_callback(lambda _: arrived.put(None))
            while (frames := arrived.get()) is not None:
                if on_frames is not None:
                    on_frames(coming.part(frames))
            return coming.result(_unwrap(future.result(), StepReply))
        except BaseException:
            coming.give_up(future)
            raise
        finally:
            with self._lock:
                session.running.discard(slot.index)

    def abort(self, session_id: str) -> bool:
        """See `EngineHandle.abort`."""
        with self._lock:  # while it is held, a slot in `running` belongs to the same step
            session = self._sessions.get(session_id)
            if session is None:
                return False
            for index in session.running:
                session.slots.abort(index)
            return bool(session.running)

    def park(self, session_id: str) -> None:
        """See `EngineHandle.park`."""
        self._session(session_id)
        _unwrap(self._send(ParkRequest(session_id=session_id)).result(), DoneReply)

    def unpark(self, session_id: str) -> None:
        """See `EngineHandle.unpark`."""
        self._session(session_id)
        _unwrap(self._send(ParkRequest(session_id=session_id, back=True)).result(), DoneReply)

    def reset(self, session_id: str, seed: int | None = None) -> None:
        """See `EngineHandle.reset`."""
        self._session(session_id)
        _unwrap(self._send(ResetRequest(session_id=session_id, seed=seed)).result(), DoneReply)

    def snapshot(self, session_id: str, path: str) -> SavedReply:
        """See `EngineHandle.snapshot`."""
        self._session(session_id)
        request = SnapshotRequest(session_id=session_id, path=path)
        return _unwrap(self._send(request).result(), SavedReply)

    def rewind(self, session_id: str, chunk: int) -> RewoundReply:
        """See `EngineHandle.rewind`."""
        self._session(session_id)
        request = RewindRequest(session_id=session_id, chunk=chunk)
        return _unwrap(self._send(request).result(), RewoundReply)

    def branch(self, session_id: str, new_id: str, chunk: int | None = None) -> OpenReply:
        """See `EngineHandle.branch`."""
        self._session(session_id)
        request = BranchRequest(session_id=session_id, new_id=new_id, chunk=chunk)
        return self._opened(self._send(request))

    def film(self, call: FilmCall) -> FilmTurn:
        """See `EngineHandle.film`."""
        try:
            return self._films.call(call)
        except (SessionMissingError, SessionClosedError):
            if not self.alive():
                raise self._died() from None
            raise

    def counts(self) -> Counts:
        """See `EngineHandle.counts`."""
        return _unwrap(self._send(CountRequest()).result(), Counts)

    def close(self, session_id: str) -> None:
        """See `EngineHandle.close`."""
        with self._lock:
            session = self._sessions.pop(session_id, None)
        with contextlib.suppress(WorkerDiedError):  # a dead worker holds nothing
            _unwrap(self._send(CloseRequest(session_id=session_id)).result(), CloseReply)
        if session is not None:  # last: a step still in the worker's queue names one of these slots
            session.slots.close()

    def lane(self, session_id: str) -> int:
        """There is one worker at a time."""
        return 0

    def alive(self) -> bool:
        """Whether the worker runs and answers."""
        return not self._ended.is_set()

    def revives(self) -> bool:
        """Never: one worker is one handle. See `supervisor`."""
        return False

    @property
    def why(self) -> str:
        """How the worker ended, in words."""
        return self._ranks.why()

    def wait_until_ended(self) -> None:
        """Return once the worker has ended and every call has failed, whatever the reason."""
        self._reader.join()

    def shutdown(self, *, limit_s: float = 5.0) -> None:
        """End the worker, by force after `limit_s`; idempotent. Pending calls: WorkerDiedError."""
        atexit.unregister(self.shutdown)
        self._ranks.expect_end()
        if limit_s > 0:
            with contextlib.suppress(WorkerDiedError):
                self._send(ShutdownRequest())
            self._ended.wait(limit_s)
        if not self._ended.is_set():
            self._ranks.kill()
        self._reader.join()
        self._ranks.pipe.close()

    def _session(self, session_id: str) -> _Session:
        with self._lock:
            session = self._sessions.get(session_id)
        if session is None:
            if not self.alive():
                raise self._died()
            raise SessionMissingError("there is no such session", got=session_id)
        return session

    def _opened(self, coming: Future[Reply]) -> OpenReply:
        """Wait for a session that is being opened, and know it."""
        reply = _unwrap(coming.result(), OpenReply)
        with self._lock:
            if self._ended.is_set():
                raise self._died()
            self._sessions[reply.session_id] = _Session(reply, FrameSlots(), set())
        return reply

    def _slot(self, session: _Session, chunk_index: int) -> SlotRef:
        size = session.opened.chunk_bytes(chunk_index)
        try:
            return session.slots.acquire(size, timeout_s=self._slot_wait_s)
        except SessionClosedError:
            if not self.alive():
                raise self._died() from None
            raise

    def _send(
        self, body: Request, *, before: Callable[[FramesReply], None] | None = None
    ) -> Future[Reply]:
        """Put one call on its way; the future resolves to its reply, or fails with the worker.

        `before` is called in the reader's thread with what comes before the reply.
        """
        future: Future[Reply] = Future()
        with self._lock:
            if self._ended.is_set():
                raise self._died()
            call = Call(next(self._ids), body)
            self._pending[call.id] = _Pending(future, before)
        data = protocol.encode(call)
        # A broken pipe needs no handling here: the reader sees the same end and fails the future.
        with self._sending, contextlib.suppress(OSError):
            self._sent += 1
            self._ranks.pipe.send_bytes(data)
        return future

    def _read(self) -> None:
        """Reader thread: one answer after the other until the pipe ends."""
        try:
            while True:
                answer = protocol.decode_answer(self._ranks.pipe.recv_bytes())
                self._ranks.hear(answer)
                self._resolve(answer)
        except (EOFError, OSError):
            pass
        finally:
            self._ranks.end()
            self._fail_all()

    def _resolve(self, answer: Answer) -> None:
        body = answer.body
        if answer.id != protocol.UNASKED and self._ended.is_set():
            return  # it has failed already
        if isinstance(body, FramesReply):
            with self._lock:
                before = self._pending[answer.id].before
            assert before is not None, "frames that nobody asked for"
            before(body)
        elif answer.id != protocol.UNASKED:
            with self._lock:
                pending = self._pending.pop(answer.id)
            pending.reply.set_result(body)
        elif isinstance(body, LoadProgress):
            if self._on_progress is not None:
                self._on_progress(body)
        elif isinstance(body, ReadyReply):
            with contextlib.suppress(InvalidStateError):  # another rank has refused
                self._ready.set_result(body.info)
        elif isinstance(body, ErrorReply):
            self._refuse(body)

    def _refuse(self, error: ErrorReply) -> None:
        """A rank could not load."""
        with contextlib.suppress(InvalidStateError):  # so says every one of them
            self._ready.set_exception(protocol.reply_to_error(error))

    def _fail_all(self) -> None:
        with self._lock:
            self._ended.set()
            pending, self._pending = self._pending, {}
            sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            session.slots.close()
        self._films.close()
        for call in pending.values():
            call.reply.set_exception(self._died())
        with contextlib.suppress(InvalidStateError):
            self._ready.set_exception(self._died())

    def _died(self) -> WorkerDiedError:
        return WorkerDiedError("the worker process has ended", got=self._ranks.why())


def _unwrap(reply: Reply, kind: type[R]) -> R:
    if isinstance(reply, ErrorReply):
        raise protocol.reply_to_error(reply)
    assert isinstance(reply, kind), f"expected {kind.__name__}, got {reply!r}"
    return reply
