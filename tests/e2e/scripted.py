"""A server of `worldline.v1` that says what a test tells it to, for the page in a real browser.

The page is the committed one; its socket ends here (`Scripted`), its plain requests at a tiny HTTP
server (`page_server`) that has no model. Every message is built and read by the structs of
`worldline.core.live`, so the page is held against the wire itself.
"""

from __future__ import annotations

import io
import re
import time
from collections.abc import Generator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler
from pathlib import Path
from typing import Any, TypeVar

import msgspec
from PIL import Image
from playwright.sync_api import Page, WebSocketRoute

from tests.e2e.pages import Silent, answering
from worldline.core.live import ClientMessage, ServerMessage, client, server
from worldline.server.page import GALLERY, HEADERS, STATIC

PATH = re.compile("/v1/worlds/live")
WORLD = "w-quiet-lantern"
FPS = 16
CHUNK = 12

_read = msgspec.msgpack.Decoder(ClientMessage).decode
_write = msgspec.msgpack.Encoder().encode
M = TypeVar("M")

LIMITS = server.Limits(
    max_message_bytes=2**25,
    max_image_pixels=2**25,
    max_prompt_chars=4096,
    max_script_frames=512,
    inputs_per_second=100,
    worlds_per_client=2,
    max_viewers=16,
    max_lead_ms=1000,
    heartbeat_ms=15_000,
    init_timeout_ms=15_000,
    idle_lease_ms=60_000,
    grace_ms=60_000,
    max_lifetime_ms=0,
)
READY = server.Ready(
    version=1,
    server="scripted",
    model="pocket",
    fps=FPS,
    formats=("jpeg",),
    transports=("websocket",),
    limits=LIMITS,
    server_ms=0.0,
)
OPENED = server.Opened(
    width=160,
    height=96,
    fps=FPS,
    chunk=3,
    latent_frames=4,
    window=18,
    sink=0,
    steps=4,
    seed=42,
    prompt="a court",
    rig=server.RigSpeed(move=0.1, yaw_deg=3.0, pitch_deg=3.0, pitch_limit_deg=60.0),
    intrinsics=(120.0, 120.0, 80.0, 48.0),
    first_frame=0,
    controls=True,
    state="live",
)


class Scripted:
    """Answers `hello`, pings and inputs by itself; everything else is said by the test."""

    def __init__(self, page: Page, *, ready: server.Ready = READY) -> None:
        self.heard: list[object] = []  # messages of `core.live.client`
        self.sockets: list[WebSocketRoute] = []
        self.deaf = False
        self._page = page
        self._ready = ready
        self._frames = 0
        self._chunks = 0
        page.route_web_socket(PATH, self._take)

    @property
    def now(self) -> float:
        """The server's clock, in ms."""
        return 1000.0 * time.monotonic()

    def say(self, *messages: ServerMessage) -> None:
        """Send messages over the newest socket."""
        for message in messages:
            self.sockets[-1].send(_write(message))

    def await_message(self, *kinds: type[M], after: int = 0) -> M:
        """The first message of one of these kinds among those heard from index `after` on."""
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline:
            for message in self.heard[after:]:
                if isinstance(message, kinds):
                    return message
            self._page.wait_for_timeout(20)
        wanted = " or ".join(kind.__name__ for kind in kinds)
        raise AssertionError(f"no {wanted} among {[type(m).__name__ for m in self.heard]}")

    def seat(self, *, controls: bool = True) -> None:
        """A place; that of the controls has the token that comes back to it."""
        token = "secret-token" if controls else msgspec.UNSET
        self.say(server.Seat(world=WORLD, viewer="v-1", token=token))

    def open(self, *, controls: bool = True, viewers: int = 1) -> None:
        """Wait for the way in, give a place, open the world, show its first chunk."""
        self.await_message(client.Enter, client.Rejoin, client.Watch)
        self.seat(controls=controls)
        self.say(
            msgspec.structs.replace(OPENED, controls=controls, first_frame=self._frames),
            server.ControlOf(yours=controls, viewers=viewers),
        )
        self.show()

    def show(self, *, input: int = 0, turn: float = 0.0) -> None:
        """One chunk of pictures that show `input`, panned by `turn` degrees."""
        for i in range(CHUNK):
            self.say(
                server.Frame(
                    number=self._frames,
                    chunk=self._chunks,
                    latent_frame=self._frames // 4,
                    format="jpeg",
                    width=160,
                    height=96,
                    payload=picture(turn),
                    input=input,
                    first=i == 0,
                    yaw=turn,
                    encoded_ms=self.now,
                    pose=(1.0, 0.0, 0.0, turn, 0.0, 1.0, 0.0, 0.0, 0.0, 0.0, 1.0, 0.0),
                )
            )
            self._frames += 1
        self.say(
            server.Chunk(
                index=self._chunks,
                frames=CHUNK,
                input=input,
                stages={
                    "inbox": 4.0,
                    "wait": 118.0,
                    "denoise": 236.0,
                    "decode": 31.0,
                    "encode": 3.0,
                },
                bytes=40_000,
                lead_ms=120.0,
                real_time_factor=1.31,
                misses=0,
            )
        )
        self._chunks += 1

    def drop(self) -> None:
        """The connection breaks."""
        self.sockets[-1].close(code=1012)

    def _take(self, route: WebSocketRoute) -> None:
        if self.deaf:
            route.close(code=1012)
            return
        self.sockets.append(route)
        route.on_message(partial(self._hear, route))

    def _hear(self, route: WebSocketRoute, data: str | bytes) -> None:
        assert isinstance(data, bytes), "the protocol is binary"
        message: ClientMessage = _read(data)
        now = self.now
        if isinstance(message, client.Hello):
            route.send(_write(msgspec.structs.replace(self._ready, server_ms=now)))
        elif isinstance(message, client.Ping):
            route.send(_write(server.Pong(at_ms=message.at_ms, server_ms=now)))
            return
        self.heard.append(message)
        if isinstance(message, client.InputMessage):
            route.send(_write(server.Received(id=message.id, server_ms=now)))


def picture(turn: float = 0.0) -> bytes:
    """A JPEG of 160 x 96 of the gallery's first picture, shifted as a turn would."""
    entries = msgspec.json.decode((GALLERY / "gallery.json").read_bytes())
    with Image.open(GALLERY / entries[0]["file"]) as image:
        small = image.convert("RGB").resize((160, 96))
    shifted = Image.new("RGB", small.size)
    offset = round(2.4 * turn) % 160
    shifted.paste(small, (-offset, 0))
    shifted.paste(small, (160 - offset, 0))
    out = io.BytesIO()
    shifted.save(out, "JPEG", quality=92)
    return out.getvalue()


MODELS = {
    "data": [
        {
            "id": "pocket",
            "info": {"family": "pocket", "fps": FPS, "sizes": [[160, 96]], "notice": None},
        }
    ]
}


class _Handler(Silent, SimpleHTTPRequestHandler):
    """The committed page and its gallery, with the headers that the real server sends."""

    protocol_version = "HTTP/1.1"

    def translate_path(self, path: str) -> str:
        clean = path.split("?")[0].split("#")[0]
        if clean.startswith("/gallery/"):
            return str(GALLERY / Path(clean).name)
        return super().translate_path(path)

    def do_GET(self) -> None:
        if self.path.startswith("/readyz"):
            self._answer({})
        elif self.path.startswith("/v1/models"):
            self._answer(MODELS)
        else:
            super().do_GET()

    def end_headers(self) -> None:
        for name, value in HEADERS.items():
            self.send_header(name, value)
        super().end_headers()

    def _answer(self, value: dict[str, Any]) -> None:
        body = msgspec.json.encode(value)
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


@contextmanager
def page_server() -> Generator[str]:
    """The address of a server that has the page and no model."""
    with answering(partial(_Handler, directory=str(STATIC))) as origin:
        yield f"{origin}/"
