"""WebRTC: the shared H.264 of a world to one peer, as packets that are already encoded.

A `Peer` follows the stream like any viewer: one encode per world, whatever the number of peers. A
picture loss indication asks for a key frame by the rules of `idr`; the receiver's estimated bitrate
limits the stream while the peer's viewer holds the controls. Candidates are those of this machine
and of the servers in the settings; there is no public STUN unless it is asked for.

Needs aiortc (the extra `rtc`): import this module only where `signalling.available()`.
"""

# aiortc leaves parts of its types out, and its hooks for feedback have no public names.
# pyright: reportPrivateUsage=false, reportUnknownMemberType=false
# pyright: reportUnknownVariableType=false, reportMissingTypeArgument=false
# pyright: reportUnknownParameterType=false

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Final

from aiortc import (
    MediaStreamTrack,
    RTCConfiguration,
    RTCIceServer,
    RTCPeerConnection,
    RTCRtpSender,
    RTCSessionDescription,
)
from aiortc.mediastreams import MediaStreamError
from aiortc.rtp import (
    RTCP_PSFB_APP,
    RTCP_PSFB_FIR,
    RTCP_PSFB_PLI,
    AnyRtcpPacket,
    RtcpPsfbPacket,
    unpack_remb_fci,
)
from av.packet import Packet

from worldline.core.clock import Clock
from worldline.core.errors import InputError
from worldline.core.live.shared import Format
from worldline.server.live.bitrate import LEAST
from worldline.server.live.following import Following, Pace, Unit

RTP_CLOCK: Final = 90_000
SHARE: Final = 0.9  # of what the receiver estimates; the rest is for packets lost and headers


class WorldTrack(MediaStreamTrack):
    """The stream as a track, a `Follower`.

    `holds` tells whether the bitrate follows it; `shown` hears of every picture that is sent;
    `limit_kbps` is what the receiver says its network can carry, 0 while it has not said.
    """

    kind = "video"
    format: Format = "h264"

    def __init__(
        self, clock: Clock, *, fps: int, pace: Pace, holds: Callable[[], bool] = lambda: False
    ) -> None:
        super().__init__()
        self.following: Following | None = Following(chained=True, pace=pace)
        self._clock = clock
        self._fps = fps
        self._holds = holds
        self.limit_kbps = 0
        self.shown: Callable[[Unit], None] = lambda _: None
        self._wake = asyncio.Event()

    @property
    def holder(self) -> bool:
        """Whether its viewer has the controls."""
        return self._holds()

    def offer(self, unit: Unit) -> None:
        """A picture of the stream."""
        if self.following is not None:
            self.following.offer(unit, self._clock.now())
            self._wake.set()

    def saw(self, number: int) -> None:
        """Nothing: a track has no stills."""

    def end(self) -> None:
        """There will be no more pictures."""
        self.following = None
        self._wake.set()

    async def recv(self) -> Packet:
        """The next access unit; waits for it. Raises: MediaStreamError at the end."""
        while (following := self.following) is not None:
            taken = following.take(self._clock.now())
            if isinstance(taken, Unit):
                following.wrote(taken.number, 0.0)
                self.shown(taken)
                return self._packet(taken)
            following.wrote(-1, 0.0)  # nothing is under way: it may come back at a key frame
            self._wake.clear()
            await self._wake.wait()
        raise MediaStreamError

    def _packet(self, unit: Unit) -> Packet:
        packet = Packet(unit.payload)
        packet.time_base = Fraction(1, RTP_CLOCK)
        packet.pts = unit.number * RTP_CLOCK // self._fps
        return packet


class Peer:
    """One connection. `changed` is called with True once it is up and with False when it is over.

    `lost` is called when the receiver needs a key frame.
    """

    def __init__(
        self,
        track: WorldTrack,
        *,
        ice: Sequence[str],
        lost: Callable[[], None],
        changed: Callable[[bool], None],
    ) -> None:
        servers = [RTCIceServer(urls=url) for url in ice]
        self.track = track
        self._connection = RTCPeerConnection(RTCConfiguration(iceServers=servers))
        self._connection.on("connectionstatechange", self._state_changed)
        self._lost = lost
        self._changed = changed
        self._up = False
        self.over = asyncio.Event()

    async def answer(self, sdp: str) -> str:
        """The answer to an offer, with all candidates of this side.

        Raises: InputError for what is no offer of a video in H.264 that is only received.
        """
        connection = self._connection
        video = connection.addTransceiver(self.track, direction="sendonly")
        known = RTCRtpSender.getCapabilities("video").codecs
        video.setCodecPreferences([codec for codec in known if codec.mimeType == "video/H264"])
        _hear(video.sender, self._feedback)
        try:
            await connection.setRemoteDescription(RTCSessionDescription(sdp, "offer"))
        except Exception as error:  # the parser raises whatever it stumbles over
            raise InputError(
                "the offer cannot be read", expected="an SDP offer", got=f"{error!r}"[:200]
            ) from error
        if len(connection.getTransceivers()) != 1 or connection.sctp is not None:
            raise InputError("the offer does not fit", expected="one video that is only received")
        try:
            await connection.setLocalDescription(await connection.createAnswer())
        except Exception as error:
            raise InputError(
                "the offer does not fit", expected="H.264, received", got=f"{error!r}"[:200]
            ) from error
        return connection.localDescription.sdp

    async def close(self) -> None:
        """End the connection; idempotent."""
        self.track.end()
        await self._connection.close()
        self._state(False)
        self.over.set()

    async def _state_changed(self) -> None:
        state = self._connection.connectionState
        if state == "connected":
            self._state(True)
        elif state in ("failed", "closed"):
            self._state(False)
            self.over.set()

    def _state(self, up: bool) -> None:
        if up != self._up:
            self._up = up
            self._changed(up)

    def _feedback(self, sender: RTCRtpSender, packet: AnyRtcpPacket) -> None:
        if not isinstance(packet, RtcpPsfbPacket):
            return
        if packet.fmt in (RTCP_PSFB_PLI, RTCP_PSFB_FIR):
            self._lost()
        elif packet.fmt == RTCP_PSFB_APP:
            try:
                bits, sources = unpack_remb_fci(packet.fci)
            except ValueError:  # some other application's feedback
                return
            if sender._ssrc in sources:
                self.track.limit_kbps = max(LEAST, round(bits * SHARE / 1000))


def _hear(sender: RTCRtpSender, feedback: Callable[[RTCRtpSender, AnyRtcpPacket], None]) -> None:
    """Let `feedback` see every RTCP packet of a sender before the sender does."""
    pass_on = sender._handle_rtcp_packet

    @functools.wraps(pass_on)
    async def heard(packet: AnyRtcpPacket) -> None:
        feedback(sender, packet)
        await pass_on(packet)

    sender._handle_rtcp_packet = heard
