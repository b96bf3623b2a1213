"""The sessions of one loaded model, and the answer to each call: what runs on the device thread.

Knows nothing about processes and pipes. What it needs of the engine is written down in
`EngineWorld` and `EngineSession`; it never imports torch itself.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from typing import Protocol

import msgspec
import numpy as np
from numpy.typing import NDArray

from worldline.core.camera import Intrinsics
from worldline.core.chunk import Chunk, Decoded
from worldline.core.config import WorldInfo
from worldline.core.errors import ImageError, SessionError, SessionMissingError
from worldline.core.motion import Motion, Rig
from worldline.runtime import protocol
from worldline.runtime.feed import Part, Slots
from worldline.runtime.film_calls import FilmAdvance, FilmClose, FilmOpen, Films, FilmWorld
from worldline.runtime.moves import Moves, Tell
from worldline.runtime.progress import Stamps
from worldline.runtime.protocol import (
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
    SlotRef,
    StepReply,
    StepRequest,
)

MORE_CHUNKS = 4  # after a short window has filled: pictures are still encoded, kernels chosen


class EngineSession(Protocol):
    """What the worker needs of a session of the engine."""

    width: int
    height: int
    chunk: int
    window: int
    sink: int
    steps: int
    intrinsics: Intrinsics
    rig: Rig
    parked: bool

    def step(
        self,
        controls: tuple[tuple[str, ...], ...] | tuple[Motion, ...],
        *,
        prompt: str | None = None,
        blend_chunks: int = 0,
        steps: int | None = None,
        aborted: Callable[[], bool] | None = None,
        on_frames: Callable[[Decoded], None] | None = None,
    ) -> Chunk:
        """Generate the next chunk.

        `aborted` is asked between passes, `on_frames` is given what is decoded.
        """
        ...

    def moving(self, *, back: bool = False) -> Iterator[None]:
        """Move all state to host memory, or back, a piece at a time."""
        ...

    def reset(self, seed: int | None = None) -> None:
        """Back to the start picture."""
        ...

    def prepare(self) -> None:
        """Do what the next chunk will need and can be had before its controls are known."""
        ...

    def close(self) -> None:
        """Drop everything the session holds."""
        ...


class EngineWorld(FilmWorld, Protocol):
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
        intrinsics: Intrinsics | None = None,
        rig: Rig | None = None,
    ) -> EngineSession:
        """Start a session."""
        ...

    def counts(self) -> Counts:
        """What is held on the device and for parked sessions; it does not know who they are."""
        ...

    def watch(self, entered: Callable[[str], None]) -> None:
        """From now on call `entered` with every stage of a chunk that is begun."""
        ...


class _Live:
    def __init__(self, session: EngineSession, slots: Slots) -> None:
        self.session = session
        self.slots = slots
        self.next_index = 0

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
        return min(self.next_index, filled)


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
                return self._open(body)
            case StepRequest():
                return self._step(body, tell)
            case ParkRequest():
                return self._park(body, tell)
            case ResetRequest():
                return self._reset(body)
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
        self._stamps.begin("moving")
        self.moves.advance()

    def close_all(self) -> None:
        """Drop every session and film."""
        for session_id in list(self._live):
            self._close(CloseRequest(session_id=session_id))
        self._films.close_all()

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
            intrinsics=None if request.intrinsics is None else Intrinsics(*request.intrinsics),
            rig=request.rig,
        )
        self._live[request.session_id] = _Live(session, self._part.slots())
        return OpenReply(
            session_id=request.session_id,
            width=session.width,
            height=session.height,
            fps=self._world.info.fps,
            chunk=session.chunk,
            window=session.window,
            sink=session.sink,
            steps=session.steps,
            intrinsics=session.intrinsics,
            rig=session.rig,
        )

    def _step(self, request: StepRequest, tell: Tell) -> StepReply:
        self.moves.finish(request.session_id)
        live = self._live.get(request.session_id)
        expected = 0 if live is None else live.next_index
        if live is None or request.chunk_index != expected:
            raise SessionMissingError(
                "no session stands before this chunk",
                expected=f"chunk {expected} of an open session",
                got=f"chunk {request.chunk_index} of session {request.session_id}",
            )
        assert request.slot is not None, "the handle names a slot in every step"
        told = (request.prompt is not None, request.steps, live.session.parked)
        self._stamps.begin("step", (live.size, live.place, told))
        out = _Out(live.slots, request.slot, tell, self._stamps)
        chunk = live.session.step(
            request.actions if request.motions is None else request.motions,
            prompt=request.prompt,
            blend_chunks=request.blend_chunks,
            steps=request.steps,
            aborted=out.aborted,
            on_frames=out.take if request.stream else None,
        )
        live.next_index += 1
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
        )

    def _park(self, request: ParkRequest, tell: Tell) -> None:
        live = self._session(request.session_id)
        self.moves.begin(request.session_id, live.session.moving(back=request.back), tell)

    def _reset(self, request: ResetRequest) -> DoneReply:
        live = self._session(request.session_id)
        live.session.reset(request.seed)
        live.next_index = 0
        return DoneReply(session_id=request.session_id)

    def _session(self, session_id: str) -> _Live:
        self.moves.finish(session_id)
        live = self._live.get(session_id)
        if live is None:
            raise SessionMissingError("there is no such session", got=session_id)
        return live

    def _close(self, request: CloseRequest) -> CloseReply:
        self.moves.cancel(request.session_id)
        live = self._live.pop(request.session_id, None)
        if live is not None:
            if live is self._last:
                self._last = None
            live.slots.close()
            live.session.close()
        return CloseReply(session_id=request.session_id)


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
