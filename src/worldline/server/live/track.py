"""One world as it is measured: from what it tells its audience, and from what its visitor reports.

`Track` turns inputs, receipts, chunks and the client's reports into metrics, and into a Chrome
trace while one is on. `Observed` stands between a world and its audience and passes everything on;
so the world itself knows nothing of either.

An input's way is told in parts that sum up to `photon`, all in seconds: `applied` (here: from its
arrival until the pictures that show it were encoded), `decode` and `queue` (in the client: from
receiving to decoded, and on to the screen), `network` (all that is left: both ways).
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Final, NamedTuple

from worldline.core.clock import Clock
from worldline.core.live.client import InputMessage, Playhead, Shown
from worldline.core.live.server import Applied, Chunk, ServerMessage, StateChange, Traced
from worldline.server.live.frames import Audience, ChunkFrames, Sent
from worldline.server.metrics import Metrics
from worldline.server.tracing import Event, Trace, Traces

MAX_WAITING: Final = 512  # inputs of which a receipt or a report may still come
STEP_STAGES: Final = ("conditions", "picture", "denoise", "context", "decode", "transfer")
PARTS: Final = ("applied", "decode", "queue", "network", "photon")
_LONGEST_S: Final = 600.0  # what a client reports beyond is no measurement


class _Waiting(NamedTuple):
    """An input on its way: its kind, when it happened there, and when it came and was applied."""

    kind: str
    at_ms: float
    came: float
    applied: float | None = None


class Track:
    """Of one world. Nothing here raises for what a client reports, however wrong."""

    def __init__(self, world: str, *, metrics: Metrics, traces: Traces, clock: Clock) -> None:
        self._world = world
        self._metrics = metrics
        self._traces = traces
        self._clock = clock
        self._trace: Trace | None = None
        self._waiting: OrderedDict[int, _Waiting] = OrderedDict()
        self._offset: float | None = None  # our seconds minus the client's: the smallest seen
        self._stalls = self._dropped = 0
        self._misses = 0

    @property
    def trace(self) -> Trace | None:
        """The trace that is being recorded."""
        return self._trace

    def switch(self, on: bool) -> Traced:
        """Begin or end a trace; the answer has its address, also of one that goes on."""
        if on and (self._trace is None or not self._trace.recording):
            self._trace = self._traces.begin(self._world, self._clock.now())
        trace = self._trace
        if not on and trace is not None:
            trace.recording = False
            self._trace = None
        return Traced(on=on, url="" if trace is None else trace.url)

    def new_hand(self) -> None:
        """Somebody else has the controls: ids and counts begin anew, and so does their clock."""
        self._waiting.clear()
        self._offset = None
        self._stalls = self._dropped = 0

    def input(self, message: InputMessage) -> None:
        """An input was taken."""
        now = self._clock.now()
        self._sync(message.at_ms, now)
        if len(self._waiting) >= MAX_WAITING:
            self._waiting.popitem(last=False)
        kind = str(message.__struct_config__.tag)
        self._waiting[message.id] = _Waiting(kind, message.at_ms, now)

    def shown(self, report: Shown) -> None:
        """The client has seen an input's effect."""
        waiting = self._waiting.pop(report.id, None)
        now = self._clock.now()
        self._sync(report.at_ms, now)
        if waiting is None or waiting.applied is None or not waiting.at_ms:
            return
        parts = {
            "applied": waiting.applied - waiting.came,
            "decode": (report.decoded_ms - report.received_ms) / 1000,
            "queue": (report.at_ms - report.decoded_ms) / 1000,
            "photon": (report.at_ms - waiting.at_ms) / 1000,
        }
        parts["network"] = parts["photon"] - parts["applied"] - parts["decode"] - parts["queue"]
        if not all(0 <= seconds <= _LONGEST_S for seconds in parts.values()):
            return  # a clock that jumped, or a client that invents
        self._metrics.observe_input(parts)
        if self._trace is not None and self._offset is not None:
            start = self._offset + report.received_ms / 1000
            length = (report.at_ms - report.received_ms) / 1000
            facts = {"input": report.id, "frame": report.frame}
            facts |= {name: round(seconds * 1000, 3) for name, seconds in parts.items()}
            self._trace.add(Event("client", waiting.kind, start, length, facts))

    def playhead(self, report: Playhead) -> None:
        """Where the screen is, and how often it stood still."""
        self._sync(report.at_ms, self._clock.now())
        stalls = max(0, report.stalls - self._stalls)
        dropped = max(0, report.dropped - self._dropped)
        self._stalls, self._dropped = report.stalls, report.dropped
        if stalls or dropped:
            self._metrics.count_playback(stalls=stalls, dropped=dropped)
        if stalls and self._trace is not None:
            facts = {"frame": report.frame, "stalls": report.stalls}
            self._trace.add(Event("client", "stall", self._clock.now(), None, facts))

    def told(self, message: ServerMessage) -> None:
        """The world said something about itself."""
        now = self._clock.now()
        if isinstance(message, Applied):
            self._applied(message, now)
        elif isinstance(message, Chunk):
            self._chunk(message, now)
        elif isinstance(message, StateChange) and self._trace is not None:
            facts = {"reason": message.reason}
            self._trace.add(Event("world", message.state, now, None, facts))

    def pictures(self, pictures: ChunkFrames, sent: Sent, now: float) -> None:
        """The pictures of one latent frame were encoded and offered."""
        if self._trace is not None:
            facts = {"first": pictures.number, "input": pictures.input, "bytes": sent.bytes}
            name = f"chunk {pictures.chunk}.{pictures.latent_frame}"
            start = now - sent.encode_s
            self._trace.add(Event("encode", name, start, sent.encode_s, facts))

    def _applied(self, message: Applied, now: float) -> None:
        waiting = self._waiting.get(message.id)
        if waiting is None or waiting.applied is not None:
            return
        self._waiting[message.id] = waiting._replace(applied=now)
        if self._trace is not None:
            facts = {"input": message.id, "chunk": message.chunk, "latent": message.latent_frame}
            length = now - waiting.came
            self._trace.add(Event("inputs", waiting.kind, waiting.came, length, facts))

    def _chunk(self, chunk: Chunk, now: float) -> None:
        misses, self._misses = max(0, chunk.misses - self._misses), chunk.misses
        self._metrics.count_live_chunk(chunk, misses=misses)
        if self._trace is None:
            return
        stages = {name: ms / 1000 for name, ms in chunk.stages.items()}
        asked = now - stages.get("total", 0.0)
        name = f"chunk {chunk.index}"
        facts = {"input": chunk.input, "lead_ms": chunk.lead_ms, "levers": list(chunk.levers)}
        wait, device = stages.get("wait", 0.0), stages.get("device", 0.0)
        stepped = asked + device
        self._trace.add(
            Event("wait", name, asked - wait, wait, facts),
            Event("device", name, asked, device),
            Event("step", name, stepped, stages.get("step", 0.0), {**chunk.stages}),
        )
        for stage in STEP_STAGES:
            length = stages.get(stage, 0.0)
            self._trace.add(Event("stages", stage, stepped, length, {"chunk": chunk.index}))
            stepped += length

    def _sync(self, at_ms: float, now: float) -> None:
        if at_ms:
            offset = now - at_ms / 1000
            self._offset = offset if self._offset is None else min(self._offset, offset)


class Observed:
    """An `Audience` that lets a track see what passes."""

    def __init__(self, audience: Audience, track: Track, clock: Clock) -> None:
        self._audience = audience
        self._track = track
        self._clock = clock

    async def show(self, pictures: ChunkFrames) -> Sent:
        """Pass on; the track hears when it was encoded."""
        sent = await self._audience.show(pictures)
        self._track.pictures(pictures, sent, self._clock.now())
        return sent

    def tell(self, message: ServerMessage) -> None:
        """Pass on."""
        self._track.told(message)
        self._audience.tell(message)

    def tell_holder(self, message: ServerMessage) -> None:
        """Pass on."""
        self._track.told(message)
        self._audience.tell_holder(message)

    def quality(self, share: float) -> None:
        """Pass on."""
        self._audience.quality(share)
