"""Several engines of one model behind one handle: each session lives on one of them.

A session is placed where fewest are when it is first heard of, and stays there. A replica that has
died gets none until it is back and warm; the others go on as if nothing had happened. Sessions on
it end with `WorkerDiedError`, and one that is opened again is placed again.
"""

from __future__ import annotations

import logging
import threading
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

import msgspec

from worldline.core.config import WorldInfo
from worldline.core.errors import WorldlineError
from worldline.runtime.contract import EngineHandle, OnFrames
from worldline.runtime.film_calls import FilmCall, FilmClose, FilmOpen, FilmTurn
from worldline.runtime.protocol import (
    Counts,
    OpenReply,
    OpenRequest,
    RewoundReply,
    SavedReply,
    StepRequest,
)
from worldline.runtime.results import StepResult
from worldline.runtime.warming import walk

Make = Callable[[Callable[[], None]], EngineHandle]

log = logging.getLogger("worldline.worker")


class Replicas:
    """An `EngineHandle` over several, which are its own to end."""

    def __init__(
        self, makes: Sequence[Make], *, on_restart: Callable[[], None] | None = None
    ) -> None:
        """Each of `makes` makes a replica, given what to call when a worker has replaced its first.

        `on_restart` is called when there is a replica again after there was none.
        """
        assert makes, "there is at least one"
        self._on_restart = on_restart
        self._lock = threading.Lock()  # guards what follows
        self._homes: dict[str, int] = {}
        self._cold: set[int] = set()
        self._handles = [make(partial(self._revived, i)) for i, make in enumerate(makes)]

    def _revived(self, replica: int) -> None:
        """Another worker has taken over as this replica; returns once it is warm."""
        if not any(self._handles[i].alive() for i in self._all() if i != replica):
            if self._on_restart is not None:
                self._on_restart()
            return
        with self._lock:
            self._cold.add(replica)
        try:
            walk(self._handles[replica])
        except WorldlineError as error:  # it has died again, or will serve nobody well
            log.error("replica %d could not be warmed up: %s", replica, error)
        finally:
            with self._lock:
                self._cold.discard(replica)

    @property
    def info(self) -> WorldInfo:
        """The loaded model; memory is that of each of the `replicas`."""
        info = self._any().info
        count = len(self._handles)
        return msgspec.structs.replace(info, replicas=count, rings=count * info.rings)

    def lane(self, session_id: str) -> int:
        """See `EngineHandle.lane`; places the session if it has no place."""
        with self._lock:
            home = self._homes.get(session_id)
            if home is None:
                home = self._homes[session_id] = self._emptiest()
            return home

    def open(self, request: OpenRequest) -> OpenReply:
        """See `EngineHandle.open`."""
        return self._living(request.session_id).open(request)

    def step(self, request: StepRequest, *, on_frames: OnFrames | None = None) -> StepResult:
        """See `EngineHandle.step`."""
        return self._of(request.session_id).step(request, on_frames=on_frames)

    def abort(self, session_id: str) -> bool:
        """See `EngineHandle.abort`."""
        return self._of(session_id).abort(session_id)

    def park(self, session_id: str) -> None:
        """See `EngineHandle.park`."""
        self._of(session_id).park(session_id)

    def unpark(self, session_id: str) -> None:
        """See `EngineHandle.unpark`."""
        self._of(session_id).unpark(session_id)

    def reset(self, session_id: str, seed: int | None = None) -> None:
        """See `EngineHandle.reset`."""
        self._of(session_id).reset(session_id, seed)

    def snapshot(self, session_id: str, path: str) -> SavedReply:
        """See `EngineHandle.snapshot`."""
        return self._of(session_id).snapshot(session_id, path)

    def rewind(self, session_id: str, chunk: int) -> RewoundReply:
        """See `EngineHandle.rewind`."""
        return self._of(session_id).rewind(session_id, chunk)

    def branch(self, session_id: str, new_id: str, chunk: int | None = None) -> OpenReply:
        """See `EngineHandle.branch`; both are on the same replica."""
        home = self.lane(session_id)
        reply = self._handles[home].branch(session_id, new_id, chunk)
        with self._lock:
            self._homes[new_id] = home
        return reply

    def film(self, call: FilmCall) -> FilmTurn:
        """See `EngineHandle.film`; a film is placed as a session is, under its own name."""
        if isinstance(call, FilmOpen):
            return self._living(call.film_id).film(call)
        try:
            return self._of(call.film_id).film(call)
        finally:
            if isinstance(call, FilmClose):
                with self._lock:
                    self._homes.pop(call.film_id, None)

    def counts(self) -> Counts:
        """See `EngineHandle.counts`: all that live, together."""
        living = [handle for handle in self._handles if handle.alive()] or [self._handles[0]]
        told = [msgspec.structs.asdict(handle.counts()) for handle in living]
        return Counts(**{name: sum(one[name] for one in told) for name in told[0]})

    def close(self, session_id: str) -> None:
        """See `EngineHandle.close`."""
        with self._lock:
            home = self._homes.get(session_id)
        try:
            if home is not None:
                self._handles[home].close(session_id)
        finally:
            with self._lock:
                self._homes.pop(session_id, None)

    def alive(self) -> bool:
        """Whether any replica lives."""
        return any(handle.alive() for handle in self._handles)

    def revives(self) -> bool:
        """Whether any may come back."""
        return any(handle.revives() for handle in self._handles)

    def shutdown(self) -> None:
        """End all of them; idempotent."""
        ends = [threading.Thread(target=handle.shutdown) for handle in self._handles]
        for end in ends:
            end.start()
        for end in ends:
            end.join()

    def _all(self) -> range:
        return range(len(self._handles))

    def _any(self) -> EngineHandle:
        return next((handle for handle in self._handles if handle.alive()), self._handles[0])

    def _living(self, name: str) -> EngineHandle:
        """Where something is to be opened; placed again if that replica has died."""
        home = self.lane(name)
        if not self._handles[home].alive():
            with self._lock:
                self._homes.pop(name, None)
            home = self.lane(name)
        return self._handles[home]

    def _of(self, session_id: str) -> EngineHandle:
        """Who has the session; a stranger's name is refused by whoever is asked."""
        with self._lock:
            home = self._homes.get(session_id)
        return self._any() if home is None else self._handles[home]

    def _emptiest(self) -> int:
        """Where a new session should go: dead replicas last, cold ones before them. Locked."""
        sessions = Counter(self._homes.values())
        return min(
            self._all(),
            key=lambda i: (not self._handles[i].alive(), i in self._cold, sessions[i]),
        )
