"""Stand-ins for what is slow or far away: the engine, time, and the other end of a socket.

`FakeHandle` keeps every rule of `EngineHandle` that the server relies on (chunk order, two frame
slots a session, frames that are invalid after release) and counts what was given and taken back.
"""

from __future__ import annotations

import asyncio
import heapq
import itertools
import threading
from pathlib import Path
from typing import Final, NamedTuple

import msgspec

from tests.fake_session import CountedResult, FakeSession, controls_of, parts_of
from tests.fake_session import fake_info as fake_info
from worldline.core.camera import DEFAULT_INTRINSICS, Intrinsics, scale_intrinsics
from worldline.core.chunk import StageTimings
from worldline.core.config import WorldInfo
from worldline.core.errors import (
    AbortedError,
    ConfigError,
    SessionError,
    SessionMissingError,
    WorkerDiedError,
)
from worldline.core.motion import Rig
from worldline.runtime.film_calls import FilmCall, FilmTurn
from worldline.runtime.handle import OnFrames, StepResult
from worldline.runtime.protocol import (
    Counts,
    OpenReply,
    OpenRequest,
    RewoundReply,
    SavedReply,
    StepReply,
    StepRequest,
)
from worldline.server.outbox import SocketClosed

LIMIT_S: Final = 20.0  # real seconds after which a wait in a test is a failure, not patience


class FakeHandle:
    """An `EngineHandle` in memory. Steps wait for permission while `hold()` is in force.

    A step that waits can be aborted: it fails when it is allowed, and the session stands before it.
    """

    def __init__(self, info: WorldInfo | None = None) -> None:
        self._info = info or fake_info()
        self.sessions: dict[str, FakeSession] = {}
        self.opened: list[OpenRequest] = []
        self.closed: list[str] = []
        self.results: list[CountedResult] = []
        self.requests: list[StepRequest] = []  # every step that was answered
        self.calls: list[tuple[str, str]] = []  # parks, unparks, resets and aborts, in order
        self.running = 0
        self.fail_open: Exception | None = None
        self.fail_step: tuple[int, Exception] | None = None  # chunk index, error
        self.dead = self.reviving = False
        self._lock = threading.Lock()
        self._permits: threading.Semaphore | None = None
        self.open_gate = threading.Event()
        self.open_gate.set()
        self.close_gate = threading.Event()
        self.close_gate.set()
        self.closed_too_early: list[tuple[bool, list[int]]] = []  # stepping, release counts
        self.entered = threading.Semaphore(0)  # one permit for every step that began
        self.opening = threading.Semaphore(0)  # and for every opening

    @property
    def info(self) -> WorldInfo:
        """The made-up model."""
        return self._info

    def hold(self) -> None:
        """From now on every step needs a permit from `allow`."""
        self._permits = threading.Semaphore(0)

    @property
    def holding(self) -> bool:
        """Whether steps need permits."""
        return self._permits is not None

    def allow(self, steps: int = 1) -> None:
        """Let so many steps run."""
        assert self._permits is not None, "hold() first"
        self._permits.release(steps)

    def open(self, request: OpenRequest) -> OpenReply:
        """Start a session once `open_gate` is open, or raise `fail_open` once."""
        self.opening.release()
        assert self.open_gate.wait(LIMIT_S), "nobody opened open_gate"
        with self._lock:
            self._check_alive()
            self.opened.append(request)
            if self.fail_open is not None:
                error, self.fail_open = self.fail_open, None
                raise error
            session = FakeSession(request, self._reply(request))
            return self._begin(session)

    def step(self, request: StepRequest, *, on_frames: OnFrames | None = None) -> StepResult:
        """The next chunk, once allowed; raises `fail_step` at its chunk."""
        with self._lock:
            self._check_alive()
            session = self.sessions.get(request.session_id)
            if session is None or request.chunk_index != session.next_chunk:
                raise SessionMissingError("not the next chunk", got=request.chunk_index)
            controls = controls_of(request)
            assert len(controls) == session.reply.chunk, controls
            self.running += 1
            session.stepping, session.aborted, session.parked = True, False, False
        self.entered.release()
        if self._permits is not None:
            assert self._permits.acquire(timeout=LIMIT_S), "nobody allowed this step"
        with self._lock:
            self.running -= 1
            session.stepping = False
            self._check_alive()
            if self.fail_step is not None and self.fail_step[0] == request.chunk_index:
                raise self.fail_step[1]
            if session.aborted:
                raise AbortedError("the chunk was given up", got=request.chunk_index)
            result = self._result(session, request)
        if on_frames is not None:
            for decoded in parts_of(result):
                on_frames(decoded)
        return result

    def abort(self, session_id: str) -> bool:
        """Let the running step fail once it is allowed."""
        with self._lock:
            self.calls.append(("abort", session_id))
            session = self.sessions.get(session_id)
            if session is None or not session.stepping:
                return False
            session.aborted = True
            return True

    def park(self, session_id: str) -> None:
        """Note that the session is parked; its next step brings it back."""
        self._call("park", session_id).parked = True

    def unpark(self, session_id: str) -> None:
        """Note that it is back."""
        self._call("unpark", session_id).parked = False

    def reset(self, session_id: str, seed: int | None = None) -> None:
        """Begin again, with the same seed or another."""
        session = self._call("reset", session_id)
        session.reset(session.seed if seed is None else seed)

    def snapshot(self, session_id: str, path: str) -> SavedReply:
        """Write the session's light snapshot; `open` takes it for an exact one."""
        light = self._call("snapshot", session_id).light
        size = Path(path).write_bytes(light.encode())
        return SavedReply(session_id=session_id, path=path, bytes=size, chunk=light.next_chunk)

    def rewind(self, session_id: str, chunk: int) -> RewoundReply:
        """Stand before an earlier chunk of the walk."""
        session = self._call("rewind", session_id)
        session.rewind(chunk)
        light = session.light.encode()
        return RewoundReply(session_id=session_id, chunk=chunk, light=light, rebuilt="exact")

    def branch(self, session_id: str, new_id: str, chunk: int | None = None) -> OpenReply:
        """Another session that stands there."""
        session = self._call("branch", session_id)
        with self._lock:
            if new_id in self.sessions:
                raise SessionError("a session with this id is open", got=new_id)
            reply = msgspec.structs.replace(session.reply, session_id=new_id)
            return self._begin(session.branch(reply, chunk))

    def _begin(self, session: FakeSession) -> OpenReply:
        session.reply = msgspec.structs.replace(
            session.reply,
            next_chunk=session.next_chunk,
            light=session.light.encode(),
            rebuilt="exact" if session.next_chunk else "",
        )
        self.sessions[session.reply.session_id] = session
        return session.reply

    def film(self, call: FilmCall) -> FilmTurn:
        """It makes none."""
        raise ConfigError("the fake engine makes no films", got=type(call).__name__)

    def counts(self) -> Counts:
        """Sessions, parked ones, and results that were not given back."""
        with self._lock:
            self._check_alive()
            return Counts(
                sessions=len(self.sessions),
                parked=sum(session.parked for session in self.sessions.values()),
                slots=sum(result.released == 0 for result in self.results),
            )

    def _call(self, name: str, session_id: str) -> FakeSession:
        with self._lock:
            self._check_alive()
            self.calls.append((name, session_id))
            session = self.sessions.get(session_id)
            if session is None:
                raise SessionMissingError("there is no such session", got=session_id)
            assert not session.stepping, f"{name} during a step"
            return session

    def close(self, session_id: str) -> None:
        """Forget a session, once `close_gate` is open."""
        assert self.close_gate.wait(LIMIT_S), "nobody opened close_gate"
        with self._lock:
            mine = [r for r in self.results if r.session_id == session_id]
            session = self.sessions.get(session_id)
            stepping = session is not None and session.stepping
            if stepping or any(r.released != 1 for r in mine):
                self.closed_too_early.append((stepping, [r.released for r in mine]))
            self.sessions.pop(session_id, None)
            self.closed.append(session_id)

    def asked(self, seed: int) -> int:
        """Chunks generated for the sessions of one seed."""
        ids = {request.session_id for request in self.opened if request.seed == seed}
        return sum(request.session_id in ids for request in self.requests)

    def lane(self, session_id: str) -> int:
        """There is one device."""
        return 0

    def alive(self) -> bool:
        """Until `die`."""
        return not self.dead

    def revives(self) -> bool:
        """Whether a test says so."""
        return self.reviving

    def die(self) -> None:
        """End the worker: waiting steps and all later calls raise WorkerDiedError."""
        self.dead = True
        if self._permits is not None:
            self._permits.release(100)

    def shutdown(self) -> None:
        """Same as dying, on purpose."""
        self.die()

    def nothing_is_left(self) -> None:
        """Assert that every session was closed and every result released exactly once."""
        assert self.sessions == {}
        assert self.running == 0
        assert self.closed_too_early == []
        assert [result.released for result in self.results] == [1] * len(self.results)

    def _check_alive(self) -> None:
        if self.dead:
            raise WorkerDiedError("the worker process has ended", got="exit code 9")

    def _reply(self, request: OpenRequest) -> OpenReply:
        info = self._info
        width, height = request.width or info.width, request.height or info.height
        k = DEFAULT_INTRINSICS if request.intrinsics is None else Intrinsics(*request.intrinsics)
        return OpenReply(
            session_id=request.session_id,
            width=width,
            height=height,
            intrinsics=scale_intrinsics(k, width, height),
            rig=request.rig or Rig(),
            fps=info.fps,
            chunk=request.chunk or info.chunk,
            window=request.window or info.window,
            sink=info.sink if request.sink is None else request.sink,
            steps=info.steps,
        )

    def _result(self, session: FakeSession, request: StepRequest) -> StepResult:
        session.next_chunk += 1
        self.requests.append(request)
        frames = session.frames(request)
        timings = StageTimings(conditions_ms=1.2, denoise_ms=20.6, decode_ms=9.5, total_ms=31.3)
        reply = StepReply(
            session_id=request.session_id,
            chunk_index=request.chunk_index,
            shape=frames.shape,  # pyright: ignore[reportArgumentType]
            timings=timings,
            poses=session.poses(request),
        )
        kept = session.keep(request)
        if request.keep:
            reply = msgspec.structs.replace(reply, kept=kept)
        result = CountedResult(reply, frames)
        self.results.append(result)
        return result


class Sleeper(NamedTuple):
    """A task asleep on the fake clock; `order` keeps the heap from comparing futures."""

    until: float
    order: int
    asked: float
    future: asyncio.Future[None]


class FakeClock:
    """Time that moves only when told to, and by `tick` seconds whenever someone looks.

    Sleepers wake in order as `advance` passes them.
    """

    def __init__(self, tick: float = 0.0) -> None:
        self._now = 1000.0
        self._tick = tick
        self._order = itertools.count()
        self._sleepers: list[Sleeper] = []
        self._slept = asyncio.Condition()

    def now(self) -> float:
        """Seconds."""
        self._now += self._tick
        return self._now

    @property
    def sleeping(self) -> list[float]:
        """What the tasks asleep now asked for, in seconds."""
        return [sleeper.asked for sleeper in self._sleepers if not sleeper.future.done()]

    async def sleep(self, seconds: float) -> None:
        """Wait for `advance`."""
        future: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        until = self._now + seconds
        heapq.heappush(self._sleepers, Sleeper(until, next(self._order), seconds, future))
        async with self._slept:
            self._slept.notify_all()
        await future

    async def until_sleeping(self, seconds: float) -> None:
        """Wait until some task sleeps that asked for about so many seconds."""
        async with asyncio.timeout(LIMIT_S), self._slept:
            await self._slept.wait_for(lambda: any(abs(s - seconds) < 1e-6 for s in self.sleeping))

    async def advance(self, seconds: float) -> None:
        """Let `seconds` pass, waking each sleeper at its time and letting it run."""
        await settle()  # who is about to sleep does so from now on, not from some time later
        end = self._now + seconds
        while self._sleepers and self._sleepers[0].until <= end + 1e-9:
            sleeper = heapq.heappop(self._sleepers)
            self._now = sleeper.until
            if not sleeper.future.done():
                sleeper.future.set_result(None)
                await settle()
        self._now = end


async def settle(rounds: int = 50) -> None:
    """Let every task that can run without threads or sockets run."""
    for _ in range(rounds):
        await asyncio.sleep(0)


class FakeTransport:
    """Keeps what was written; a send waits while `blocked`, and fails once `gone`."""

    def __init__(self) -> None:
        self.sent: list[bytes] = []
        self.closed: tuple[int, str] | None = None
        self.gone = False
        self.open = asyncio.Event()
        self.open.set()

    async def send(self, data: bytes | memoryview) -> None:
        """Keep one message."""
        await self.open.wait()
        if self.gone:
            raise SocketClosed
        self.sent.append(bytes(data))

    async def close(self, code: int, reason: str) -> None:
        """Keep the close frame."""
        if self.gone:
            raise SocketClosed
        self.closed = (code, reason)
