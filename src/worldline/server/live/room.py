"""One world and those who are in it: who holds the controls, who watches, who is gone.

A room outlives its connections. When the holder's is lost, all keys are released and the world
waits; the token opens it again at the next chunk. Spectators see the same encode; the controls pass
when the holder gives them, or to the first who asked when the holder does not come back in time.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from worldline.core.clock import Clock
from worldline.core.errors import NoControlsError, SessionError
from worldline.core.live.client import (
    AskControl,
    Enter,
    GiveControl,
    Input,
    Pause,
    Record,
    Resume,
    Settings,
    Trace,
)
from worldline.core.live.server import ControlOf, Notice, Received, ServerMessage
from worldline.core.live.shared import State
from worldline.core.walk import WorldFile
from worldline.server.live.beginning import Beginning
from worldline.server.live.broadcast import Broadcast
from worldline.server.live.family import DeskFamily, Parent
from worldline.server.live.guest import Ending, Guest
from worldline.server.live.leases import Tenancy, heard
from worldline.server.live.recording import Recorder
from worldline.server.live.seams import Desk, World
from worldline.server.live.signalling import Peers
from worldline.server.live.track import Track

_PLAIN: Final = Beginning()
_ASKED: Final = "a viewer asks for the controls: `control` says which"


class Room:
    """Made when a visitor enters; `seated` is set when there is a seat, `over` ends it."""

    def __init__(
        self,
        name: str,
        enter: Enter,
        *,
        holder: Guest | None,
        client: str,
        clock: Clock,
        desk: Desk,
        beginning: Beginning = _PLAIN,
    ) -> None:
        loop = asyncio.get_running_loop()
        self.id = name
        self.enter = enter
        self.client = client
        self.beginning = beginning
        self.guests: dict[str, Guest] = {}
        self.holder: str | None = None
        if holder is not None:
            self.guests[holder.id], self.holder = holder, holder.id
            holder.viewer.holder = True
        self.key: bytes | None = None  # digest of the holder's token
        self.world: World | None = None
        self.broadcast: Broadcast | None = None
        self.track: Track | None = None
        self.recorder: Recorder | None = None
        self.peers: Peers | None = None
        self.seated = asyncio.Event()
        self.over: asyncio.Future[Ending] = loop.create_future()
        self.changed = asyncio.Event()
        self.is_open = False
        self._clock = clock
        self._desk = desk
        self._asking: dict[str, None] = {}
        self._suspended = False  # by us, because nobody holds the controls
        self._paused = False  # by the visitor
        now = clock.now()
        gone = now if holder is None else None
        self.tenancy = Tenancy(began=now, heard=now, open=False, gone=gone)

    @property
    def is_gone(self) -> bool:
        """Whether the holder's connection is lost."""
        return self.holder is None

    @property
    def state(self) -> State:
        """The world's state; `queued` before there is one."""
        return "queued" if self.world is None else self.world.state

    @property
    def watching(self) -> int:
        """Connections, without the holder's."""
        return len(self.guests) - (self.holder in self.guests)

    @property
    def family(self) -> DeskFamily:
        """How its world founds others."""
        return DeskFamily(
            self._desk, lambda: Parent(self.enter, self.client, self.beginning.picture)
        )

    def end(self, how: Ending) -> None:
        """Let the world end and its connections close; the first ending counts.

        The holder is told where an open recording is before anybody hears goodbye.
        """
        if self.over.done():
            return
        if self.recorder is not None:
            self.recorder.finish()
        self.over.set_result(how)

    def furnish(self, world: World, broadcast: Broadcast) -> None:
        """There is a seat: these are made, and whoever is here will see them."""
        self.world, self.broadcast = world, broadcast
        broadcast.settings(quality=self.enter.quality)
        for guest in self.guests.values():
            broadcast.attach(guest.viewer, guest.viewer.format)

    def opened(self) -> None:
        """The engine has opened the world: everybody is told what it is."""
        self.is_open = True
        now = self._clock.now()
        taped_s = 0.0  # who watches a tape is not idle
        if self.beginning.file is not None and not self.beginning.at_end:
            taped_s = self.beginning.file.seconds
        self.tenancy = self.tenancy._replace(began=now, heard=now + taped_s, open=True)
        self.changed.set()
        for guest in self.guests.values():
            self._show_in(guest)
        self._tell_control()
        if self.is_gone:
            self._suspend()

    def hold(self, guest: Guest) -> None:
        """`guest` has the controls from now on; whoever had them watches."""
        self.holder = guest.id
        self._asking.pop(guest.id, None)
        for other in self.guests.values():
            other.viewer.holder = other is guest
        self.tenancy = self.tenancy._replace(gone=None, heard=self._clock.now(), moving=False)
        if self._suspended:
            self._suspended = False
            self._go_on()
        self.changed.set()

    def seat_back(self) -> None:
        """The seat that was lent is here again: the world goes on, if somebody still wants that."""
        self.tenancy = self.tenancy._replace(heard=self._clock.now(), moving=False)
        if self.world is not None and not (self._suspended or self._paused):
            self.world.resume()
            self.tenancy = self.tenancy._replace(waiting=None)
        self.changed.set()

    def add(self, guest: Guest, *, holds: bool) -> None:
        """A connection comes in, to hold the controls or to watch."""
        self.guests[guest.id] = guest
        guest.viewer.holder = False
        if self.broadcast is not None:
            self.broadcast.attach(guest.viewer, guest.viewer.format)
        if holds:
            returned = self.is_gone
            self.hold(guest)
            if returned:
                self._tell_others(guest, Notice(code="holder_back", message="walking goes on"))
        if self.is_open:
            self._show_in(guest)
        self._tell_control()

    def remove(self, guest: Guest) -> None:
        """A connection is lost, or leaves: nothing of it stays, and what it held is released."""
        if self.guests.pop(guest.id, None) is None:
            return
        self._asking.pop(guest.id, None)
        if self.broadcast is not None:
            self.broadcast.detach(guest.viewer)
        if self.over.done():
            return
        if self.holder == guest.id:
            self._lose_holder()
        self._tell_control()

    def take(self, guest: Guest, message: Input) -> Sequence[ServerMessage]:
        """An input of one of the connections; what to answer.

        Raises: NoControlsError for one who only watches, and whatever the world refuses.
        """
        if isinstance(message, AskControl):
            return self._ask(guest, message)
        if self.world is None or not self.is_open:
            raise SessionError("the world is not open yet", expected="opened first")
        if self.holder != guest.id and not _is_own(message):
            raise NoControlsError("you watch", expected="the controls: send ask_control")
        if isinstance(message, Settings) and self.holder != guest.id:
            self._set(guest, message)
            return [self._received(message)]
        if isinstance(message, GiveControl):
            return self._give(message)
        recording = self._record(message)  # first: what is refused has changed nothing
        answers = self._take(self.world, message)
        self._hear(message)
        if isinstance(message, Settings):
            self._set(guest, message)
        if recording:
            return [*answers, *recording]
        if self.track is not None:
            self.track.input(message)
            if isinstance(message, Trace):
                return [*answers, self.track.switch(message.on)]
        return answers

    def pass_on(self) -> bool:
        """The holder does not come back: the first who asked has the controls, if anybody did."""
        heir = next((self.guests[name] for name in self._asking if name in self.guests), None)
        if heir is not None:
            self._pass_to(heir)
        return heir is not None

    def tell(self, message: ServerMessage) -> None:
        """A message for everybody who is here."""
        for guest in self.guests.values():
            guest.send(message)

    def begin(self, file: WorldFile | None) -> None:
        """The start picture was taken out: from now on it is the world's, encoded as it came."""
        picture, at_end = self.enter.image, self.enter.at_end
        self.beginning = self.beginning._replace(picture=picture, file=file, at_end=at_end)
        self.enter = msgspec.structs.replace(self.enter, image=b"")

    def stir(self) -> None:
        """The lease for idleness begins anew."""
        self.tenancy = self.tenancy._replace(heard=self._clock.now())
        self.changed.set()

    def drain(self) -> None:
        """Let the world end after the chunk in flight."""
        if self.world is not None and self.is_open:
            self.world.drain()

    def park(self) -> None:
        """Move a world that waits to host memory."""
        if self.world is not None:
            self.world.park()

    def lend(self) -> None:
        """Let somebody else have the seat, or try again later while the world is still moving."""
        if self.world is not None and self.world.state == "parked":
            self._desk.lend(self)
        else:
            self.tenancy = self.tenancy._replace(tried=self._clock.now())

    def _record(self, message: Input) -> Sequence[ServerMessage]:
        if self.recorder is None or not isinstance(message, Record):
            return ()
        return [self.recorder.switch(message.on)]

    def _take(self, world: World, message: Input) -> Sequence[ServerMessage]:
        """The world's own answer; going on needs the seat first."""
        if isinstance(message, Resume):
            self._suspended = self._paused = False
            if not self._desk.claim(self):
                self._wait_for_seat()
                return [self._received(message)]
        return world.take(message)

    def _go_on(self) -> None:
        if self.world is None:
            return
        if self._desk.claim(self):
            self.world.resume()
            self.tenancy = self.tenancy._replace(waiting=None)
        else:
            self._wait_for_seat()

    def _wait_for_seat(self) -> None:
        """Who waits in line is not idle."""
        self.tenancy = self.tenancy._replace(moving=True)

    def _ask(self, guest: Guest, message: AskControl) -> Sequence[ServerMessage]:
        if self.holder != guest.id and guest.id not in self._asking:
            self._asking[guest.id] = None
            holder = self.guests.get(self.holder or "")
            if holder is not None:
                holder.send(Notice(code="control_asked", message=_ASKED))
            self._tell_control()
        return [self._received(message)]

    def _received(self, message: Input) -> Received:
        return Received(id=message.id, server_ms=self._clock.now() * 1000)

    def _give(self, message: GiveControl) -> Sequence[ServerMessage]:
        heir = self.guests.get(message.viewer)
        if heir is None:
            raise SessionError("there is no such viewer", got=repr(message.viewer[:40]))
        if heir.id != self.holder:
            self._pass_to(heir)
        return [self._received(message)]

    def _pass_to(self, heir: Guest) -> None:
        assert self.world is not None, "controls pass in an open world"
        self.world.pass_on()
        if self.track is not None:
            self.track.new_hand()
        self.hold(heir)
        self._send_timeline(heir)
        self._desk.new_key(self, heir)
        self._tell_control()

    def _lose_holder(self) -> None:
        now = self._clock.now()
        self.holder = None
        self.tenancy = self.tenancy._replace(gone=now, moving=False)
        if self.track is not None:
            self.track.new_hand()
        if self.world is not None and self.is_open:
            self.world.let_go()
            self._suspend()
        self.changed.set()

    def _suspend(self) -> None:
        """Nobody walks: stop after the chunk in flight. A pause the visitor made stays one."""
        if self.world is not None and not self._paused:
            self.world.pause()
            self._suspended = True
            self.tenancy = self.tenancy._replace(waiting=self._clock.now())

    def _hear(self, message: Input) -> None:
        """An input came from the holder: the lease begins anew."""
        assert self.world is not None, "only an open world takes inputs"
        opened = self.world.opened
        now, latent_s = self._clock.now(), opened.latent_frames / opened.fps
        before = self.tenancy
        self.tenancy = heard(before, message, now=now, latent_s=latent_s)
        if isinstance(message, Pause | Resume):
            self._paused = isinstance(message, Pause)
        if (before.moving, before.waiting) != (self.tenancy.moving, self.tenancy.waiting):
            self.changed.set()  # something may be due sooner than what is waited for

    def _set(self, guest: Guest, message: Settings) -> None:
        """What of the settings is about pictures: the format is each viewer's own affair."""
        assert self.broadcast is not None, "an open world has viewers"
        if message.format is not None:
            self.broadcast.attach(guest.viewer, message.format)
        if guest.id == self.holder:
            self.broadcast.settings(quality=message.quality, bitrate_kbps=message.bitrate_kbps)

    def _show_in(self, guest: Guest) -> None:
        assert self.world is not None, "the world is open"
        opened = self.world.opened
        holds = guest.id == self.holder
        guest.send(msgspec.structs.replace(opened, controls=holds, state=self.world.state))
        if holds:
            self._send_timeline(guest)

    def _send_timeline(self, guest: Guest) -> None:
        assert self.world is not None, "the world is open"
        for moment in self.world.moments:
            guest.send(moment)

    def _tell_control(self) -> None:
        asking = tuple(self._asking)
        for guest in self.guests.values():
            holds = guest.id == self.holder
            guest.send(ControlOf(yours=holds, viewers=len(self.guests), asking=asking))

    def _tell_others(self, guest: Guest, message: ServerMessage) -> None:
        for other in self.guests.values():
            if other is not guest:
                other.send(message)


def _is_own(message: Input) -> bool:
    """Whether it changes nothing but what the one who says it sees."""
    fields = msgspec.structs.asdict(message) if isinstance(message, Settings) else {}
    return bool(fields) and all(
        value is None for name, value in fields.items() if name not in ("id", "at_ms", "format")
    )
