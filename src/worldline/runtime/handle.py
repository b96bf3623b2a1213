"""The only door to the engine: a blocking, thread-safe, torch-free proxy of the worker process.

`EngineHandle` is what the server depends on; `WorkerHandle` is the real one. Calls of several
threads interleave in the worker first come, first served. Errors raised in the worker are raised
again here as the same class. When the worker dies, every pending and later call raises
`WorkerDiedError`.
"""

from __future__ import annotations

import atexit
import contextlib
import functools
import itertools
import threading
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType
from typing import NamedTuple, Protocol, TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from worldline.core.chunk import StageTimings
from worldline.core.config import WorldInfo
from worldline.core.errors import SessionClosedError, SessionMissingError, WorkerDiedError
from worldline.runtime import protocol, spawn
from worldline.runtime.protocol import (
    Answer,
    Call,
    CloseReply,
    CloseRequest,
    ErrorReply,
    LoadProgress,
    OpenReply,
    OpenRequest,
    ReadyReply,
    Reply,
    Request,
    ShutdownRequest,
    SlotRef,
    StepReply,
    StepRequest,
    WorkerSettings,
)
from worldline.runtime.shm import FrameSlots

R = TypeVar("R")
Progress = Callable[[LoadProgress], None]
SLOT_WAIT_S = 60.0
_EXIT_LIMIT_S = 5.0


class StepResult:
    """One chunk; `frames` (uint8 `F H W 3`, RGB) is a view into a slot of shared memory.

    The pixels are valid until `release()`, or, if that is forgotten, for as long as `frames` or a
    view of it exists. A session has two slots: hold two results and its next `step` waits.
    """

    def __init__(
        self, reply: StepReply, frames: NDArray[np.uint8], give_back: Callable[[], None]
    ) -> None:
        self.session_id = reply.session_id
        self.index = reply.chunk_index
        self.timings: StageTimings = reply.timings
        self.frames = frames
        # Runs once, at release() or when the last view of the frames is gone.
        self._give_back = weakref.finalize(frames, give_back)
        self._give_back.atexit = False

    def release(self) -> None:
        """Give the slot back; idempotent. `frames` must not be read afterwards."""
        self.frames = np.empty((0, *self.frames.shape[1:]), dtype=np.uint8)  # 0 H W 3
        self._give_back()

    def __enter__(self) -> StepResult:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.release()


class EngineHandle(Protocol):
    """What the server needs of an engine. All calls block and are thread-safe."""

    @property
    def info(self) -> WorldInfo:
        """The loaded model."""
        ...

    def open(self, request: OpenRequest) -> OpenReply:
        """Start a session. Raises: InputError of any kind, CapacityError, WorkerDiedError."""
        ...

    def step(self, request: StepRequest) -> StepResult:
        """Generate the next chunk of a session.

        Raises: SessionMissingError (unknown session, or not its next chunk), ControlError,
        PromptError, CapacityError (no frame slot was given back in time, or no shared memory),
        GenerationError, WorkerDiedError.
        """
        ...

    def close(self, session_id: str) -> None:
        """Return once the engine holds nothing of the session; unknown sessions are ignored."""
        ...

    def alive(self) -> bool:
        """Whether calls can succeed."""
        ...

    def shutdown(self) -> None:
        """End the engine; idempotent."""
        ...


class _Session(NamedTuple):
    opened: OpenReply
    slots: FrameSlots


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
        self._pending: dict[int, Future[Reply]] = {}
        self._sessions: dict[str, _Session] = {}
        self._ids = itertools.count(protocol.UNASKED + 1)
        self._lock = threading.Lock()  # guards _pending and _sessions, and the moment of death
        self._sending = threading.Lock()
        self._ended = threading.Event()
        self._process, self._pipe = spawn.start_worker(settings)
        # Only the reader waits for the process: waitpid from two threads loses exit codes.
        self._reader = threading.Thread(target=self._read, name="worker-answers", daemon=True)
        self._reader.start()
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
        """Process id of the worker."""
        assert self._process.pid is not None, "the process is started in __init__"
        return self._process.pid

    def open(self, request: OpenRequest) -> OpenReply:
        """See `EngineHandle.open`."""
        reply = _unwrap(self._send(request).result(), OpenReply)
        with self._lock:
            if self._ended.is_set():
                raise self._died()
            self._sessions[request.session_id] = _Session(reply, FrameSlots())
        return reply

    def step(self, request: StepRequest) -> StepResult:
        """See `EngineHandle.step`."""
        with self._lock:
            session = self._sessions.get(request.session_id)
        if session is None:
            if not self.alive():
                raise self._died()
            raise SessionMissingError("there is no such session", got=request.session_id)
        slots = session.slots
        slot = self._slot(session, request.chunk_index)
        try:
            future = self._send(msgspec.structs.replace(request, slot=slot))
        except WorkerDiedError:
            slots.release(slot.index)
            raise
        try:
            reply = _unwrap(future.result(), StepReply)
            frames = slots.view(slot.index, reply.shape)
        except BaseException:
            # The worker may still write there (Ctrl-C), so the slot is free only when it answered.
            future.add_done_callback(lambda _: slots.release(slot.index))
            raise
        return StepResult(reply, frames, functools.partial(slots.release, slot.index))

    def close(self, session_id: str) -> None:
        """See `EngineHandle.close`."""
        with self._lock:
            session = self._sessions.pop(session_id, None)
        with contextlib.suppress(WorkerDiedError):  # a dead worker holds nothing
            _unwrap(self._send(CloseRequest(session_id=session_id)).result(), CloseReply)
        if session is not None:  # last: a step still in the worker's queue names one of these slots
            session.slots.close()

    def alive(self) -> bool:
        """Whether the worker runs and answers."""
        return not self._ended.is_set()

    def shutdown(self, *, limit_s: float = 5.0) -> None:
        """End the worker, by force after `limit_s`; idempotent. Pending calls: WorkerDiedError."""
        atexit.unregister(self.shutdown)
        if limit_s > 0:
            with contextlib.suppress(WorkerDiedError):
                self._send(ShutdownRequest())
            self._ended.wait(limit_s)
        if not self._ended.is_set():
            self._process.kill()
        self._reader.join()
        self._pipe.close()

    def _slot(self, session: _Session, chunk_index: int) -> SlotRef:
        size = session.opened.chunk_bytes(chunk_index)
        try:
            return session.slots.acquire(size, timeout_s=self._slot_wait_s)
        except SessionClosedError:
            if not self.alive():
                raise self._died() from None
            raise

    def _send(self, body: Request) -> Future[Reply]:
        """Put one call on its way; the future resolves to its reply, or fails with the worker."""
        future: Future[Reply] = Future()
        with self._lock:
            if self._ended.is_set():
                raise self._died()
            call = Call(next(self._ids), body)
            self._pending[call.id] = future
        data = protocol.encode(call)
        # A broken pipe needs no handling here: the reader sees the same end and fails the future.
        with self._sending, contextlib.suppress(OSError):
            self._pipe.send_bytes(data)
        return future

    def _read(self) -> None:
        """Reader thread: one answer after the other until the pipe ends."""
        try:
            while True:
                self._resolve(protocol.decode_answer(self._pipe.recv_bytes()))
        except (EOFError, OSError):
            self._process.join(_EXIT_LIMIT_S)  # the pipe ends a moment before the process
        finally:
            self._process.kill()  # nothing if it has ended
            self._process.join()
            self._fail_all()

    def _resolve(self, answer: Answer) -> None:
        body = answer.body
        if answer.id != protocol.UNASKED:
            with self._lock:
                future = self._pending.pop(answer.id)
            future.set_result(body)
        elif isinstance(body, LoadProgress):
            if self._on_progress is not None:
                self._on_progress(body)
        elif isinstance(body, ReadyReply):
            self._ready.set_result(body.info)
        elif isinstance(body, ErrorReply):
            self._ready.set_exception(protocol.reply_to_error(body))

    def _fail_all(self) -> None:
        with self._lock:
            self._ended.set()
            pending, self._pending = self._pending, {}
            sessions, self._sessions = self._sessions, {}
        for session in sessions.values():
            session.slots.close()
        for future in pending.values():
            future.set_exception(self._died())
        if not self._ready.done():
            self._ready.set_exception(self._died())

    def _died(self) -> WorkerDiedError:
        how = spawn.describe_exit(self._process.exitcode)
        return WorkerDiedError("the worker process has ended", got=how)


def _unwrap(reply: Reply, kind: type[R]) -> R:
    if isinstance(reply, ErrorReply):
        raise protocol.reply_to_error(reply)
    assert isinstance(reply, kind), f"expected {kind.__name__}, got {reply!r}"
    return reply
