"""An engine that begins again: when its worker dies another one is started, after a pause.

Sessions of the dead worker stay dead: their calls raise `WorkerDiedError`, which can be retried as
a new session. So do calls while there is no worker. Pauses double with every worker that did not
live long, and are short again once one did.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from typing import Final

from worldline.core.clock import Clock, MonotonicClock
from worldline.core.config import WorldInfo
from worldline.core.errors import WorldlineError
from worldline.runtime.film_calls import FilmCall, FilmClose, FilmOpen, FilmTurn
from worldline.runtime.handle import OnFrames, StepResult, WorkerHandle
from worldline.runtime.protocol import (
    Counts,
    OpenReply,
    OpenRequest,
    RewoundReply,
    SavedReply,
    StepRequest,
)

log = logging.getLogger("worldline.worker")

FIRST_PAUSE_S: Final = 1.0
LONGEST_PAUSE_S: Final = 60.0
LONG_LIFE_S: Final = 120.0  # a worker that lived so long did not die of how it was started

Start = Callable[[], WorkerHandle]


class SupervisedHandle:
    """An `EngineHandle` over one `WorkerHandle` after the other."""

    def __init__(
        self,
        first: WorkerHandle,
        start: Start,
        *,
        clock: Clock | None = None,
        pause: Callable[[float], bool] | None = None,
        on_restart: Callable[[], None] | None = None,
    ) -> None:
        """`first` is loaded; `start` makes another that is still loading.

        `pause` waits so many seconds and says whether to give up. `on_restart` is called in a
        thread of ours when another worker is ready.
        """
        self._start = start
        self._clock = clock or MonotonicClock()
        self._stop = threading.Event()
        self._pause = pause or self._stop.wait
        self._on_restart = on_restart
        self._lock = threading.Lock()  # guards what follows
        self._now = first
        self._coming: WorkerHandle | None = None  # the next one, while it loads
        self._owners: dict[str, WorkerHandle] = {}
        self._info = first.info
        self.restarts = 0
        self._thread = threading.Thread(target=self._watch, name="worker-supervisor", daemon=True)
        self._thread.start()

    @property
    def info(self) -> WorldInfo:
        """The loaded model, the last known while there is no worker."""
        with self._lock:
            return self._info

    def open(self, request: OpenRequest) -> OpenReply:
        """See `EngineHandle.open`."""
        handle = self._current()
        reply = handle.open(request)
        with self._lock:
            self._owners[request.session_id] = handle
        return reply

    def step(self, request: StepRequest, *, on_frames: OnFrames | None = None) -> StepResult:
        """See `EngineHandle.step`."""
        return self._owner(request.session_id).step(request, on_frames=on_frames)

    def abort(self, session_id: str) -> bool:
        """See `EngineHandle.abort`."""
        return self._owner(session_id).abort(session_id)

    def park(self, session_id: str) -> None:
        """See `EngineHandle.park`."""
        self._owner(session_id).park(session_id)

    def unpark(self, session_id: str) -> None:
        """See `EngineHandle.unpark`."""
        self._owner(session_id).unpark(session_id)

    def reset(self, session_id: str, seed: int | None = None) -> None:
        """See `EngineHandle.reset`."""
        self._owner(session_id).reset(session_id, seed)

    def snapshot(self, session_id: str, path: str) -> SavedReply:
        """See `EngineHandle.snapshot`."""
        return self._owner(session_id).snapshot(session_id, path)

    def rewind(self, session_id: str, chunk: int) -> RewoundReply:
        """See `EngineHandle.rewind`."""
        return self._owner(session_id).rewind(session_id, chunk)

    def branch(self, session_id: str, new_id: str, chunk: int | None = None) -> OpenReply:
        """See `EngineHandle.branch`."""
        handle = self._owner(session_id)
        reply = handle.branch(session_id, new_id, chunk)
        with self._lock:
            self._owners[new_id] = handle
        return reply

    def film(self, call: FilmCall) -> FilmTurn:
        """See `EngineHandle.film`; a film stays with its worker as a session does."""
        name = call.film_id
        if isinstance(call, FilmOpen):
            handle = self._current()
            turn = handle.film(call)
            with self._lock:
                self._owners[name] = handle
            return turn
        try:
            return self._owner(name).film(call)
        finally:
            if isinstance(call, FilmClose):
                with self._lock:
                    self._owners.pop(name, None)

    def counts(self) -> Counts:
        """See `EngineHandle.counts`."""
        return self._current().counts()

    def close(self, session_id: str) -> None:
        """See `EngineHandle.close`."""
        owner = self._owner(session_id)
        try:
            owner.close(session_id)
        finally:
            with self._lock:
                self._owners.pop(session_id, None)

    def lane(self, session_id: str) -> int:
        """There is one worker at a time."""
        return 0

    def alive(self) -> bool:
        """Whether there is a worker now."""
        with self._lock:
            return self._now.alive()

    def revives(self) -> bool:
        """Until it is shut down."""
        return not self._stop.is_set()

    def shutdown(self) -> None:
        """End the worker, and start none any more; idempotent."""
        self._stop.set()
        with self._lock:
            handles = [self._now, self._coming]
        for handle in handles:
            if handle is not None:
                handle.shutdown()
        self._thread.join()

    def _current(self) -> WorkerHandle:
        with self._lock:
            return self._now

    def _owner(self, session_id: str) -> WorkerHandle:
        """Who opened the session; a worker that died says so itself."""
        with self._lock:
            return self._owners.get(session_id, self._now)

    def _watch(self) -> None:
        """Supervisor thread: wait for an end, pause, start again, until told to stop."""
        pause_s = FIRST_PAUSE_S
        while True:
            began = self._clock.now()
            self._current().wait_until_ended()
            if self._clock.now() - began >= LONG_LIFE_S:
                pause_s = FIRST_PAUSE_S
            if self._stop.is_set():
                return
            ended = self._clock.now()
            log.error(
                "the worker has ended (%s); another starts in %g s", self._current().why, pause_s
            )
            if self._pause(pause_s) or self._stop.is_set():
                return
            pause_s = min(2 * pause_s, LONGEST_PAUSE_S)
            self._begin_again(ended)

    def _begin_again(self, ended: float) -> None:
        """Start a worker and take it once its model is loaded; what fails has ended by then.

        The last one `ended` at that time.
        """
        began = self._clock.now()
        try:
            handle = self._start()
        except OSError as error:  # no process, no pipe: there may be some later
            log.error("no worker could be started: %s", error)
            return
        with self._lock:
            self._coming = handle
        try:
            if self._stop.is_set():  # `shutdown` may have looked before this one was there
                return handle.shutdown()
            handle.wait_until_loaded()
        except WorldlineError as error:
            log.error("the worker could not load its model again: %s", error)
            return
        with self._lock:
            self._now, self._coming, self._info = handle, None, handle.info
            self.restarts += 1
            lost = sum(not owner.alive() for owner in self._owners.values())
        now = self._clock.now()
        log.warning(
            "another worker is ready after %.1f s, %.1f s of them loading; %d sessions were lost",
            now - ended,
            now - began,
            lost,
        )
        if self._on_restart is not None:
            self._on_restart()
