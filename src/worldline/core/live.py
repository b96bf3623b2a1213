"""The wire of `worldline.v1`: every message of our own dialect, in both directions; the one source.

One binary WebSocket message is one MessagePack map with a `type`. AsyncAPI, JSON Schema and the
client's TypeScript types are generated from these structs (`tools/schema.py`) and checked in CI.
Unknown fields are ignored by both sides, unknown types are refused with `error`. Times that end in
`_ms` are milliseconds; `at_ms` is the sender's own monotonic clock, `server_ms` the server's.

    C hello            -> S ready                      the limits, the model, what it can send
    C enter            -> S seat | queued | error      within 100 ms; then `opened`, then frames
    C rejoin / watch   -> S seat, opened | error       the same world again, or somebody else's
    C input (any `id`) -> S received, later applied    or `error` with that id, and nothing changed
    S frame ...        -> C playhead, shown            how far ahead it plays, and what was seen
"""

from __future__ import annotations

from typing import Annotated, Final, Literal

import msgspec
from msgspec import UNSET, Meta, UnsetType

SUBPROTOCOL: Final = "worldline.v1"
VERSION: Final = 1

InputId = Annotated[int, Meta(ge=1, le=2**32 - 1)]
Count = Annotated[int, Meta(ge=0, le=2**32 - 1)]
Ms = Annotated[float, Meta(ge=0, le=2**53)]
Unit = Annotated[float, Meta(ge=-1, le=1)]
Degrees = Annotated[float, Meta(ge=-3600, le=3600)]
Name = Annotated[str, Meta(max_length=128)]
Secret = Annotated[str, Meta(max_length=4096)]
Text = Annotated[str, Meta(min_length=1, max_length=4096)]
Action = Literal["w", "a", "s", "d", "i", "j", "k", "l"]
Format = Literal["h264", "jpeg", "webp", "raw"]
State = Literal["queued", "opening", "live", "paused", "parked", "draining", "closed"]
Matrix = Annotated[tuple[float, ...], Meta(min_length=12, max_length=12)]


class _Message(msgspec.Struct, frozen=True, kw_only=True, tag_field="type", omit_defaults=True):
    """A map on the wire; what has its default value is left out."""


# ---- client to server ---------------------------------------------------------------------------


class Hello(_Message, kw_only=True, tag="hello"):
    """The first message. `token` is the key of a server that asks for one (never in the URL)."""

    version: int = VERSION
    client: Name = ""
    token: Secret | None = None
    formats: Annotated[tuple[Format, ...], Meta(max_length=8)] = ("jpeg",)


class Enter(_Message, kw_only=True, tag="enter"):
    """Start a world. `image` holds an encoded picture; sizes in pixels, None is the model's.

    `lead_ms` is how much video the client wants queued ahead; `speed` scales every motion.
    `intrinsics` are fx, fy, cx, cy of an 832x480 picture.
    """

    prompt: Text
    image: Annotated[bytes, Meta(max_length=32 * 2**20)]
    seed: Annotated[int, Meta(ge=0, le=2**53)] = 42
    width: Annotated[int, Meta(ge=16, le=8192)] | None = None
    height: Annotated[int, Meta(ge=16, le=8192)] | None = None
    window: Annotated[int, Meta(ge=1, le=4096)] | None = None
    sink: Annotated[int, Meta(ge=0, le=4096)] | None = None
    format: Format = "jpeg"
    quality: Annotated[int, Meta(ge=0, le=100)] = 0
    lead_ms: Ms | None = None
    speed: Annotated[float, Meta(ge=0, le=1)] = 1.0
    intrinsics: tuple[float, float, float, float] | None = None
    max_chunks: InputId | None = None
    spectators: bool = True


class Rejoin(_Message, kw_only=True, tag="rejoin"):
    """Come back to the world that `token` (from `seat`) belongs to, within its grace time."""

    token: Secret
    format: Format = "jpeg"


class Watch(_Message, kw_only=True, tag="watch"):
    """See somebody else's world: `world` is the id it shares."""

    world: Name
    format: Format = "jpeg"


class _Input(_Message, kw_only=True):
    """What a hand does. `id` is the client's counter, rising; `at_ms` when it happened there."""

    id: InputId
    at_ms: Ms = 0.0


class Keys(_Input, kw_only=True, tag="keys"):
    """The keys held from now on; the newest such message holds, an empty one lets go of all."""

    held: Annotated[tuple[Action, ...], Meta(max_length=8)]


class Pad(_Input, kw_only=True, tag="pad"):
    """Sticks as they stand: shares of full speed. `x` right, `z` ahead, `yaw` right, `pitch` up."""

    x: Unit = 0.0
    z: Unit = 0.0
    yaw: Unit = 0.0
    pitch: Unit = 0.0


class Pointer(_Input, kw_only=True, tag="pointer"):
    """A turn of the view by so many degrees, right and up; walked off at most at full speed."""

    yaw: Degrees = 0.0
    pitch: Degrees = 0.0


class Script(_Input, kw_only=True, tag="script"):
    """Actions per latent frame, then standing still; replaces what the hands hold."""

    frames: Annotated[tuple[tuple[Action, ...], ...], Meta(min_length=1, max_length=512)]


class Camera(_Input, kw_only=True, tag="camera"):
    """A path: camera-to-world rows (3x4) at `rate` poses per second of video, relative to now.

    It is resampled to latent frames and clipped at full speed; `loop` begins again at its end.
    """

    poses: Annotated[tuple[Matrix, ...], Meta(min_length=2, max_length=4096)]
    rate: Annotated[float, Meta(gt=0, le=1000)] = 16.0
    loop: bool = False


class Release(_Input, kw_only=True, tag="release"):
    """Let go of everything: keys, sticks, pending turns, scripts and paths."""


class Settings(_Input, kw_only=True, tag="settings"):
    """Change what holds from now on; None leaves it."""

    speed: Annotated[float, Meta(ge=0, le=1)] | None = None
    lead_ms: Ms | None = None
    format: Format | None = None
    quality: Annotated[int, Meta(ge=0, le=100)] | None = None
    bitrate_kbps: Annotated[int, Meta(ge=50, le=100_000)] | None = None


class Prompt(_Input, kw_only=True, tag="prompt"):
    """New words, from the next chunk on; blended over so many chunks."""

    text: Text
    blend_chunks: Annotated[int, Meta(ge=0, le=64)] = 0


class Pause(_Input, kw_only=True, tag="pause"):
    """Stop generating after the chunk in flight; the world stays."""


class Resume(_Input, kw_only=True, tag="resume"):
    """Go on after a pause."""


class Reset(_Input, kw_only=True, tag="reset"):
    """Back to the start picture, with the same seed or a new one."""

    seed: Annotated[int, Meta(ge=0, le=2**53)] | None = None


class Record(_Input, kw_only=True, tag="record"):
    """Begin or end a recording on the server."""

    on: bool


class Trace(_Input, kw_only=True, tag="trace"):
    """Begin or end a Chrome trace of this session."""

    on: bool


class AskControl(_Input, kw_only=True, tag="ask_control"):
    """A spectator asks for the controls."""


class GiveControl(_Input, kw_only=True, tag="give_control"):
    """The holder gives the controls to a viewer that asked."""

    viewer: Name


class Playhead(_Message, kw_only=True, tag="playhead"):
    """What is on screen: running number of the frame, queued video ahead of it, stalls so far."""

    frame: Count
    lead_ms: Ms
    at_ms: Ms
    stalls: Count = 0
    dropped: Count = 0


class Shown(_Message, kw_only=True, tag="shown"):
    """The first frame that shows input `id` was painted at `at_ms`; the parts are the client's."""

    id: InputId
    frame: Count
    at_ms: Ms
    received_ms: Ms
    decoded_ms: Ms


class KeyFrame(_Message, kw_only=True, tag="key_frame"):
    """The decoder lost its thread and needs an IDR."""


class Ping(_Message, kw_only=True, tag="ping"):
    """Heartbeat and clock: answered at once by `pong`."""

    at_ms: Ms


class Leave(_Message, kw_only=True, tag="leave"):
    """End the world (its holder) or stop watching (a spectator)."""


HandMessage = Keys | Pad | Pointer | Script | Camera | Release
Input = (
    HandMessage
    | Settings
    | Prompt
    | Pause
    | Resume
    | Reset
    | Record
    | Trace
    | AskControl
    | GiveControl
)
ClientMessage = Hello | Enter | Rejoin | Watch | Input | Playhead | Shown | KeyFrame | Ping | Leave


# ---- server to client ---------------------------------------------------------------------------


class Limits(msgspec.Struct, frozen=True, kw_only=True):
    """What the server allows. Counts, bytes and milliseconds; 0 for a time means no limit."""

    max_message_bytes: int
    max_image_pixels: int
    max_prompt_chars: int
    max_script_frames: int
    inputs_per_second: int
    worlds_per_client: int
    max_viewers: int
    max_lead_ms: int
    heartbeat_ms: int
    init_timeout_ms: int
    idle_lease_ms: int
    grace_ms: int
    max_lifetime_ms: int


class RigSpeed(msgspec.Struct, frozen=True, kw_only=True):
    """Full speed of the camera per latent frame: world units and degrees."""

    move: float
    yaw_deg: float
    pitch_deg: float
    pitch_limit_deg: float


class Ready(_Message, kw_only=True, tag="ready"):
    """The answer to `hello`. `formats` are those the server can send, best first."""

    version: int
    server: str
    model: str
    fps: int
    formats: tuple[Format, ...]
    transports: tuple[Literal["websocket", "webrtc"], ...]
    limits: Limits
    server_ms: float


class Seat(_Message, kw_only=True, tag="seat"):
    """There is a place. `token` opens this world again and is a secret; `world` may be shared."""

    world: str
    viewer: str
    token: str | UnsetType = UNSET


class Queued(_Message, kw_only=True, tag="queued"):
    """All places are taken; `position` 1 is next. Sent again whenever it changes."""

    position: int
    ahead: int
    retry_after_ms: int


class Opened(_Message, kw_only=True, tag="opened"):
    """The world as it really is: pixels, frames per second, latent frames, and the camera.

    `latent_frames` is how many pictures one latent frame becomes; `first_frame` the running number
    of the next picture (not 0 after a rejoin). `intrinsics` are those of this size.
    """

    width: int
    height: int
    fps: int
    chunk: int
    latent_frames: int
    window: int
    sink: int
    steps: int
    seed: int
    prompt: str
    rig: RigSpeed
    intrinsics: tuple[float, float, float, float]
    first_frame: int
    controls: bool
    state: State


class StateChange(_Message, kw_only=True, tag="state"):
    """The world's state, and why it changed where that is not plain."""

    state: State
    reason: str = ""


class Received(_Message, kw_only=True, tag="received"):
    """First receipt: input `id` was read and is valid."""

    id: int
    server_ms: float


class Applied(_Message, kw_only=True, tag="applied"):
    """Second receipt: input `id` shapes the world from this latent frame of this chunk on."""

    id: int
    chunk: int
    latent_frame: int
    server_ms: float


class Frame(_Message, kw_only=True, tag="frame"):
    """One picture, or one access unit of H.264 (Annex B, SPS and PPS before every IDR).

    `number` counts pictures from the world's start; `input` is the newest input it shows; `yaw` and
    `pitch` are the degrees turned since the start, right and up. `encoded_ms` is server time.
    `codec` is the RFC 6381 string, with every key frame. `first` marks the first of its chunk.
    """

    number: int
    chunk: int
    latent_frame: int
    format: Format
    width: int
    height: int
    payload: bytes | memoryview
    input: int = 0
    key: bool = True
    first: bool = False
    codec: str | UnsetType = UNSET
    yaw: float = 0.0
    pitch: float = 0.0
    encoded_ms: float = 0.0


class Chunk(_Message, kw_only=True, tag="chunk"):
    """After the frames of a chunk: where its time went, in ms. `wait` is the governor's."""

    index: int
    frames: int
    input: int
    stages: dict[str, float]
    bytes: int
    lead_ms: float
    real_time_factor: float
    misses: int
    levers: tuple[str, ...] = ()


class Pong(_Message, kw_only=True, tag="pong"):
    """The answer to `ping`."""

    at_ms: float
    server_ms: float


class Notice(_Message, kw_only=True, tag="notice"):
    """Something will happen or has happened; `in_ms` is when, 0 for now."""

    code: str
    message: str
    in_ms: int = 0


class ControlOf(_Message, kw_only=True, tag="control"):
    """Who holds the controls, how many watch, and who asks for them."""

    yours: bool
    viewers: int
    asking: tuple[str, ...] = ()


class Recording(_Message, kw_only=True, tag="recording"):
    """A recording began, or ended and can be fetched under `url` (relative)."""

    on: bool
    url: str = ""
    seconds: float = 0.0


class Traced(_Message, kw_only=True, tag="traced"):
    """A Chrome trace ended and can be fetched under `url` (relative)."""

    on: bool
    url: str = ""


class Failure(_Message, kw_only=True, tag="error"):
    """A refusal or a failure. `id` names the input it answers; without one it is the connection's.

    `fatal` says that the socket closes next.
    """

    code: str
    message: str
    retryable: bool
    fatal: bool = False
    id: int | UnsetType = UNSET
    expected: str | UnsetType = UNSET
    got: str | UnsetType = UNSET
    retry_after_ms: int | UnsetType = UNSET


class Bye(_Message, kw_only=True, tag="bye"):
    """The last message before a close that is no failure."""

    code: str
    message: str


ServerMessage = (
    Ready
    | Seat
    | Queued
    | Opened
    | StateChange
    | Received
    | Applied
    | Frame
    | Chunk
    | Pong
    | Notice
    | ControlOf
    | Recording
    | Traced
    | Failure
    | Bye
)
