"""What Prometheus sees: one registry per app, fed by the same reports as the log."""

from __future__ import annotations

from collections.abc import Callable

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from worldline.server.reports import ChunkReport, stage_times

BUCKETS = (0.001, 0.003, 0.01, 0.03, 0.06, 0.1, 0.2, 0.3, 0.5, 0.75, 1.0, 1.5, 2.5, 5.0, 10.0, 30.0)


class Metrics:
    """The app's metrics; names are listed in docs/protocol.md."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self._stages = Histogram(
            "worldline_chunk_stage_seconds",
            "Time of each stage of a chunk",
            ["stage"],
            buckets=BUCKETS,
            registry=self.registry,
        )
        self._chunks = self._counter("chunks", "Chunks sent", "content_type")
        self._frames = self._counter("frames", "Frames sent", "content_type")
        self._batches = self._counter("batches", "Frame messages sent", "content_type")
        self._raw_bytes = self._counter("raw_bytes", "Bytes of generated pixels", "content_type")
        self._wire_bytes = self._counter("wire_bytes", "Bytes of payloads sent", "content_type")
        self._errors = self._counter("errors", "Errors answered, by code", "code")
        self._sessions = self._counter(
            "sessions", "Sessions that had a seat, by how they ended", "end"
        )

    def watch(self, name: str, help_text: str, value: Callable[[], float]) -> None:
        """Add a gauge that is read when it is asked for."""
        gauge = Gauge(f"worldline_{name}", help_text, registry=self.registry)
        gauge.set_function(value)

    def count_chunk(self, report: ChunkReport) -> None:
        """One chunk has left."""
        kind = report.content_type
        self._chunks.labels(kind).inc()
        self._frames.labels(kind).inc(report.num_frames)
        self._batches.labels(kind).inc(report.num_batches)
        self._raw_bytes.labels(kind).inc(report.raw_bytes)
        self._wire_bytes.labels(kind).inc(report.wire_bytes)
        for stage, milliseconds in stage_times(report).items():
            self._stages.labels(stage).observe(milliseconds / 1000)

    def count_error(self, code: str) -> None:
        """An error was answered."""
        self._errors.labels(code).inc()

    def count_session(self, end: str) -> None:
        """A session that had a seat is over; `end` is complete, disconnected, refused or failed."""
        self._sessions.labels(end).inc()

    def render(self) -> bytes:
        """The text exposition format."""
        return generate_latest(self.registry)

    def _counter(self, name: str, help_text: str, label: str) -> Counter:
        return Counter(f"worldline_{name}", help_text, [label], registry=self.registry)
