"""What Prometheus sees: one collection per app, fed by the same reports as the log."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import TypeVar

from prometheus_client import (
    PROCESS_COLLECTOR,
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily
from prometheus_client.registry import Collector

from worldline.core.live.server import Chunk
from worldline.server.reports import ChunkReport, stage_times

BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.06, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0)
FACTORS = (0.1, 0.25, 0.5, 0.75, 0.9, 1.0, 1.1, 1.5, 2.0, 4.0)


class Metrics:
    """The app's metrics; docs/operations.md says what each means."""

    def __init__(self) -> None:
        self._maker = make = _Maker(CollectorRegistry(), "worldline")
        make.keep(PROCESS_COLLECTOR)
        self._stages = make.histogram("chunk_stage_seconds", "Time of each stage", "stage")
        self._chunks = make.counter("chunks", "Chunks sent", "content_type")
        self._frames = make.counter("frames", "Frames sent", "content_type")
        self._batches = make.counter("batches", "Frame messages sent", "content_type")
        self._raw_bytes = make.counter("raw_bytes", "Bytes of generated pixels", "content_type")
        self._wire_bytes = make.counter("wire_bytes", "Bytes of payloads sent", "content_type")
        self._travels = make.histogram(
            "travel_seconds", "Time to go back, branch, save, snapshot, recover", "what"
        )
        self._errors = make.counter("errors", "Errors answered, by code", "code")
        self._sessions = make.counter(
            "sessions", "Sessions that had a seat, by how they ended", "end"
        )
        self._live = _Live(_Maker(make.collected, "worldline_live"))

    @property
    def collected(self) -> CollectorRegistry:
        """All of them, as they are rendered."""
        return self._maker.collected

    def watch(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Add a gauge that is read when it is asked for."""
        self._maker.gauge(name, help_text).set_function(value)

    def watch_total(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Add a counter that somebody else counts; read when it is asked for."""
        self._maker.keep(_Total(f"worldline_{name}", help_text, value))

    def watch_each(
        self, name: str, help_text: str, label: str, values: Mapping[str, Callable[[], float]]
    ) -> None:
        """Add a gauge with one label, a function for each of its values."""
        gauge = self._maker.gauge(name, help_text, label)
        for kind, value in values.items():
            gauge.labels(kind).set_function(value)

    def count_chunk(self, report: ChunkReport) -> None:
        """One chunk of the mainline endpoint has left."""
        kind = report.content_type
        self._chunks.labels(kind).inc()
        self._frames.labels(kind).inc(report.num_frames)
        self._batches.labels(kind).inc(report.num_batches)
        self._raw_bytes.labels(kind).inc(report.raw_bytes)
        self._wire_bytes.labels(kind).inc(report.wire_bytes)
        for stage, milliseconds in stage_times(report).items():
            self._stages.labels(stage).observe(milliseconds / 1000)

    def count_live_chunk(self, chunk: Chunk, *, misses: int) -> None:
        """One chunk of a live world was shown; `misses` are the deadlines it missed."""
        live = self._live
        live.chunks.inc()
        live.frames.inc(chunk.frames)
        live.bytes.inc(chunk.bytes)
        live.misses.inc(misses)
        live.lead.observe(chunk.lead_ms / 1000)
        if chunk.real_time_factor > 0:
            live.factor.observe(chunk.real_time_factor)
        for stage, milliseconds in chunk.stages.items():
            live.stages.labels(stage).observe(milliseconds / 1000)
        for lever in chunk.levers:
            live.levers.labels(lever).inc()

    def count_picture(self, kind: str, size: int, *, key: bool) -> None:
        """One picture of a live world was encoded in one format, for whoever takes that one."""
        self._live.encoded.labels(kind).inc()
        self._live.encoded_bytes.labels(kind).inc(size)
        self._live.key_frames.inc(key and kind == "h264")

    def count_behind(self, times: int) -> None:
        """Viewers left a stream because they could not keep up."""
        self._live.behind.inc(times)

    def observe_input(self, parts: Mapping[str, float]) -> None:
        """An input was seen: seconds of each part of its way."""
        for part, seconds in parts.items():
            self._live.inputs.labels(part).observe(seconds)

    def count_playback(self, *, stalls: int, dropped: int) -> None:
        """A client reported that its screen stood still, or that it skipped pictures."""
        self._live.stalls.inc(stalls)
        self._live.dropped.inc(dropped)

    def observe_travel(self, what: str, seconds: float) -> None:
        """A session went back, branched, was saved, written to disk, or opened again."""
        self._travels.labels(what).observe(seconds)

    def count_error(self, code: str) -> None:
        """An error was answered."""
        self._errors.labels(code).inc()

    def count_session(self, end: str) -> None:
        """A session that had a seat is over; `end` says how."""
        self._sessions.labels(end).inc()

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self.collected)


K = TypeVar("K", bound=Collector)


class _Maker:
    """Makes metrics whose names begin with `prefix`, all kept in one place."""

    def __init__(self, collected: CollectorRegistry, prefix: str) -> None:
        self.collected = collected
        # Its namespace, no subsystem, no unit, and where a metric is kept.
        self._place = prefix, "", "", collected

    def counter(self, name: str, help_text: str, *labels: str) -> Counter:
        """A new counter."""
        return Counter(name, help_text, labels, *self._place)

    def gauge(self, name: str, help_text: str, *labels: str) -> Gauge:
        """A new gauge."""
        return Gauge(name, help_text, labels, *self._place)

    def histogram(
        self, name: str, help_text: str, *labels: str, buckets: tuple[float, ...] = BUCKETS
    ) -> Histogram:
        """A new histogram."""
        return Histogram(name, help_text, labels, *self._place, buckets=buckets)

    def keep(self, metric: K) -> K:
        """Take in a metric that was made elsewhere."""
        self.collected.register(metric)
        return metric


class _Total(Collector):
    """A counter whose value is a function."""

    def __init__(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        self._name, self._help, self._value = name, help_text, value

    def collect(self) -> Iterable[CounterMetricFamily]:
        """Its value now."""
        yield CounterMetricFamily(self._name, self._help, value=self._value())


class _Live:
    """Counters and histograms of live worlds."""

    def __init__(self, make: _Maker) -> None:
        self.chunks = make.counter("chunks", "Chunks shown")
        self.frames = make.counter("frames", "Pictures shown")
        self.bytes = make.counter("bytes", "Bytes of one rendition")
        self.encoded = make.counter("encoded", "Pictures encoded, by format", "format")
        self.encoded_bytes = make.counter("encoded_bytes", "Their bytes, by format", "format")
        self.key_frames = make.counter("key_frames", "Key frames of H.264")
        self.behind = make.counter("behind", "Times a viewer left a stream for stills")
        self.misses = make.counter("deadline_misses", "Chunks that came too late")
        self.stalls = make.counter("stalls", "Times a client's screen stood still")
        self.dropped = make.counter("dropped_frames", "Pictures that clients skipped")
        self.levers = make.counter("levers", "Chunks made cheaper, by lever", "lever")
        self.stages = make.histogram("stage_seconds", "Stages", "stage")
        self.inputs = make.histogram("input_seconds", "An input's way to the screen", "part")
        self.lead = make.histogram("lead_seconds", "Video queued ahead")
        self.factor = make.histogram(
            "real_time_factor", "Work over playing time; above 1 is too slow", buckets=FACTORS
        )
