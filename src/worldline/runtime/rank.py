"""The sessions of one loaded model, and the answer to each call: what runs on the device thread.

Knows nothing about processes and pipes. What it needs of the engine is written down in
`EngineWorld` and `EngineSession`; it never imports torch itself.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Generator
from typing import TypeVar

import msgspec
import numpy as np
from numpy.typing import NDArray

from worldline.core.camera import Intrinsics
from worldline.core.chunk import Decoded
from worldline.core.errors import ImageError, SessionError, SessionMissingError, SnapshotError
from worldline.core.snapshot import LightSnapshot, decode_snapshot
from worldline.runtime import protocol, travels
from worldline.runtime.engine_shape import EngineSession as EngineSession
from worldline.runtime.engine_shape import EngineWorld as EngineWorld
from worldline.runtime.feed import Part, Slots
from worldline.runtime.film_calls import FilmAdvance, FilmClose, FilmOpen, Films
from worldline.runtime.moves import Moves, Tell
from worldline.runtime.progress import Stamps
from worldline.runtime.protocol import (
    BranchRequest,
    CloseReply,
    CloseRequest,
    CountRequest,
    Counts,
    DoneReply,
    FramesReply,
    OpenReply,
    OpenRequest,
    ParkRequest,
    Reply,
    ResetRequest,
    RewindRequest,
    SlotRef,
    SnapshotRequest,
    StepReply,
    StepRequest,
)

R = TypeVar("R", bound=Reply)
MORE_CHUNKS = 4  # after a short window has filled: pictures are still encoded, kernels chosen


class _Live:
    def __init__(self, session: EngineSession, slots: Slots) -> None:
        self.session = session
        self.slots = slots

    @property
    def size(self) -> tuple[int, ...]:
        """What the time of a stage depends on, beside where the session stands."""
        one = self.session
        return one.width, one.height, one.chunk, one.window, one.steps

    @property
    def place(self) -> int:
        """Where it stands, as far as that changes what a chunk costs: until all is full."""
        filled = (
            2 + max(self.session.window, MORE_CHUNKS * self.session.chunk) // self.session.chunk
        )
        return min(self.session.next_chunk, filled)


class _Out:
    """Where the frames of one step go; `ms` counts the time that copying them took."""

    def __init__(self, slots: Slots, slot: SlotRef, tell: Tell, stamps: Stamps) -> None:
        self._slots, self._slot, self._tell, self._stamps = slots, slot, tell, stamps
        self.ms = 0.0

    def aborted(self) -> bool:
        """Whether the parent wants this chunk no more."""
        self._stamps.beat()
        return self._slots.aborted(self._slot)

    def write(self, frames: NDArray[np.uint8], first: int) -> None:
        """Copy frames to their place in the slot."""
        started = time.perf_counter()
        self._slots.write(self._slot, frames, first=first)
        self.ms += (time.perf_counter() - started) * 1000

    def take(self, decoded: Decoded) -> None:
        """Copy frames and say so at once."""
        self._stamps.beat()
        self.write(decoded.frames, decoded.first)
        self._tell(
            FramesReply(
                latent_frame=decoded.latent_frame,
                first=decoded.first,
                count=len(decoded.frames),
                pose=decoded.pose,
            )
        )


class Rank:
    """The sessions of one loaded model; every method runs on the device thread."""

    def __init__(self, world: EngineWorld, part: Part | None = None) -> None:
        """`part` tells which of several ranks this is; by default it is alone."""
        self._world = world
        self._part = part or Part()
        self._stamps = self._part.stamps
        world.watch(self._stamps.enter)
        self._live: dict[str, _Live] = {}
        self._last: _Live | None = None
        self.moves = Moves()
        self._journal = travels.Journal()
        self._films = Films(
            world, fps=world.info.fps, pixels=self._part.slots, writes=self._part.rank == 0
        )

    def answer(self, body: protocol.Request, tell: Tell) -> Reply | None:
        """The reply to one call; `tell` sends frames ahead of it. Raises what the engine raises.

        None where `tell` will send the reply later, see `moves`.
        """
        self._stamps.begin("another call", type(body).__name__)
        match body:
            case OpenRequest():
                self._stamps.begin("opening", (body.width, body.height, body.window))
                return self._open(body, tell)
            case StepRequest():
                return self._step(body, tell)
            case ParkRequest():
                return self._park(body, tell)
            case ResetRequest():
                return self._reset(body)
            case SnapshotRequest():
                return self._write(body, tell)
            case RewindRequest():
                self._stamps.begin("walking again", patient=True)
                return self._rewind(body, tell)
            case BranchRequest():
                self._stamps.begin("walking again", patient=True)
                return self._branch(body, tell)
            case CountRequest():
                return self.counts()
            case CloseRequest():
                return self._close(body)
            case FilmOpen() | FilmAdvance() | FilmClose():
                self._stamps.begin("film", patient=True)
                return self._films.answer(body)
            case _:
                raise AssertionError(f"the loop must not pass on {body!r}")

    def counts(self) -> Counts:
        """What is held now."""
        live = self._live.values()
        return msgspec.structs.replace(
            self._world.counts(),
            sessions=len(live),
            parked=sum(one.session.parked for one in live),
            slots=sum(len(one.slots) for one in live),
            **self._journal.totals,
        )

    def prepare(self) -> None:
        """Do what the session stepped last can have done before its next chunk is asked for.

        An error is not lost: the chunk does the same work again and raises it to its caller.
        """
        live, self._last = self._last, None
        if live is not None:
            self._stamps.begin("preparing", (live.size, live.place))
            with contextlib.suppress(Exception):
                live.session.prepare()

    def advance(self) -> None:
        """Move a piece of what is to be moved."""
        self._stamps.begin("moving", patient=self.moves.patient)
        self.moves.advance()

    def close_all(self) -> None:
        """Drop every session and film."""
        for session_id in list(self._live):
            self._close(CloseRequest(session_id=session_id))
        self.moves.cancel_all()
        self._films.close_all()

    def _open(self, request: OpenRequest, tell: Tell) -> OpenReply | None:
        self._check_new(request.session_id)
        light = None if request.light is None else decode_snapshot(request.light)
        session = self._begun(request) if request.snapshot is None else self._reopened(request)
        self._live[request.session_id] = _Live(session, self._part.slots())
        if light is None:
            return travels.opened(request.session_id, session, fps=self._world.info.fps)
        pieces = self._journal.timed("rebuilds", self._standing(request.session_id, light))
        return self._travel(request.session_id, pieces, tell)

    def _standing(self, session_id: str, light: LightSnapshot) -> Generator[None, None, OpenReply]:
        """Bring a session that has just begun to a light snapshot's place, or drop it."""
        live = self._live[session_id]
        try:
            rebuilt = yield from live.session.restoring(light)
        except BaseException:
            self._drop(session_id)
            raise
        fps = self._world.info.fps
        return travels.opened(session_id, live.session, fps=fps, rebuilt=rebuilt)

    def _begun(self, request: OpenRequest) -> EngineSession:
        return self._world.start(
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
            intrinsics=None if request.intrinsics is None else Intrinsics(*request.intrinsics),
            rig=request.rig,
            loras=request.loras,
            sharded=request.sharded,
        )

    def _reopened(self, request: OpenRequest) -> EngineSession:
        if request.light is not None:
            raise SnapshotError("one place to open a session at", got="a light one and a file")
        assert request.snapshot is not None, "the caller looked"
        return self._world.reopen(request.snapshot, sharded=request.sharded, loras=request.loras)

    def _check_new(self, session_id: str) -> None:
        if session_id in self._live:
            raise SessionError("a session with this id is open", got=session_id)

    def _step(self, request: StepRequest, tell: Tell) -> StepReply:
        self._settle(request.session_id)
        live = self._live.get(request.session_id)
        expected = 0 if live is None else live.session.next_chunk
        if live is None or request.chunk_index != expected:
            raise SessionMissingError(
                "no session stands before this chunk",
                expected=f"chunk {expected} of an open session",
                got=f"chunk {request.chunk_index} of session {request.session_id}",
            )
        assert request.slot is not None, "the handle names a slot in every step"
        told = (request.prompt is not None, request.steps, live.session.parked)
        kin = None if live.session.parked else live.size
        self._stamps.begin("step", (live.size, live.place, told), kin=kin)
        out = _Out(live.slots, request.slot, tell, self._stamps)
        chunk = live.session.step(
            request.actions if request.motions is None else request.motions,
            prompt=request.prompt,
            blend_chunks=request.blend_chunks,
            steps=request.steps,
            aborted=out.aborted,
            on_frames=out.take if request.stream else None,
        )
        self._last = live
        if not request.stream:
            out.write(chunk.frames, 0)
        frames, height, width, _ = chunk.frames.shape
        return StepReply(
            session_id=request.session_id,
            chunk_index=chunk.index,
            shape=(frames, height, width, 3),
            timings=msgspec.structs.replace(
                chunk.timings,
                transfer_ms=chunk.timings.transfer_ms + out.ms,
                total_ms=chunk.timings.total_ms + (0.0 if request.stream else out.ms),
            ),
            poses=chunk.poses,
            kept=live.session.last_chunk().encode() if request.keep else b"",
        )

    def _park(self, request: ParkRequest, tell: Tell) -> None:
        live = self._session(request.session_id)
        moving = live.session.moving(back=request.back)
        pieces = self._journal.timed("unparks" if request.back else "parks", moving)
        self.moves.begin(request.session_id, pieces, tell)

    def _reset(self, request: ResetRequest) -> DoneReply:
        live = self._session(request.session_id)
        live.session.reset(request.seed)
        return DoneReply(session_id=request.session_id)

    def _write(self, request: SnapshotRequest, tell: Tell) -> None:
        """Take the snapshot now, and write it while the session runs on."""
        live, place = self._session(request.session_id), f"file {request.path}"
        if self._world.info.ranks > 1:
            raise SnapshotError("a session of several ranks is not written", expected="one rank")
        self.moves.finish(place)
        pieces = self._journal.timed("snapshots", travels.written(live.session, request))
        next(pieces)
        self.moves.begin(place, pieces, tell, patient=True)

    def _rewind(self, request: RewindRequest, tell: Tell) -> Reply | None:
        live = self._session(request.session_id)
        pieces = self._journal.timed("rewinds", travels.rewound(live.session, request))
        return self._travel(request.session_id, pieces, tell)

    def _branch(self, request: BranchRequest, tell: Tell) -> Reply | None:
        live = self._session(request.session_id)
        self._check_new(request.new_id)
        pieces = self._journal.timed("branches", self._branching(live, request))
        return self._travel(request.session_id, pieces, tell)

    def _branching(self, live: _Live, request: BranchRequest) -> Generator[None, None, OpenReply]:
        made, rebuilt = yield from live.session.branching(request.chunk)
        try:
            self._check_new(request.new_id)  # somebody may have come meanwhile
            fps = self._world.info.fps
            reply = travels.opened(request.new_id, made, fps=fps, rebuilt=rebuilt)
        except BaseException:
            made.close()
            raise
        self._live[request.new_id] = _Live(made, self._part.slots())
        return reply

    def _travel(self, session_id: str, pieces: Generator[None, None, R], tell: Tell) -> R | None:
        """Go piece by piece, as sessions are moved; where ranks work together, all at once.

        They compute together, so all of them have to do it between the same two calls.
        """
        if self._world.info.ranks > 1:
            return travels.at_once(pieces)
        self.moves.begin(session_id, pieces, tell, patient=True)
        return None

    def _settle(self, session_id: str) -> None:
        """Bring what moves a session to its end."""
        if session_id in self.moves:
            self._stamps.begin("moving", patient=True)
            self.moves.finish(session_id)

    def _session(self, session_id: str) -> _Live:
        self._settle(session_id)
        live = self._live.get(session_id)
        if live is None:
            raise SessionMissingError("there is no such session", got=session_id)
        return live

    def _close(self, request: CloseRequest) -> CloseReply:
        self.moves.cancel(request.session_id)
        self._drop(request.session_id)
        return CloseReply(session_id=request.session_id)

    def _drop(self, session_id: str) -> None:
        live = self._live.pop(session_id, None)
        if live is not None:
            if live is self._last:
                self._last = None
            live.slots.close()
            live.session.close()


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
