"""WebRTC over loopback: the shared stream arrives, feedback reaches our own rules, and it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import pairwise
from typing import Any

import numpy as np
import pytest

from tests.fakes import LIMIT_S
from tests.server.live.stage import HEIGHT, PICTURES, WIDTH, Eyes, Stage, opened, staged
from worldline.core.config import ServerConfig
from worldline.core.errors import ConfigError, InputError, RateError
from worldline.core.live.server import Failure, RtcAnswer
from worldline.server.live import signalling
from worldline.server.live.signalling import CONNECT_S, OFFER_EVERY_S, Peers

aiortc = pytest.importorskip("aiortc", reason="WebRTC needs the extra `rtc`")
rtp = pytest.importorskip("aiortc.rtp")
pytestmark = pytest.mark.anyio


class Receiver:
    """The other end: receives one video."""

    def __init__(self) -> None:
        self.connection = aiortc.RTCPeerConnection(aiortc.RTCConfiguration(iceServers=[]))
        self.transceiver = self.connection.addTransceiver("video", direction="recvonly")
        self.track: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self.connection.on("track", self.track.set_result)

    async def offer(self) -> str:
        await self.connection.setLocalDescription(await self.connection.createOffer())
        return self.connection.localDescription.sdp

    async def accept(self, sdp: str) -> None:
        await self.connection.setRemoteDescription(aiortc.RTCSessionDescription(sdp, "answer"))

    async def feedback(self, *, fmt: int, fci: bytes = b"", source: int) -> None:
        """Send one RTCP message about the stream."""
        receiver = self.transceiver.receiver
        packet = rtp.RtcpPsfbPacket(fmt=fmt, ssrc=1, media_ssrc=source, fci=fci)
        await receiver._send_rtcp(packet)


class Call:
    """A stage with a viewer, its peers, and a receiver that is connected to it."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.peers = Peers(stage.broadcast, stage.broadcast.config, stage.clock)
        self.receivers: list[Receiver] = []

    async def connect(self, eyes: Eyes) -> Receiver:
        receiver = Receiver()
        self.receivers.append(receiver)
        self.peers.offer(eyes.viewer, await receiver.offer())
        await until(lambda: bool(answers(eyes)))
        await receiver.accept(answers(eyes)[-1].sdp)
        await until(lambda: eyes.viewer.following is None)
        await until(lambda: receiver.connection.connectionState == "connected")
        return receiver

    async def end(self) -> None:
        await self.stage.broadcast.close()
        for receiver in self.receivers:
            await receiver.connection.close()


async def until(holds: Callable[[], bool]) -> None:
    async with asyncio.timeout(LIMIT_S):
        while not holds():
            await asyncio.sleep(0.01)


def answers(eyes: Eyes) -> list[RtcAnswer]:
    return [message for message in eyes.messages if isinstance(message, RtcAnswer)]


@asynccontextmanager
async def calling() -> AsyncGenerator[Call]:
    async with staged() as stage:
        call = Call(stage)
        yield call
        await call.end()
        assert len(call.peers) == 0


@pytest.fixture
async def call() -> AsyncGenerator[Call]:
    async with AsyncExitStack() as stack:
        yield await stack.enter_async_context(calling())


async def walk(call: Call, enough: Callable[[], bool]) -> None:
    """Show the world until something has happened at the other end."""
    async with asyncio.timeout(LIMIT_S):
        while not enough():
            await call.stage.latent()
            await asyncio.sleep(0.01)


async def test_the_shared_stream_arrives(call: Call) -> None:
    eyes, other = call.stage.watch("a", holder=True), call.stage.watch("b")
    await call.stage.latent()
    receiver = await call.connect(eyes)
    track = await receiver.track
    seen: list[Any] = []

    async def watch() -> None:
        while True:
            seen.append(await track.recv())

    watching = asyncio.create_task(watch())
    try:
        await walk(call, lambda: len(seen) >= 12)
    finally:
        watching.cancel()
    picture = np.asarray(seen[0].to_ndarray(format="rgb24"), np.int16)
    assert picture.shape == (HEIGHT, WIDTH, 3)
    assert picture[0].std() > 20, "the ramp, and no grey"
    steps = {b.pts - a.pts for a, b in pairwise(seen)}
    assert steps == {90_000 // 16}
    facts = [m for m in eyes.frames if not m.payload]
    assert [f.number for f in facts] == list(range(facts[0].number, facts[-1].number + 1))
    assert facts[0].key and facts[0].input == 7
    assert all(frame.payload for frame in other.frames)
    assert [f.number for f in other.frames] == list(range(call.stage.number))


async def test_lost_pictures_ask_for_a_key_frame_by_our_rules(call: Call) -> None:
    eyes = call.stage.watch("a")
    receiver = await call.connect(eyes)
    await call.stage.latent()
    stream = call.stage.broadcast.stream
    source = call.stage.broadcast.stream.key_frames
    for _ in range(4):
        await receiver.feedback(fmt=rtp.RTCP_PSFB_PLI, source=sender_of(call))
    await walk(call, lambda: stream.key_frames > source)
    before = stream.key_frames
    for _ in range(3):  # 0.75 s of the world's time
        await receiver.feedback(fmt=rtp.RTCP_PSFB_PLI, source=sender_of(call))
        await asyncio.sleep(0.02)
        await call.stage.latent()
    assert stream.key_frames == before, "cries within seconds are not urgent"


async def test_the_receivers_estimate_limits_the_holder_only(call: Call) -> None:
    holder, other = call.stage.watch("a", holder=True), call.stage.watch("b")
    stream = call.stage.broadcast.stream
    await call.stage.latent()
    usual = stream.kbps
    second = await call.connect(other)
    source = sender_of(call, 0)
    estimate = rtp.pack_remb_fci(300_000, [source])
    await second.feedback(fmt=rtp.RTCP_PSFB_APP, fci=estimate, source=source)
    await asyncio.sleep(0.1)
    await call.stage.latent()
    assert stream.kbps == usual
    first = await call.connect(holder)
    source = sender_of(call, 1)
    estimate = rtp.pack_remb_fci(300_000, [source])
    await first.feedback(fmt=rtp.RTCP_PSFB_APP, fci=estimate, source=source)
    await walk(call, lambda: stream.kbps == 270)


def sender_of(call: Call, index: int = 0) -> int:
    """The source that our side sends from, as the receiver's answer names it."""
    description = call.receivers[index].connection.remoteDescription.sdp
    line = next(line for line in description.splitlines() if line.startswith("a=ssrc:"))
    return int(line.removeprefix("a=ssrc:").split()[0])


async def test_when_it_ends_pictures_come_by_the_socket_again(call: Call) -> None:
    eyes = call.stage.watch("a", holder=True)
    receiver = await call.connect(eyes)
    await call.stage.latent()
    await receiver.connection.close()
    await until(lambda: eyes.viewer.following is not None)
    await until(lambda: len(call.peers) == 0)
    await call.stage.latent()
    assert eyes.frames[-1].payload and eyes.frames[-1].number == call.stage.number - 1


async def test_who_leaves_takes_the_peer_along(call: Call) -> None:
    eyes = call.stage.watch("a")
    receiver = await call.connect(eyes)
    call.stage.broadcast.detach(eyes.viewer)
    await call.peers.close()
    assert len(call.peers) == 0 and eyes.viewer.following is None
    await until(lambda: receiver.connection.connectionState in ("closed", "failed"))


OFFERS = {
    "nothing": "",
    "noise": "v=0\r\nnoise",
    "audio": "v=0\r\no=- 1 1 IN IP4 0.0.0.0\r\ns=-\r\nt=0 0\r\nm=audio 9 UDP/TLS/RTP/SAVPF 0\r\n"
    "c=IN IP4 0.0.0.0\r\na=mid:0\r\na=recvonly\r\na=rtpmap:0 PCMU/8000\r\n",
}


@pytest.mark.parametrize("sdp", OFFERS.values(), ids=OFFERS.keys())
async def test_what_is_no_offer_is_refused(call: Call, sdp: str) -> None:
    eyes = call.stage.watch("a")
    call.peers.offer(eyes.viewer, sdp)
    await until(lambda: any(isinstance(m, Failure) for m in eyes.messages))
    failure = next(m for m in eyes.messages if isinstance(m, Failure))
    assert failure.code == "invalid_input" and not failure.fatal
    await until(lambda: len(call.peers) == 0)
    await call.stage.latent()
    assert len(eyes.frames) == PICTURES, "and the socket goes on"


async def test_an_offer_without_h264_is_refused(call: Call) -> None:
    eyes, receiver = call.stage.watch("a"), Receiver()
    call.receivers.append(receiver)
    capabilities = aiortc.RTCRtpReceiver.getCapabilities("video").codecs
    receiver.transceiver.setCodecPreferences([c for c in capabilities if "VP8" in c.mimeType])
    call.peers.offer(eyes.viewer, await receiver.offer())
    await until(lambda: any(isinstance(m, Failure) for m in eyes.messages))


async def test_a_peer_that_cannot_be_made_is_answered() -> None:
    async with staged(ice_servers=("http://nobody",)) as stage:
        call = Call(stage)
        eyes = stage.watch("a")
        receiver = Receiver()
        call.receivers.append(receiver)
        call.peers.offer(eyes.viewer, await receiver.offer())
        await until(lambda: any(isinstance(message, Failure) for message in eyes.messages))
        await until(lambda: len(call.peers) == 0)
        await call.end()


async def test_offers_are_few_and_name_few_addresses(call: Call) -> None:
    eyes = call.stage.watch("a")
    candidate = "a=candidate:1 1 udp 1 192.0.2.1 9 typ host\r\n"
    with pytest.raises(InputError, match="too many candidates"):
        call.peers.offer(eyes.viewer, "v=0\r\n" + candidate * 33)
    call.peers.offer(eyes.viewer, "v=0\r\n" + candidate)
    with pytest.raises(RateError, match="too fast"):
        call.peers.offer(eyes.viewer, "v=0\r\n")
    await call.stage.pass_time(OFFER_EVERY_S)
    call.peers.offer(eyes.viewer, "v=0\r\n")


async def test_who_never_connects_is_given_up(call: Call) -> None:
    eyes, receiver = call.stage.watch("a"), Receiver()
    call.receivers.append(receiver)
    call.peers.offer(eyes.viewer, await receiver.offer())
    await until(lambda: bool(answers(eyes)))
    await call.stage.clock.until_sleeping(CONNECT_S)
    await call.stage.clock.advance(CONNECT_S)
    await until(lambda: len(call.peers) == 0)
    assert eyes.viewer.following is not None


async def test_nothing_but_this_machine_is_named(call: Call) -> None:
    """No public server was asked for addresses: every candidate is one of our own."""
    assert ServerConfig().ice_servers == ()
    eyes = call.stage.watch("a")
    await call.connect(eyes)
    candidates = [line for line in answers(eyes)[0].sdp.splitlines() if "a=candidate" in line]
    assert candidates and all(" typ host" in line for line in candidates)


async def test_where_there_is_none_it_is_said(call: Call, monkeypatch: pytest.MonkeyPatch) -> None:
    eyes = call.stage.watch("a")
    with monkeypatch.context() as patch:
        patch.setattr(signalling, "available", lambda: False)
        with pytest.raises(ConfigError, match="no WebRTC"):
            call.peers.offer(eyes.viewer, "")
    call.stage.broadcast.opened(opened(width=65))
    with pytest.raises(ConfigError, match="no WebRTC"):
        call.peers.offer(eyes.viewer, "")
