"""A session as a Chrome trace: load the file in chrome://tracing or ui.perfetto.dev.

A trace has lanes: what the governor and the device let wait, the engine's step with its stages, the
encoder, inputs from their arrival to the picture that was seen, and the client's own times. It
keeps the newest events and drops the oldest, and the store keeps the newest traces, few of one
world: a forgotten one costs about 10 MB and nothing more. Whoever has its id may fetch it, so the
id is long.

The client's clock is placed on ours by the smallest delay any of its messages showed, as if that
message had travelled in no time. The stages of a step are measured lengths, drawn in a row.
"""

from __future__ import annotations

import secrets
from collections import OrderedDict, deque
from collections.abc import Callable, Mapping, Sequence
from functools import partial
from types import MappingProxyType
from typing import Any, Final, Literal, NamedTuple

import msgspec

MAX_EVENTS: Final = 20_000
MAX_TRACES: Final = 16
MAX_OF_A_WORLD: Final = 2  # so that nobody drives the traces of others out
PATH: Final = "/v1/traces"

Lane = Literal["world", "wait", "device", "step", "stages", "encode", "inputs", "client"]
LANES: Final[dict[Lane, str]] = {
    "world": "world: states",
    "wait": "governor: wait",
    "device": "device: wait for a turn",
    "step": "engine: step",
    "stages": "engine: stages",
    "encode": "encoder",
    "inputs": "inputs: arrived to applied",
    "client": "client: received to shown",
}
_NUMBERS: Final[dict[Lane, int]] = {lane: number for number, lane in enumerate(LANES, start=1)}
_PROCESS: Final = 1


class Event(NamedTuple):
    """One thing that happened; seconds of the server's clock. `length_s` None is a moment."""

    lane: Lane
    name: str
    start_s: float
    length_s: float | None = None
    facts: Mapping[str, object] = MappingProxyType({})


class Trace:
    """One session's events, at most `MAX_EVENTS` of them."""

    def __init__(self, world: str, now: float) -> None:
        self.id = secrets.token_urlsafe(16)
        self.world = world
        self.began = now
        self.recording = True
        self._events: deque[Event] = deque(maxlen=MAX_EVENTS)
        self._dropped = 0

    def __len__(self) -> int:
        return len(self._events)

    @property
    def url(self) -> str:
        """Where it can be fetched, relative to the server."""
        return f"{PATH}/{self.id}"

    def add(self, *events: Event) -> None:
        """Keep these events, if the trace is still being recorded."""
        if self.recording:
            for event in events:
                self._dropped += len(self._events) == MAX_EVENTS
                self._events.append(event)

    def file(self) -> Callable[[], bytes]:
        """The trace as it is now; call what this returns, in any thread, for the file's bytes."""
        return partial(self._render, tuple(self._events), self._dropped)

    def _render(self, events: Sequence[Event], dropped: int) -> bytes:
        """JSON of the Trace Event Format. Times in microseconds since the trace began."""
        named = [_name("process_name", 0, f"world {self.world}")]
        named += [_name("thread_name", _NUMBERS[lane], text) for lane, text in LANES.items()]
        named += [_order(number) for number in _NUMBERS.values()]
        document = {
            "displayTimeUnit": "ms",
            "otherData": {"world": self.world, "dropped_events": dropped},
            "traceEvents": [*named, *(self._as_json(event) for event in events)],
        }
        return msgspec.json.encode(document)

    def _as_json(self, event: Event) -> dict[str, Any]:
        line: dict[str, Any] = {
            "name": event.name,
            "cat": event.lane,
            "pid": _PROCESS,
            "tid": _NUMBERS[event.lane],
            "ts": round((event.start_s - self.began) * 1e6),
            "args": dict(event.facts),
        }
        if event.length_s is None:
            return {**line, "ph": "i", "s": "t"}
        return {**line, "ph": "X", "dur": max(0, round(event.length_s * 1e6))}


class Traces:
    """The newest traces of a server, at most `MAX_TRACES`."""

    def __init__(self) -> None:
        self._traces: OrderedDict[str, Trace] = OrderedDict()

    def begin(self, world: str, now: float) -> Trace:
        """A new trace; the oldest is forgotten when there are too many, of this world first."""
        same = [trace.id for trace in self._traces.values() if trace.world == world]
        if len(same) >= MAX_OF_A_WORLD:
            self._forget(same[0])
        elif len(self._traces) >= MAX_TRACES:
            self._forget(next(iter(self._traces)))
        trace = Trace(world, now)
        self._traces[trace.id] = trace
        return trace

    def find(self, id: str) -> Trace | None:
        """The trace of this id, also while it is being recorded."""
        return self._traces.get(id)

    def all(self) -> tuple[Trace, ...]:
        """Every trace there is, oldest first."""
        return tuple(self._traces.values())

    def _forget(self, id: str) -> None:
        self._traces.pop(id).recording = False


def _name(what: str, thread: int, name: str) -> dict[str, Any]:
    return {"name": what, "ph": "M", "pid": _PROCESS, "tid": thread, "args": {"name": name}}


def _order(thread: int) -> dict[str, Any]:
    args = {"sort_index": thread}
    return {"name": "thread_sort_index", "ph": "M", "pid": _PROCESS, "tid": thread, "args": args}
