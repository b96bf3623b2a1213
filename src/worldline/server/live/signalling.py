"""Who sees a world by WebRTC: offers from sockets to peers, and back to the socket when they end.

Knows aiortc only through `rtc`, which is imported when the first offer comes; without the extra
`rtc` every offer is refused. A peer belongs to a socket's viewer: while it is up, that viewer's
pictures go by WebRTC and its socket carries only what is said about them.
"""

from __future__ import annotations

import asyncio
import importlib.util
import logging
from typing import TYPE_CHECKING, Final

import msgspec

from worldline.core.config import ServerConfig
from worldline.core.errors import ConfigError, InputError, RateError, WorldlineError
from worldline.core.live.codes import failure
from worldline.core.live.server import RtcAnswer
from worldline.media import h264
from worldline.server.live.broadcast import Broadcast
from worldline.server.live.following import Unit
from worldline.server.live.viewer import Viewer
from worldline.server.waiting import AsyncClock, stop, within

if TYPE_CHECKING:
    from worldline.server.live.rtc import Peer

logger = logging.getLogger("worldline.server.rtc")

CONNECT_S: Final = 15.0
OFFER_EVERY_S: Final = 2.0  # each costs a certificate, sockets and a handshake
MOST_CANDIDATES: Final = 32  # each is an address that this server will send packets to


def available() -> bool:
    """Whether this server can speak WebRTC."""
    return h264.available() and importlib.util.find_spec("aiortc") is not None


class Peers:
    """The peers of one world."""

    def __init__(self, broadcast: Broadcast, config: ServerConfig, clock: AsyncClock) -> None:
        self._broadcast = broadcast
        self._config = config
        self._clock = clock
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._leaving: set[asyncio.Task[None]] = set()
        self._offered: dict[str, float] = {}
        broadcast.closers.append(self.close)
        broadcast.leavers.append(self._left)

    def __len__(self) -> int:
        return len(self._tasks)

    def offer(self, viewer: Viewer, sdp: str) -> None:
        """Answer an offer, through the viewer; a new one replaces the viewer's peer.

        Raises: ConfigError where there is no WebRTC, RateError for one offer after the other,
        InputError for one that names too many addresses.
        """
        if not available():
            raise ConfigError("this server has no WebRTC", expected='pip install "worldline[rtc]"')
        if self._broadcast.geometry is None or "h264" not in self._broadcast.formats:
            raise ConfigError("this world has no WebRTC", expected="a world with H.264")
        count, now = sdp.count("a=candidate"), self._clock.now()
        if count > MOST_CANDIDATES:
            raise InputError(
                "too many candidates", expected=f"at most {MOST_CANDIDATES}", got=count
            )
        if now - self._offered.get(viewer.id, float("-inf")) < OFFER_EVERY_S:
            raise RateError("offers too fast", expected=f"one in {OFFER_EVERY_S:g} s")
        self.drop(viewer)
        self._offered[viewer.id] = now
        task = self._tasks[viewer.id] = asyncio.create_task(self._serve(viewer, sdp))
        task.add_done_callback(lambda _: self._forget(viewer.id, task))

    def drop(self, viewer: Viewer) -> None:
        """End the viewer's peer, if it has one."""
        task = self._tasks.pop(viewer.id, None)
        if task is not None:
            self._leaving.add(task)
            task.add_done_callback(self._leaving.discard)
            task.cancel()

    async def close(self) -> None:
        """End all of them, and return when they have ended."""
        await stop(*self._tasks.values())
        if self._leaving:  # these were told already: a second time would cut their end short
            await asyncio.wait(set(self._leaving))

    def _left(self, viewer: Viewer) -> None:
        self._offered.pop(viewer.id, None)
        self.drop(viewer)

    def _forget(self, name: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(name) is task:
            del self._tasks[name]

    async def _serve(self, viewer: Viewer, sdp: str) -> None:
        """One peer from its offer to its end."""
        up = asyncio.Event()
        peer: Peer | None = None
        try:
            peer = self._peer(viewer, up)
            viewer.send(RtcAnswer(sdp=await peer.answer(sdp)))
            await within(self._clock, CONNECT_S, _either(up, peer.over))
            await peer.over.wait()
        except TimeoutError:
            logger.info("WebRTC did not connect", extra={"fields": {"viewer": viewer.id}})
        except WorldlineError as error:
            viewer.send(failure(error))
        except Exception:
            logger.exception("WebRTC failed")
            viewer.send(failure(WorldlineError("WebRTC failed: the server's log says why")))
        finally:
            if peer is not None:
                await peer.close()

    def _peer(self, viewer: Viewer, up: asyncio.Event) -> Peer:
        from worldline.server.live.rtc import Peer, WorldTrack

        broadcast = self._broadcast
        track = WorldTrack(
            self._clock, fps=broadcast.stream.fps, pace=broadcast.pace, holds=lambda: viewer.holder
        )

        def shown(unit: Unit) -> None:
            if unit.frame is not None:
                viewer.send(msgspec.structs.replace(unit.frame, payload=b""))

        def changed(is_up: bool) -> None:
            if is_up:
                up.set()
                viewer.end()
                track.shown = shown
                broadcast.join(track)
                return
            broadcast.part(track)
            if viewer in broadcast.viewers and viewer.following is None:
                broadcast.attach(viewer, viewer.format)

        return Peer(
            track,
            ice=self._config.ice_servers,
            lost=lambda: broadcast.key_frame(track),
            changed=changed,
        )


async def _either(*events: asyncio.Event) -> None:
    waits = [asyncio.create_task(event.wait()) for event in events]
    try:
        await asyncio.wait(waits, return_when=asyncio.FIRST_COMPLETED)
    finally:
        await stop(*waits)
