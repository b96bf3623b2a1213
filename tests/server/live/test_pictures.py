"""The whole app, from `enter` to what arrives: H.264, stills, recordings, WebRTC, and back."""

from __future__ import annotations

import asyncio
import io
import zipfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fakes import LIMIT_S, FakeClock, FakeHandle, settle
from tests.server.live.stage import needs_h264
from tests.server.live.wire import LiveSocket, wish
from worldline.core.config import ServerConfig
from worldline.core.live.client import KeyFrame, Record, Rejoin, RtcOffer, Settings
from worldline.core.live.server import Failure, Frame, Opened, Recording, RtcAnswer, Seat
from worldline.media import h264
from worldline.server.app import create_app
from worldline.server.census import Leaks
from worldline.server.live import signalling
from worldline.server.live.recordings import FILES

pytestmark = pytest.mark.anyio


class Rig:
    """The app on a fake engine, with a clock that runs while something is waited for."""

    def __init__(self, app: Any, clock: FakeClock) -> None:
        self.app, self.clock = app, clock
        self.sockets: list[LiveSocket] = []

    async def enter(self, **fields: Any) -> tuple[LiveSocket, Seat]:
        socket = LiveSocket(self.app)
        self.sockets.append(socket)
        await socket.hello()
        socket.send(wish(**fields))
        seat = await socket.until(Seat)
        await socket.until(Opened)
        return socket, seat

    async def until(self, socket: LiveSocket, kind: type[Any], **fields: Any) -> Any:
        """The next message of a kind, letting time pass for as long as it takes."""
        waiting = asyncio.create_task(socket.until(kind, **fields))
        async with asyncio.timeout(LIMIT_S):
            while not waiting.done():
                await self.clock.advance(0.01)
                await asyncio.to_thread(lambda: None)  # engine and encoders run in threads
                await settle(5)
        return await waiting

    async def get(self, path: str) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get(path)


@asynccontextmanager
async def serving(**settings: Any) -> AsyncGenerator[Rig]:
    """The app; when everybody has left, nothing is left of anybody."""
    clock = FakeClock()
    app = create_app(ServerConfig(grace_s=5.0, **settings), FakeHandle(), clock=clock)
    async with app.router.lifespan_context(app):
        await app.state.services.readiness.wait(clock, 1.0)
        await app.state.census.count()
        rig = Rig(app, clock)
        yield rig
        for socket in rig.sockets:
            if not socket.task.done():
                await socket.leave()
        async with asyncio.timeout(LIMIT_S):
            while app.state.house.rooms:
                await clock.advance(1.0)
                await settle()
        assert await app.state.census.count() == Leaks()


@needs_h264
async def test_the_stream_begins_with_a_key_frame_and_goes_on(tmp_path: Path) -> None:
    async with serving(recordings_dir=str(tmp_path)) as rig:
        socket, _ = await rig.enter(format="h264")
        frames = [await rig.until(socket, Frame) for _ in range(30)]
        assert [frame.number for frame in frames] == list(range(30))
        assert [frame.key for frame in frames] == [True] + [False] * 29
        assert frames[0].codec.startswith("avc1.42")
        socket.send(KeyFrame())
        again = await rig.until(socket, Frame, format="h264", key=True)
        assert again.number >= 30


@needs_h264
async def test_another_format_from_the_next_picture_on() -> None:
    async with serving() as rig:
        socket, _ = await rig.enter(format="h264")
        await rig.until(socket, Frame, format="h264")
        socket.send(Settings(id=1, format="webp"))
        await rig.until(socket, Frame, format="webp")
        after = [await rig.until(socket, Frame) for _ in range(12)]
        assert {frame.format for frame in after} == {"webp"}


@needs_h264
async def test_who_comes_back_sees_the_newest_picture_and_the_stream() -> None:
    async with serving() as rig:
        socket, seat = await rig.enter(format="h264")
        while (await rig.until(socket, Frame)).number < 20:
            pass
        await socket.leave()
        again = LiveSocket(rig.app)
        rig.sockets.append(again)
        await again.hello()
        assert isinstance(seat.token, str)
        again.send(Rejoin(token=seat.token, format="h264"))
        await rig.until(again, Seat)
        frame = await rig.until(again, Frame)
        assert frame.number >= 20 and frame.key, "a still, or the key frame itself"
        if frame.format != "h264":
            frame = await rig.until(again, Frame, format="h264")
        assert frame.key and frame.codec.startswith("avc1.")


@needs_h264
async def test_a_recording_through_the_front_door(tmp_path: Path) -> None:
    async with serving(recordings_dir=str(tmp_path)) as rig:
        socket, _ = await rig.enter(format="jpeg")
        socket.send(Record(id=1, on=True))
        assert (await rig.until(socket, Recording)).on
        for _ in range(40):
            await rig.until(socket, Frame)
        socket.send(Record(id=2, on=False))
        ended = await rig.until(socket, Recording, on=False)
        answer = await rig.get(ended.url)
        assert answer.status_code == 200
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert archive.namelist() == list(FILES) and archive.testzip() is None
            assert len(archive.read("world.mp4")) > 1000
    assert list(tmp_path.iterdir()) == [], "nothing stays when the server has ended"


async def test_without_pyav_there_is_no_h264(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(h264, "available", lambda: False)
    async with serving() as rig:
        socket = LiveSocket(rig.app)
        rig.sockets.append(socket)
        ready = await socket.hello()
        assert ready.formats == ("jpeg", "webp", "raw") and ready.transports == ("websocket",)
        socket.send(wish(format="h264"))
        frames = [await rig.until(socket, Frame) for _ in range(3)]
        assert {frame.format for frame in frames} == {"jpeg"}
        socket.send(Record(id=1, on=True))
        with pytest.raises(AssertionError, match="recorded"):
            await rig.until(socket, Recording)


@pytest.mark.skipif(not signalling.available(), reason="WebRTC needs the extra `rtc`")
async def test_webrtc_through_the_front_door() -> None:
    import aiortc

    async with serving() as rig:
        socket, _ = await rig.enter(format="h264")
        await rig.until(socket, Frame)
        socket.send(RtcOffer(sdp="no offer"))
        with pytest.raises(AssertionError, match="invalid_input"):
            await rig.until(socket, RtcAnswer)
        await rig.clock.advance(signalling.OFFER_EVERY_S)
        peer = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        peer.addTransceiver("video", direction="recvonly")
        track: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        peer.on("track", track.set_result)
        await peer.setLocalDescription(await peer.createOffer())
        socket.send(RtcOffer(sdp=peer.localDescription.sdp))
        answer = await slowly(rig, socket, RtcAnswer)
        await peer.setRemoteDescription(aiortc.RTCSessionDescription(answer.sdp, "answer"))
        facts = await slowly(rig, socket, Frame, payload=b"")
        assert facts.format == "h264"
        receiving = asyncio.create_task((await track).recv())
        while not receiving.done():
            await slowly(rig, socket, Frame)
        assert receiving.result().width == facts.width
        await peer.close()


async def slowly(rig: Rig, socket: LiveSocket, kind: type[Any], **fields: Any) -> Any:
    """As `until`, leaving real time to the network: fake seconds must not run out meanwhile."""
    waiting = asyncio.create_task(socket.until(kind, **fields))
    async with asyncio.timeout(LIMIT_S):
        while not waiting.done():
            await rig.clock.advance(0.01)
            await asyncio.sleep(0.002)
    return await waiting


async def test_an_offer_without_a_world_is_refused() -> None:
    async with serving() as rig:
        socket = LiveSocket(rig.app)
        rig.sockets.append(socket)
        await socket.hello()
        socket.send(RtcOffer(sdp="v=0"))
        message = await socket.next()
        assert isinstance(message, Failure) and message.code == "session_error"
