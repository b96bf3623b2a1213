"""The other end of the SDK's connections, in memory: a server that says what a test tells it to."""

from __future__ import annotations

import asyncio
import io
import ssl
from typing import Any

import msgspec
import numpy as np
from PIL import Image

from tests.fakes import LIMIT_S
from worldline.client import AsyncClient
from worldline.client.line import ABNORMAL, Line, LineLost
from worldline.core.live import ClientMessage, ServerMessage
from worldline.core.live.client import Ping, Playhead
from worldline.core.live.server import Frame, Limits, Opened, Ready, RigSpeed, Seat

LIMITS = Limits(
    max_message_bytes=2**20,
    max_image_pixels=2**20,
    max_prompt_chars=4096,
    max_script_frames=512,
    inputs_per_second=100,
    worlds_per_client=1,
    max_viewers=8,
    max_lead_ms=2000,
    heartbeat_ms=15_000,
    init_timeout_ms=30_000,
    idle_lease_ms=60_000,
    grace_ms=60_000,
    max_lifetime_ms=0,
)
SEAT = Seat(world="w1", viewer="v1", token="secret")
OPENED = Opened(
    width=8,
    height=6,
    fps=16,
    chunk=3,
    latent_frames=4,
    window=9,
    sink=2,
    steps=4,
    seed=42,
    prompt="a lake",
    rig=RigSpeed(move=0.1, yaw_deg=3.0, pitch_deg=3.0, pitch_limit_deg=60.0),
    intrinsics=(5.0, 5.0, 4.0, 3.0),
    first_frame=0,
    controls=True,
    state="live",
)


def ready(**changes: Any) -> Ready:
    """What a server says first."""
    plain = Ready(
        version=1,
        server="worldline/test",
        model="fake",
        fps=16,
        formats=("jpeg", "raw"),
        transports=("websocket",),
        limits=LIMITS,
        server_ms=0.0,
    )
    return msgspec.structs.replace(plain, **changes)


def frame(number: int, *, input: int = 0, shade: int = 0, **changes: Any) -> Frame:
    """A raw grey picture."""
    plain = Frame(
        number=number,
        chunk=number // 12,
        latent_frame=number // 4,
        format="raw",
        width=OPENED.width,
        height=OPENED.height,
        payload=bytes([shade]) * (OPENED.width * OPENED.height * 3),
        input=input,
    )
    return msgspec.structs.replace(plain, **changes)


def picture(format: str = "PNG", level: int = 120) -> bytes:
    """A small picture file."""
    out = io.BytesIO()
    Image.fromarray(np.full((6, 8, 3), level, np.uint8)).save(out, format)
    return out.getvalue()


class PeerLine:
    """One connection as the SDK holds it."""

    def __init__(self) -> None:
        self.to_client: asyncio.Queue[bytes | LineLost] = asyncio.Queue()
        self.from_client: asyncio.Queue[ClientMessage] = asyncio.Queue()
        self.quiet: list[ClientMessage] = []  # pings and playheads
        self.closed = False
        self._lost: LineLost | None = None
        self._decoder: msgspec.msgpack.Decoder[ClientMessage] = msgspec.msgpack.Decoder(
            ClientMessage
        )

    async def send(self, data: bytes) -> None:
        """A client message arrives."""
        if self._lost is not None:
            raise self._lost
        message = self._decoder.decode(data)
        if isinstance(message, Ping | Playhead):
            self.quiet.append(message)
        else:
            self.from_client.put_nowait(message)

    async def receive(self) -> bytes:
        """The client reads."""
        item = await self.to_client.get()
        if isinstance(item, LineLost):
            self._lost = item
            raise item
        return item

    async def close(self) -> None:
        """The client hangs up."""
        self.closed = True
        self.to_client.put_nowait(LineLost(1000, ""))


class Peer:
    """Implements `Dial`; `refuse` is how many of the next connections fail."""

    def __init__(self) -> None:
        self.lines: list[PeerLine] = []
        self.refuse = 0
        self.dialled = 0
        self._connected = asyncio.Event()

    async def __call__(self, url: str, *, tls: ssl.SSLContext | None, timeout: float) -> Line:
        """A new connection."""
        self.dialled += 1
        if self.refuse > 0:
            self.refuse -= 1
            raise LineLost(ABNORMAL, "nobody listens")
        self.lines.append(PeerLine())
        self._connected.set()
        return self.lines[-1]

    async def connected(self) -> None:
        """Wait for one more connection."""
        async with asyncio.timeout(LIMIT_S):
            await self._connected.wait()
        self._connected.clear()

    async def next(self) -> ClientMessage:
        """What the client says next, pings and playheads aside."""
        async with asyncio.timeout(LIMIT_S):
            return await self.lines[-1].from_client.get()

    def say(self, *messages: ServerMessage) -> None:
        """Send these."""
        for message in messages:
            self.lines[-1].to_client.put_nowait(msgspec.msgpack.encode(message))

    def drop(self, code: int = ABNORMAL, reason: str = "") -> None:
        """Break the connection."""
        self.lines[-1].to_client.put_nowait(LineLost(code, reason))


def client(peer: Peer, clock: Any = None) -> AsyncClient:
    """A client of that peer."""
    made = AsyncClient("http://peer.test")
    made._dial = peer  # pyright: ignore[reportPrivateUsage]
    if clock is not None:
        made._clock = clock  # pyright: ignore[reportPrivateUsage]
    return made
