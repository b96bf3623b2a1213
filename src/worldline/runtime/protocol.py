"""What crosses between the server process and the worker: typed messages and nothing else.

MessagePack of tagged structs over one pipe. The parent sends `Call(id, body)`, the worker answers
each with one `Answer` of the same id, in any order; a step that streams has `FramesReply` before.
Id 0 is for what nobody asked for (progress, ready, a failed load). Pixels never pass the pipe
towards the parent: the parent names a slot of shared memory in the call, the worker writes
`uint8 F H W 3` there and answers with the shape.
Torch-free, so that the server and the tests can import it at no cost.
"""

from __future__ import annotations

import zlib
from typing import Literal

import msgspec

from worldline.core.chunk import StageTimings
from worldline.core.config import WorldInfo
from worldline.core.errors import GenerationError, WorldlineError, error_classes
from worldline.core.motion import Motion, Pose, Rig
from worldline.runtime.film_calls import FilmAdvance, FilmClose, FilmClosed, FilmOpen, FilmReply
from worldline.runtime.settings import WorkerSettings as WorkerSettings
from worldline.runtime.slot import SlotRef as SlotRef

UNASKED = 0  # the id of messages that answer no call

# How a history that was not there was made: from all chunks since one whose bits are known, which
# gives the bits it had, or from those of the window alone, which comes near them; "" not at all.
Rebuilt = Literal["", "exact", "window"]


class OpenRequest(msgspec.Struct, frozen=True, kw_only=True, tag="open"):
    """Start a session. `image` is RGB, `image_height x image_width x 3` bytes, row by row.

    None leaves a number to the preset; sizes are pixels, `chunk`, `window`, `sink` latent frames.
    `intrinsics` are fx, fy, cx, cy of an 832x480 picture, `rig` is the camera's full speed. `loras`
    are names of adapters that the worker has, with their scales; None are those that all wear.
    With `light` (`core.snapshot`) the session opens at that snapshot's place, with its seed and
    texts; with `snapshot`, a `SnapshotRequest`'s file, at its. Not `sharded`, ranks compute all.
    """

    session_id: str
    image: bytes
    image_width: int
    image_height: int
    prompt: str
    seed: int = 42
    width: int | None = None
    height: int | None = None
    chunk: int | None = None
    window: int | None = None
    sink: int | None = None
    shift: float | None = None
    steps: int | None = None
    intrinsics: tuple[float, float, float, float] | None = None
    rig: Rig | None = None
    loras: tuple[tuple[str, float], ...] | None = None
    light: bytes | None = None
    snapshot: str | None = None
    sharded: bool = True


class StepRequest(msgspec.Struct, frozen=True, kw_only=True, tag="step"):
    """Generate the next chunk: one motion, or one tuple of action letters, per latent frame.

    `motions` win over `actions`. `prompt` not None switches the text from this chunk on, blended
    over `blend_chunks` chunks. `steps` makes this chunk with fewer denoise passes. With `keep` the
    reply has what the chunk adds to a light snapshot. A parked session comes back first. Callers
    leave `slot` and `stream` alone; the handle fills them.
    """

    session_id: str
    chunk_index: int
    actions: tuple[tuple[str, ...], ...] = ()
    motions: tuple[Motion, ...] | None = None
    prompt: str | None = None
    blend_chunks: int = 0
    steps: int | None = None
    keep: bool = False
    slot: SlotRef | None = None
    stream: bool = False


class ParkRequest(msgspec.Struct, frozen=True, kw_only=True, tag="park"):
    """Move a session's state to host memory, or `back`; to be there already is no error."""

    session_id: str
    back: bool = False


class ResetRequest(msgspec.Struct, frozen=True, kw_only=True, tag="reset"):
    """Back to the start picture and the first prompt; `seed` None keeps the seed."""

    session_id: str
    seed: int | None = None


class SnapshotRequest(msgspec.Struct, frozen=True, kw_only=True, tag="snapshot"):
    """Write the session as it stands to a file `path`, bit for bit; it can be stepped meanwhile.

    What is there is replaced when all of it is written, and not before.
    """

    session_id: str
    path: str


class RewindRequest(msgspec.Struct, frozen=True, kw_only=True, tag="rewind"):
    """Back to before chunk `chunk` of the walk; what came after it is forgotten."""

    session_id: str
    chunk: int


class BranchRequest(msgspec.Struct, frozen=True, kw_only=True, tag="branch"):
    """Another session, `new_id`, that stands where this one does, or before an earlier `chunk`.

    It takes nothing of the device until it is stepped.
    """

    session_id: str
    new_id: str
    chunk: int | None = None


class CountRequest(msgspec.Struct, frozen=True, kw_only=True, tag="count"):
    """What the worker holds now."""


class CloseRequest(msgspec.Struct, frozen=True, kw_only=True, tag="close"):
    """Drop all state of a session; an unknown session is no error."""

    session_id: str


class ShutdownRequest(msgspec.Struct, frozen=True, kw_only=True, tag="shutdown"):
    """Drop every session and leave."""


class OpenReply(msgspec.Struct, frozen=True, kw_only=True, tag="opened"):
    """The session as it really is: sizes in pixels, `chunk`, `window`, `sink` in latent frames.

    `intrinsics` are fx, fy, cx, cy of this size. The next step makes chunk `next_chunk`; `light` is
    the light snapshot of that place (empty where the engine keeps no timeline). `rebuilt` says how
    the history was made anew, see `Rebuilt`.
    """

    session_id: str
    width: int
    height: int
    fps: int
    chunk: int
    window: int
    sink: int
    steps: int
    intrinsics: tuple[float, float, float, float]
    rig: Rig
    next_chunk: int = 0
    light: bytes = b""
    rebuilt: Rebuilt = ""

    def frames_in_chunk(self, index: int) -> int:
        """Pixel frames of chunk `index`: `1 + 4(T-1)` for the first, `4T` for later ones."""
        return 4 * self.chunk - 3 if index == 0 else 4 * self.chunk

    def chunk_bytes(self, index: int) -> int:
        """Bytes of the frames of chunk `index`, uint8 `F H W 3`."""
        return self.frames_in_chunk(index) * self.height * self.width * 3


class FramesReply(msgspec.Struct, frozen=True, kw_only=True, tag="frames"):
    """Comes before the `StepReply` of a call with `stream`: these frames lie in the slot already.

    `count` frames from number `first` of the chunk on, which are latent frame `latent_frame`.
    """

    latent_frame: int
    first: int
    count: int
    pose: Pose


class StepReply(msgspec.Struct, frozen=True, kw_only=True, tag="stepped"):
    """The frames lie in the call's slot; `shape` is `(F, H, W, 3)`, `poses` per latent frame.

    `kept` is an encoded `core.snapshot.LightChunk`, where that was asked for.
    """

    session_id: str
    chunk_index: int
    shape: tuple[int, int, int, int]
    timings: StageTimings
    poses: tuple[Pose, ...] = ()
    kept: bytes = b""


class RewoundReply(msgspec.Struct, frozen=True, kw_only=True, tag="rewound"):
    """The session stands before `chunk`; `light` is its light snapshot there, as in `OpenReply`."""

    session_id: str
    chunk: int
    light: bytes = b""
    rebuilt: Rebuilt = ""


class SavedReply(msgspec.Struct, frozen=True, kw_only=True, tag="saved"):
    """A snapshot from before chunk `chunk` is written: a file of so many `bytes`."""

    session_id: str
    path: str
    bytes: int
    chunk: int


class DoneReply(msgspec.Struct, frozen=True, kw_only=True, tag="done"):
    """It has been done: parked, back, or reset."""

    session_id: str


class Counts(msgspec.Struct, frozen=True, kw_only=True, tag="counts"):
    """What a worker holds. Bytes are those of tensors; `slots` are mapped pieces of shared memory.

    `rings` are the memories of sessions on the device, in use or kept for the next visitor;
    `device_bytes` all that is allocated on the device (0 where it is the host's memory),
    `parked_bytes` what parked sessions take of the host. `moments` are places that sessions can go
    back to at once, and `moment_bytes` what these take of the host; what several of them share
    counts once. Then, since the worker began, how often sessions were moved to host memory and
    back, rewound, branched, rebuilt from light snapshots and written to files, and the time of the
    device's thread that all of each took together.
    """

    sessions: int = 0
    parked: int = 0
    slots: int = 0
    rings: int = 0
    ring_bytes: int = 0
    parked_bytes: int = 0
    device_bytes: int = 0
    moments: int = 0
    moment_bytes: int = 0
    parks: int = 0
    parks_ms: float = 0.0
    unparks: int = 0
    unparks_ms: float = 0.0
    rewinds: int = 0
    rewinds_ms: float = 0.0
    branches: int = 0
    branches_ms: float = 0.0
    rebuilds: int = 0
    rebuilds_ms: float = 0.0
    snapshots: int = 0
    snapshots_ms: float = 0.0


class CloseReply(msgspec.Struct, frozen=True, kw_only=True, tag="closed"):
    """The worker holds nothing of this session any more."""

    session_id: str


class ErrorReply(msgspec.Struct, frozen=True, kw_only=True, tag="error"):
    """A call failed; the code names the class that is raised again in the parent."""

    code: str
    message: str
    expected: str | None = None
    got: str | None = None


class Outcome(msgspec.Struct, frozen=True, kw_only=True, tag="outcome"):
    """What a call came to on a rank that answers nobody, see `outcome_of`."""

    what: str


class LoadProgress(msgspec.Struct, frozen=True, kw_only=True, tag="progress"):
    """Loading goes on: `done` of `total` (0 = unknown) of the named stage."""

    stage: str
    done: int
    total: int


class ReadyReply(msgspec.Struct, frozen=True, kw_only=True, tag="ready"):
    """The model is loaded; calls will be answered."""

    info: WorldInfo


Request = (
    OpenRequest
    | StepRequest
    | ParkRequest
    | ResetRequest
    | SnapshotRequest
    | RewindRequest
    | BranchRequest
    | CountRequest
    | CloseRequest
    | FilmOpen
    | FilmAdvance
    | FilmClose
    | ShutdownRequest
)
Reply = (
    OpenReply
    | FramesReply
    | StepReply
    | RewoundReply
    | SavedReply
    | DoneReply
    | Counts
    | CloseReply
    | FilmReply
    | FilmClosed
    | ErrorReply
    | LoadProgress
    | ReadyReply
    | Outcome
)


class Call(msgspec.Struct, frozen=True, array_like=True):
    """Parent to worker."""

    id: int
    body: Request


class Answer(msgspec.Struct, frozen=True, array_like=True):
    """Worker to parent."""

    id: int
    body: Reply


def encode(message: Call | Answer) -> bytes:
    """One message as bytes."""
    return msgspec.msgpack.encode(message)


def decode_call(data: bytes) -> Call:
    """Bytes from the parent; anything malformed is our own bug and raises msgspec's error."""
    return msgspec.msgpack.decode(data, type=Call)


def decode_answer(data: bytes) -> Answer:
    """Bytes from the worker."""
    return msgspec.msgpack.decode(data, type=Answer)


def outcome_of(reply: Reply) -> str | None:
    """What every rank must say alike of a call: its end, and the path the camera took.

    None for what comes before an end.
    """
    match reply:
        case FramesReply():
            return None
        case ErrorReply():
            return f"error {reply.code}"
        case StepReply():
            path = zlib.crc32(msgspec.msgpack.encode(reply.poses))
            return f"chunk {reply.chunk_index}, path {path:08x}"
        case _:
            return type(reply).__name__


def error_to_reply(error: Exception) -> ErrorReply:
    """Any exception as a reply; one that is not ours becomes a `GenerationError` that names it."""
    if isinstance(error, WorldlineError):
        return ErrorReply(
            code=error.code, message=error.message, expected=error.expected, got=error.got
        )
    if type(error).__name__ == "OutOfMemoryError":  # torch's class, without importing torch
        return ErrorReply(code="capacity", message="the device has no memory left for this call")
    return ErrorReply(code=GenerationError.code, message=f"{type(error).__name__}: {error}")


def reply_to_error(reply: ErrorReply) -> WorldlineError:
    """The exception a reply stands for, of the same class it had in the worker."""
    cls = error_classes().get(reply.code, GenerationError)
    return cls(reply.message, expected=reply.expected, got=reply.got)
