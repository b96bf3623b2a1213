"""Client to server; see `worldline.core.live`."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from worldline.core.live.shared import (
    VERSION,
    Action,
    Count,
    Degrees,
    Format,
    InputId,
    Matrix,
    Message,
    Ms,
    Name,
    Secret,
    Text,
    Unit,
)


class Hello(Message, frozen=True, kw_only=True, tag="hello"):
    """The first message. `token` is the key of a server that asks for one (never in the URL).

    `formats` are those the client decodes, best first, for logs and tools; what is sent is the
    `format` of the next message, and JPEG whenever that cannot be had or kept up with.
    """

    version: int = VERSION
    client: Name = ""
    token: Secret | None = None
    formats: Annotated[tuple[Format, ...], Meta(max_length=8)] = ("jpeg",)


class Enter(Message, frozen=True, kw_only=True, tag="enter"):
    """Start a world. `image` holds an encoded picture; sizes in pixels, None is the model's.

    `lead_ms` is how much video the client wants queued ahead; `speed` scales every motion.
    `intrinsics` are fx, fy, cx, cy of an 832x480 picture.

    With `world`, a world file (`.wl`), the world is the one it holds: picture, prompt, seed, size,
    window and intrinsics are the file's, and those given here are not looked at. What was walked in
    it is walked again from the start, as a tape; the first movement of a hand ends the tape and
    walks on from there. `at_end` walks the tape unseen first, and shows the world where it stopped.
    Where several devices share out every chunk, `sharded` false keeps this world out of it: each of
    them computes all of it, slower, with the bits of one device.
    """

    prompt: Annotated[str, Meta(max_length=4096)] = ""
    image: Annotated[bytes, Meta(max_length=32 * 2**20)] = b""
    world: Annotated[bytes, Meta(max_length=32 * 2**20)] | None = None
    at_end: bool = False
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
    sharded: bool = True


class Rejoin(Message, frozen=True, kw_only=True, tag="rejoin"):
    """Come back to the world that `token` (from `seat`) belongs to, within its grace time."""

    token: Secret
    format: Format = "jpeg"


class Watch(Message, frozen=True, kw_only=True, tag="watch"):
    """See somebody else's world: `world` is the id it shares."""

    world: Name
    format: Format = "jpeg"


class InputMessage(Message, frozen=True, kw_only=True):
    """What a hand does. `id` is the client's counter, rising; `at_ms` when it happened there."""

    id: InputId
    at_ms: Ms = 0.0


class Keys(InputMessage, frozen=True, kw_only=True, tag="keys"):
    """The keys held from now on; the newest such message holds, an empty one lets go of all."""

    held: Annotated[tuple[Action, ...], Meta(max_length=8)]


class Pad(InputMessage, frozen=True, kw_only=True, tag="pad"):
    """Sticks as they stand: shares of full speed. `x` right, `z` ahead, `yaw` right, `pitch` up."""

    x: Unit = 0.0
    z: Unit = 0.0
    yaw: Unit = 0.0
    pitch: Unit = 0.0


class Pointer(InputMessage, frozen=True, kw_only=True, tag="pointer"):
    """A turn of the view by so many degrees, right and up; walked off at most at full speed."""

    yaw: Degrees = 0.0
    pitch: Degrees = 0.0


class Script(InputMessage, frozen=True, kw_only=True, tag="script"):
    """Actions per latent frame, then standing still; replaces what the hands hold."""

    frames: Annotated[tuple[tuple[Action, ...], ...], Meta(min_length=1, max_length=512)]


class Camera(InputMessage, frozen=True, kw_only=True, tag="camera"):
    """A path: camera-to-world rows (3x4) at `rate` poses per second of video, relative to now.

    It is resampled to latent frames and clipped at full speed; `loop` begins again at its end.
    """

    poses: Annotated[tuple[Matrix, ...], Meta(min_length=2, max_length=4096)]
    rate: Annotated[float, Meta(gt=0, le=1000)] = 16.0
    loop: bool = False


class Release(InputMessage, frozen=True, kw_only=True, tag="release"):
    """Let go of everything: keys, sticks, pending turns, scripts and paths."""


class Settings(InputMessage, frozen=True, kw_only=True, tag="settings"):
    """Change what holds from now on; None leaves it."""

    speed: Annotated[float, Meta(ge=0, le=1)] | None = None
    lead_ms: Ms | None = None
    format: Format | None = None
    quality: Annotated[int, Meta(ge=0, le=100)] | None = None
    bitrate_kbps: Annotated[int, Meta(ge=50, le=100_000)] | None = None


class Prompt(InputMessage, frozen=True, kw_only=True, tag="prompt"):
    """New words, from the next chunk on; blended over so many chunks."""

    text: Text
    blend_chunks: Annotated[int, Meta(ge=0, le=64)] = 0


class Pause(InputMessage, frozen=True, kw_only=True, tag="pause"):
    """Stop generating after the chunk in flight; the world stays."""


class Resume(InputMessage, frozen=True, kw_only=True, tag="resume"):
    """Go on after a pause."""


class Reset(InputMessage, frozen=True, kw_only=True, tag="reset"):
    """Back to the start picture, with the same seed or a new one."""

    seed: Annotated[int, Meta(ge=0, le=2**53)] | None = None


class Rewind(InputMessage, frozen=True, kw_only=True, tag="rewind"):
    """Go back, and walk on from there: to before `chunk` (of a `moment`), or so many seconds.

    One of the two is given. Chunk 0 is the start; seconds that reach further back mean the start,
    too. Answered by `rewound` when the world stands there, or by `error` with this id.
    """

    chunk: Count | None = None
    seconds: Annotated[float, Meta(ge=0, le=2**32)] | None = None


class Branch(InputMessage, frozen=True, kw_only=True, tag="branch"):
    """A second world that begins where this one is, or before `chunk`; this one goes on.

    Answered by `branched`, or by `error` with this id when there is no place for one more.
    """

    chunk: Count | None = None


class Save(InputMessage, frozen=True, kw_only=True, tag="save"):
    """The walk so far as a world file. Answered by `saved`."""


class Record(InputMessage, frozen=True, kw_only=True, tag="record"):
    """Begin or end a recording on the server."""

    on: bool


class Trace(InputMessage, frozen=True, kw_only=True, tag="trace"):
    """Begin or end a Chrome trace of this session."""

    on: bool


class AskControl(InputMessage, frozen=True, kw_only=True, tag="ask_control"):
    """A spectator asks for the controls."""


class GiveControl(InputMessage, frozen=True, kw_only=True, tag="give_control"):
    """The holder gives the controls to a viewer that asked."""

    viewer: Name


class Playhead(Message, frozen=True, kw_only=True, tag="playhead"):
    """What is on screen: running number of the frame, queued video ahead of it, stalls so far."""

    frame: Count
    lead_ms: Ms
    at_ms: Ms
    stalls: Count = 0
    dropped: Count = 0


class Shown(Message, frozen=True, kw_only=True, tag="shown"):
    """The first frame that shows input `id` was painted at `at_ms`; the parts are the client's."""

    id: InputId
    frame: Count
    at_ms: Ms
    received_ms: Ms
    decoded_ms: Ms


class KeyFrame(Message, frozen=True, kw_only=True, tag="key_frame"):
    """The decoder lost its thread and needs an IDR."""


class RtcOffer(Message, frozen=True, kw_only=True, tag="rtc_offer"):
    """Pictures by WebRTC: an offer with one video that is only received, and all its candidates.

    Answered by `rtc_answer`. Once connected, `frame` messages come without payload; when the
    connection ends, pictures come over the socket again.
    """

    sdp: Annotated[str, Meta(max_length=65_536)]


class Ping(Message, frozen=True, kw_only=True, tag="ping"):
    """Heartbeat and clock: answered at once by `pong`."""

    at_ms: Ms


class Leave(Message, frozen=True, kw_only=True, tag="leave"):
    """End the world (its holder) or stop watching (a spectator)."""


HandMessage = Keys | Pad | Pointer | Script | Camera | Release
Input = (
    HandMessage
    | Settings
    | Prompt
    | Pause
    | Resume
    | Reset
    | Rewind
    | Branch
    | Save
    | Record
    | Trace
    | AskControl
    | GiveControl
)
ClientMessage = (
    Hello | Enter | Rejoin | Watch | Input | Playhead | Shown | KeyFrame | RtcOffer | Ping | Leave
)
