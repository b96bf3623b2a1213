"""Server to client; see `worldline.core.live`."""

from __future__ import annotations

from typing import Literal

import msgspec
from msgspec import UNSET, UnsetType

from worldline.core.live.shared import Format, Message, State


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


class Ready(Message, frozen=True, kw_only=True, tag="ready"):
    """The answer to `hello`. `formats` are those the server can send, best first."""

    version: int
    server: str
    model: str
    fps: int
    formats: tuple[Format, ...]
    transports: tuple[Literal["websocket", "webrtc"], ...]
    limits: Limits
    server_ms: float


class Seat(Message, frozen=True, kw_only=True, tag="seat"):
    """There is a place. `token` opens this world again and is a secret; `world` may be shared."""

    world: str
    viewer: str
    token: str | UnsetType = UNSET


class Queued(Message, frozen=True, kw_only=True, tag="queued"):
    """All places are taken; `position` 1 is next. Sent again whenever it changes."""

    position: int
    ahead: int
    retry_after_ms: int


class Opened(Message, frozen=True, kw_only=True, tag="opened"):
    """The world as it really is: pixels, frames per second, latent frames, and the camera.

    `latent_frames` is how many pictures one latent frame becomes; `first_frame` the running number
    of the next picture (not 0 after a rejoin). `intrinsics` are those of this size; `speed` scales
    every motion, as `enter` or `settings` said last.
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
    speed: float = 1.0


class StateChange(Message, frozen=True, kw_only=True, tag="state"):
    """The world's state, and why it changed where that is not plain."""

    state: State
    reason: str = ""


class Received(Message, frozen=True, kw_only=True, tag="received"):
    """First receipt: input `id` was read and is valid."""

    id: int
    server_ms: float


class Applied(Message, frozen=True, kw_only=True, tag="applied"):
    """Second receipt: input `id` shapes the world from this latent frame of this chunk on.

    It follows the picture that shows it; `server_ms` is when the chunk sampled the hands.
    """

    id: int
    chunk: int
    latent_frame: int
    server_ms: float


class Frame(Message, frozen=True, kw_only=True, tag="frame"):
    """One picture, or one access unit of H.264 (Annex B, SPS and PPS before every IDR).

    `number` counts pictures from the world's start; `input` is the newest input it shows; `yaw` and
    `pitch` are the degrees turned since the start, right and up. `encoded_ms` is server time.
    `codec` is the RFC 6381 string, with every key frame. `first` marks the first of its chunk.
    `pose` is where the camera is at the last picture of this latent frame, camera-to-world rows
    (3x4) since the start; `yaw` and `pitch` are those of this picture.
    """

    number: int
    chunk: int
    latent_frame: int
    format: Format
    width: int
    height: int
    payload: bytes
    input: int = 0
    key: bool = True
    first: bool = False
    codec: str | UnsetType = UNSET
    yaw: float = 0.0
    pitch: float = 0.0
    pose: tuple[float, ...] | UnsetType = UNSET
    encoded_ms: float = 0.0


class Chunk(Message, frozen=True, kw_only=True, tag="chunk"):
    """After the frames of a chunk: where its time went, in ms. `wait` is the governor's.

    `index` counts every chunk that was made; `place` is its place in the walk, which `rewind` and
    `reset` put back, and what `moment` and `rewound` call `chunk`.
    """

    index: int
    frames: int
    input: int
    stages: dict[str, float]
    bytes: int
    lead_ms: float
    real_time_factor: float
    misses: int
    levers: tuple[str, ...] = ()
    place: int = 0


class Pong(Message, frozen=True, kw_only=True, tag="pong"):
    """The answer to `ping`."""

    at_ms: float
    server_ms: float


class RtcAnswer(Message, frozen=True, kw_only=True, tag="rtc_answer"):
    """The answer to `rtc_offer`, with all candidates.

    A picture's RTP time is `number` times 90000 / fps, plus an offset that stays the same.
    """

    sdp: str


class Notice(Message, frozen=True, kw_only=True, tag="notice"):
    """Something will happen or has happened; `in_ms` is when, 0 for now."""

    code: str
    message: str
    in_ms: int = 0


class ControlOf(Message, frozen=True, kw_only=True, tag="control"):
    """Who holds the controls, how many watch, and who asks for them."""

    yours: bool
    viewers: int
    asking: tuple[str, ...] = ()


class Recording(Message, frozen=True, kw_only=True, tag="recording"):
    """A recording began, or ended and can be fetched under `url` (relative)."""

    on: bool
    url: str = ""
    seconds: float = 0.0


class Traced(Message, frozen=True, kw_only=True, tag="traced"):
    """A Chrome trace ended and can be fetched under `url` (relative)."""

    on: bool
    url: str = ""


class Moment(Message, frozen=True, kw_only=True, tag="moment"):
    """A thumbnail for the timeline, about one a second of the walk, to who has the controls.

    `picture` is a small JPEG of picture `number`, the first of chunk `chunk` of the walk, which
    begins `seconds` after the walk's start. `rewind` to `chunk` comes back to it. After `rewound`,
    moments from its chunk on are no more part of the walk. Who takes the controls is sent all
    that there are.
    """

    chunk: int
    seconds: float
    number: int
    picture: bytes


class Rewound(Message, frozen=True, kw_only=True, tag="rewound"):
    """The walk went back to before `chunk`, by `rewind` or `reset`, under `prompt`.

    `seconds` is the walk's length now. Picture `number` is the first after it: running numbers go
    on. Sent to everybody.
    """

    chunk: int
    seconds: float
    number: int
    prompt: str


class Branched(Message, frozen=True, kw_only=True, tag="branched"):
    """There is a second world, `world`. It waits for who comes with `token`, by `rejoin`.

    `token` is a secret; `url` (relative) is the page that goes in with it. `id` is the input that
    asked; `chunk` is where in the walk it begins.
    """

    id: int
    world: str
    token: str
    url: str
    chunk: int


class Saved(Message, frozen=True, kw_only=True, tag="saved"):
    """The walk as a world file of so many `bytes`, to be fetched under `url` (relative).

    `id` is the input that asked; `chunks` and `seconds` are the length of the walk in it.
    """

    id: int
    url: str
    bytes: int
    chunks: int
    seconds: float


class Failure(Message, frozen=True, kw_only=True, tag="error"):
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


class Bye(Message, frozen=True, kw_only=True, tag="bye"):
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
    | RtcAnswer
    | Notice
    | ControlOf
    | Recording
    | Traced
    | Moment
    | Rewound
    | Branched
    | Saved
    | Failure
    | Bye
)
