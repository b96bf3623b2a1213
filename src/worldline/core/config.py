"""Frozen settings and facts that cross layers; never mutated, a changed value is a new one."""

from __future__ import annotations

from typing import Literal

import msgspec

Lever = Literal["encode_quality", "steps"]


class EngineOptions(msgspec.Struct, frozen=True, kw_only=True):
    """How the engine goes about its work; crosses to the worker as it is. What the defaults compute
    is the reference.

    `camera_cache` off recomputes the camera modulation in every pass. `kernels` compute what lies
    between the matmuls; auto is Triton on CUDA, but not in exact mode. `kv` 8bit keeps keys and
    values in int8. `decoder` is `full`, `tiny`, or the file of a tiny one. With `offload` the
    transformer's blocks are in host memory, `resident_blocks` of them at a time on the device.
    `text_encoder` on `cpu` computes there; `swap` keeps it there and computes on the device.
    `compile` regional compiles what lies between the matmuls; with `graphs` a GPU's passes are
    recorded once and replayed.
    `recache` makes the window's history anew when the prompt changes. `lossy` names levers that
    make chunks cheaper and change the picture (`runtime.savings.LEVERS`), each with `=N` where it
    has a number. `first_chunks_mb` of host memory keep first chunks of equal starts, `timeline_mb`
    what sessions were, so that they can go back; 0 keeps only what a light snapshot takes.
    `loras` are adapters that sessions wear unless they name others: `[NAME=]FILE[@SCALE]`.
    """

    camera_cache: Literal["auto", "off"] = "auto"
    kernels: Literal["auto", "torch", "triton"] = "auto"
    kv: Literal["full", "8bit"] = "full"
    decoder: str = "full"
    offload: Literal["off", "blocks"] = "off"
    resident_blocks: int = 2
    text_encoder: Literal["device", "cpu", "swap"] = "device"
    compile: Literal["off", "regional"] = "off"
    graphs: Literal["off", "on"] = "off"
    recache: bool = False
    lossy: tuple[str, ...] = ()
    first_chunks_mb: int = 1024
    timeline_mb: int = 256
    loras: tuple[str, ...] = ()


DEFAULT_OPTIONS = EngineOptions()


class WorldInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What a server or client must know of the loaded model; sizes: (width, height) in pixels.

    From latent frame `encoded` on, the encode of a start picture repeats. `rings` memories of
    sessions are kept for the next ones, and are worth warming each.
    Memory as planned from the configuration, on the device that computes: `weights_bytes` once,
    `session_bytes` per open session of the largest size, `workspace_bytes` for the one chunk in
    flight, out of `budget_bytes`; 0 where nobody has planned.
    `weights` is equal for equal weights. `ranks` share out every chunk, and each of `replicas`
    has as much memory. What is not `live` makes films only, and each of their chunks begins with
    `overlap` latent frames of the one before. Where ranks, replicas, `options`,
    `threads`, `torch` and `machine` are the same, exact mode gives the same bits.
    """

    model: str
    family: str
    width: int
    height: int
    sizes: tuple[tuple[int, int], ...]
    fps: int
    chunk: int
    window: int
    sink: int
    steps: int
    device: str
    dtype: str
    mode: str
    licence: str
    notice: str | None = None
    weights: str = ""
    live: bool = True
    overlap: int = 0
    threads: int = 1
    torch: str = ""
    machine: str = ""
    ranks: int = 1
    options: EngineOptions = DEFAULT_OPTIONS
    encoded: int = 0
    rings: int = 1
    weights_bytes: int = 0
    session_bytes: int = 0
    workspace_bytes: int = 0
    budget_bytes: int = 0
    replicas: int = 1

    def frames_in_chunk(self, index: int) -> int:
        """Pixel frames of chunk `index`: `1 + 4(T-1)` for the first, `4T` for later ones."""
        return 4 * self.chunk - 3 if index == 0 else 4 * self.chunk

    def sessions_that_fit(self) -> int | None:
        """How many sessions the device holds at a time; None where nobody has planned."""
        if self.budget_bytes == 0 or self.session_bytes == 0:
            return None
        left = self.budget_bytes - self.weights_bytes - self.workspace_bytes
        return self.replicas * max(0, left // self.session_bytes)


class ServerConfig(msgspec.Struct, frozen=True, kw_only=True):
    """Settings of one server process. Times in seconds, sizes in bytes unless named otherwise.

    `init_attempts` unusable inits end a socket; beyond `max_sockets` new ones are told at once that
    the server is busy. `warmup_chunks` 0 lets the model decide.
    `shutdown_s` is how long open sockets get to end when the server stops.

    Live worlds; 0 for a time means no limit. A world whose visitor sends no input and holds no key
    is closed after `idle_lease_s`, one whose visitor is gone after `grace_s`, any after
    `max_lifetime_s`; each is announced `warn_s` before. One that waits is parked in host memory
    after `park_after_s`; so many as `lend_seats` then lend their seats to those in line, and come
    back before anybody else. A socket that says nothing for three `heartbeat_s` counts as gone.
    `worlds_per_client` counts places in the queue too; all who wait there have start pictures of
    `max_waiting_bytes` together. `drain_s` is how long worlds may go on after SIGTERM, `recover_s`
    how long sessions of a worker that died wait for another, to go on in it (0: they end with it).
    Chunks come when a client has `lead_s` of video left, or what it asks for up to `max_lead_s`.
    When the hand changes its mind, a chunk begun less than `restart_s` ago is begun
    anew, or any that would be in time all the same; 0 never. `levers` may make chunks cheaper when
    they come too late, in this order: pictures of less quality, fewer denoise steps (not in exact
    mode).

    `bitrate_kbps` of the shared H.264 until its holder asks for another, 0 by the size of the
    pictures; `max_bitrate_kbps` is the most it may ask for. `ice_servers` are STUN and TURN servers
    (stun:host:port) for WebRTC; none means this machine's own addresses only. Recordings lie below
    `recordings_dir` (None is the system's temporary folder) until `recording_keep_s` after their
    end, and never longer than the server runs; a take ends after `max_recording_s` or
    `max_recording_bytes`, and old ones go when all together have `max_recordings_bytes` (0: nothing
    is recorded). Exact snapshots that administrators take lie in `snapshots_dir` until somebody
    removes them; None: none are taken.

    Films (`/v1/videos`) are kept in `films_dir` (None: none are made) until `film_keep_s` after
    their end; old ones go when all together have `max_films_bytes`. At most `max_films_waiting` are
    in line, `films_per_client` of one client, and none is longer than `max_film_s`.

    `world_file` is a world that the page, opened with `#world`, walks into.

    Doors. `allow_origins` are pages elsewhere that may use the server. Per address, this machine's
    own excepted: `sockets_per_minute`, `requests_per_minute` and `sockets_per_address` at a time.
    Per socket: `messages_per_second` and `bytes_per_second`; one that is faster is read slower. 0
    for a rate means no limit. `max_hello_bytes` limits a socket's messages before it has shown its
    token, `max_body_bytes` a request's body, `max_head_bytes` its head, which must be there within
    `head_timeout_s`. `max_connections` counts all of them. `tls` is None, self-signed, or
    CERT,KEY. With `admin_port` metrics and admin routes are served there and not on the main port.
    """

    host: str = "127.0.0.1"
    port: int = 30000
    seats: int = 2
    init_timeout_s: float = 30.0
    seat_wait_s: float = 15.0
    warmup_wait_s: float = 120.0
    max_message_bytes: int = 32 * 1024 * 1024
    max_image_pixels: int = 40_000_000
    max_prompt_chars: int = 4096
    init_attempts: int = 5
    max_sockets: int = 64
    warmup_chunks: int = 0
    shutdown_s: float = 10.0
    idle_lease_s: float = 60.0
    grace_s: float = 60.0
    max_lifetime_s: float = 3600.0
    warn_s: float = 15.0
    park_after_s: float = 10.0
    heartbeat_s: float = 15.0
    worlds_per_client: int = 8
    max_queue: int = 32
    max_waiting_bytes: int = 256 * 1024 * 1024
    lend_seats: int = 0
    max_viewers: int = 32
    drain_s: float = 20.0
    recover_s: float = 120.0
    max_lead_s: float = 4.0
    lead_s: float = 0.1
    restart_s: float = 0.0
    levers: tuple[Lever, ...] = ("encode_quality", "steps")
    bitrate_kbps: int = 0
    max_bitrate_kbps: int = 20_000
    ice_servers: tuple[str, ...] = ()
    recordings_dir: str | None = None
    snapshots_dir: str | None = None
    recording_keep_s: float = 3600.0
    max_recording_s: float = 600.0
    max_recording_bytes: int = 512 * 1024 * 1024
    max_recordings_bytes: int = 2 * 1024 * 1024 * 1024
    films_dir: str | None = None
    film_keep_s: float = 7 * 24 * 3600.0
    max_films_bytes: int = 20 * 1024 * 1024 * 1024
    max_films_waiting: int = 64
    films_per_client: int = 8
    max_film_s: float = 600.0
    world_file: str | None = None
    allow_origins: tuple[str, ...] = ()
    sockets_per_minute: int = 60
    requests_per_minute: int = 600
    sockets_per_address: int = 16
    messages_per_second: int = 240
    bytes_per_second: int = 8 * 1024 * 1024
    max_hello_bytes: int = 16 * 1024
    max_body_bytes: int = 1024 * 1024
    max_head_bytes: int = 64 * 1024
    head_timeout_s: float = 10.0
    max_connections: int = 512
    tls: str | None = None
    jwt_audience: str | None = None
    admin_host: str = "127.0.0.1"
    admin_port: int | None = None
