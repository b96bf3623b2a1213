"""One world as its client knows it, over any number of connections; no sockets and no waiting.

    opening() -> what to say on a new connection      take(message) -> what to answer at once
    frames, events                                    what came and was not looked at yet

Who drives it (`aio.py`) moves bytes, waits, and tells the time through a clock.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Final, NamedTuple

import msgspec

from worldline.client.clock_sync import ClockSync
from worldline.client.decoding import Decoder, known_formats
from worldline.client.errors import RefusedError
from worldline.client.hand import Hand
from worldline.client.picture import Picture
from worldline.client.playhead import Player
from worldline.client.receipts import Receipt, Receipts
from worldline.client.timeline import Timeline
from worldline.core.clock import Clock
from worldline.core.errors import UnknownWorldError, WorkerDiedError, WorldlineError
from worldline.core.live.client import (
    Camera,
    ClientMessage,
    Enter,
    Hello,
    Input,
    KeyFrame,
    Keys,
    Ping,
    Playhead,
    Rejoin,
    Release,
    Script,
    Shown,
    Watch,
)
from worldline.core.live.server import (
    Applied,
    Branched,
    Bye,
    Chunk,
    ControlOf,
    Failure,
    Frame,
    Moment,
    Opened,
    Pong,
    Queued,
    Ready,
    Received,
    Recording,
    Rewound,
    Saved,
    Seat,
    ServerMessage,
    StateChange,
    Traced,
)
from worldline.core.live.shared import Format, State
from worldline.core.secret import Secret

Make = Callable[[int, float], Input | None]  # input id, our clock in ms -> the message, if any
EVENTS_KEPT: Final = 1024
PLAYHEAD_EVERY_MS: Final = 100.0


class Waiting(NamedTuple):
    """A frame that came and was not decoded yet."""

    frame: Frame
    received_ms: float


class Talking(NamedTuple):
    """`format` None takes the best that both sides know; `realtime` False hurries the server."""

    format: Format | None = None
    realtime: bool = True


class Conversation:
    """`first` says how the world is reached the first time; afterwards its token does.

    Enter and Watch go out with the format that was agreed on in `hello` and `ready`.
    """

    def __init__(
        self,
        first: Enter | Rejoin | Watch,
        hello: Hello,
        clock: Clock,
        *,
        options: Talking,
        token: Secret | None = None,
    ) -> None:
        self._first = first
        self._hello = hello
        self._key = token  # of the server; put into `hello` only when it is sent
        self._clock = clock
        self._options = options
        self._player = Player(fps=1.0, realtime=options.realtime)
        self._stalled = 0  # on earlier connections
        self._decoder = Decoder()
        self._hand = Hand()
        self._last_keys: Receipt | None = None
        self._told_ms = -PLAYHEAD_EVERY_MS
        self.receipts = Receipts()
        self.clock_sync = ClockSync()
        self.frames: deque[Waiting] = deque()
        self.events: deque[ServerMessage] = deque(maxlen=EVENTS_KEPT)
        self.ready: Ready | None = None
        self.seat: Seat | None = None
        self.token: str | None = first.token if isinstance(first, Rejoin) else None
        self.queued: Queued | None = None
        self.opened: Opened | None = None
        self.state: State = "queued"
        self.stats: Chunk | None = None
        self.control: ControlOf | None = None
        self.recording: Recording | None = None
        self.traced: Traced | None = None
        self.timeline = Timeline()
        self.live = False  # whether inputs can be sent on this connection
        self.setback: Failure | None = None  # why we were sent away; it passes by itself
        self.sent_away = False  # on this connection
        self.over, self.dropped = False, 0
        self.reason: WorldlineError | None = None  # why it is over; None for an end that was due

    @property
    def stalls(self) -> int:
        """How often an eye would have waited for a frame."""
        return self._stalled + self._player.stalls

    def now_ms(self) -> float:
        """Our clock."""
        return self._clock.now() * 1000.0

    def opening(self) -> list[ClientMessage]:
        """What to say first on every connection."""
        key = self._key.reveal() if self._key is not None else None
        return [msgspec.structs.replace(self._hello, token=key)]

    def lost(self) -> None:
        """The connection broke; the world may still be there."""
        self.live = self.sent_away = False
        self._hand.forget()
        self._last_keys = None
        self._decoder.forget()
        self._player.lost()
        self.clock_sync.forget()
        self.receipts.lose()

    def end(self, reason: WorldlineError | None) -> None:
        """Nothing more will come."""
        if not self.over:
            self.over, self.live, self.reason = True, False, reason

    def take(self, message: ServerMessage) -> list[ClientMessage]:
        """Fold one message in; what to answer at once."""
        if isinstance(message, Frame):
            now = self.now_ms()
            self.frames.append(Waiting(message, now))
            self._player.arrived(message.number, now)
            return []
        if isinstance(message, Pong):
            now = self.now_ms()
            self.clock_sync.answered(sent=message.at_ms, server=message.server_ms, now=now)
            return []
        self.events.append(message)
        if isinstance(message, Ready):
            self.ready = message
            return [self._where_to(message)]
        self._note(message)
        return []

    def _note(self, message: ServerMessage) -> None:
        """Remember the newest of each kind."""
        match message:
            case Seat(token=token):
                self.seat, self.queued = message, None
                self.token = token if isinstance(token, str) else self.token
            case Queued():
                self.queued = message
            case Opened(state=state):
                self.opened, self.state, self.live = message, state, True
                self.timeline.begin()
                self.setback = None
                self._stalled = self.stalls
                self._player = Player(fps=message.fps, realtime=self._options.realtime)
            case StateChange(state=state):
                self.state = state
            case Received():
                self.receipts.received(message)
            case Applied():
                self.receipts.applied(message)
            case Chunk():
                self.stats = message
            case ControlOf():
                self.control = message
            case Recording():
                self.recording = message
            case Traced():
                self.traced = message
            case Moment() | Rewound():
                self.timeline.take(message)
            case Branched() | Saved():
                self.receipts.answered(message)
            case Failure():
                self._refused(message)
            case Bye():
                self.end(None)
            case _:
                pass  # notices are events and nothing else

    def _refused(self, message: Failure) -> None:
        mine = self.receipts.refused(message)
        # Before a world is open every refusal that is not about an input answers the opening.
        if message.fatal or (not mine and not self.live):
            self.send_away(message)

    def send_away(self, why: Failure) -> None:
        """The server ends this connection: the world too, unless that passes by itself."""
        passes = why.retryable and why.code != WorkerDiedError.code  # its worlds died with it
        if passes and self.opened is not None:
            self.setback, self.sent_away = why, True
        elif why.code == UnknownWorldError.code and self.setback is not None:
            self.end(RefusedError(self.setback))  # it ended by what sent us away
        else:
            self.end(RefusedError(why))

    def _where_to(self, ready: Ready) -> ClientMessage:
        """What follows `ready`: the world by its token, or as it was asked for."""
        format = self.format_for(ready)
        if self.token is not None:
            return Rejoin(token=self.token, format=format)
        if isinstance(self._first, Enter):
            return msgspec.structs.replace(self._first, format=format)
        assert isinstance(self._first, Watch), "a rejoin has its token"
        return Watch(world=self._first.world, format=format)

    def format_for(self, ready: Ready) -> Format:
        """The one asked for, else the server's best that can be decoded here."""
        if self._options.format is not None:
            return self._options.format
        mine = known_formats()
        both: list[Format] = [name for name in ready.formats if name in mine]
        return both[0] if both else "jpeg"

    def input(self, make: Make) -> tuple[Receipt, Input | None]:
        """The next input and its receipt; without a message when it would change nothing."""
        now = self.now_ms()
        message = make(self.receipts.newest + 1, now)
        if message is None:
            return self._last_keys or Receipt(0, now), None
        receipt = self.receipts.begin(now)
        if isinstance(message, Keys):
            self._last_keys = receipt
        elif isinstance(message, Release | Script | Camera):
            self._hand.forget()  # these replace what is held
        return receipt, message

    def keys(self, change: Callable[[Hand], bool]) -> Make:
        """A `Make` that changes the held keys and says so only when they changed."""

        def make(number: int, at_ms: float) -> Input | None:
            if not change(self._hand):
                return None
            return Keys(id=number, at_ms=at_ms, held=self._hand.held)

        return make

    def next_picture(self, *, newest: bool) -> tuple[Picture | None, list[ClientMessage]]:
        """Decode the next frame (or, with `newest`, all that wait, for the last one).

        Also what to tell the server: the playhead, a first sight of an input, a lost stream.
        """
        picture: Picture | None = None
        told: list[ClientMessage] = []
        while self.frames:
            frame, received_ms = self.frames.popleft()
            pixels = self._decoder.decode(frame)
            if pixels is None:
                if self._decoder.needs_key_frame():
                    told.append(KeyFrame())
                continue
            self.dropped += picture is not None
            picture = Picture(frame, pixels, received_ms)
            if not newest:
                break
        if picture is not None:
            told += self._seen(picture)
        return picture, told

    def _seen(self, picture: Picture) -> list[ClientMessage]:
        now = self.now_ms()
        self._player.handed(picture.number, now)
        told: list[ClientMessage] = []
        if self.receipts.shown(picture.input, picture.number) is not None:
            told.append(
                Shown(
                    id=picture.input,
                    frame=picture.number,
                    at_ms=now,
                    received_ms=picture.received_ms,
                    decoded_ms=now,
                )
            )
        if now - self._told_ms >= PLAYHEAD_EVERY_MS:
            told.append(self.playhead())
        return told

    def playhead(self) -> Playhead:
        """Where this client is, for the server's pacing."""
        self._told_ms = now = self.now_ms()
        position = self._player.position(now)
        return Playhead(
            frame=position.frame,
            lead_ms=position.lead_ms,
            at_ms=now,
            stalls=self.stalls,
            dropped=self.dropped,
        )

    def ping(self) -> Ping:
        """Heartbeat and clock."""
        return Ping(at_ms=self.now_ms())
