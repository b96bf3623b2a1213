"""Traces and metrics of a live world: what is in them adds up, and neither grows without end."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager
from typing import Any

import httpx
import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes import LIMIT_S, FakeClock, FakeHandle, settle
from tests.server.live.wire import LiveSocket
from worldline.core.config import ServerConfig
from worldline.core.live.client import Keys, Playhead, Shown
from worldline.core.live.client import Trace as TraceMessage
from worldline.core.live.server import Applied, Chunk, Frame, StateChange, Traced
from worldline.runtime.protocol import Counts, OpenRequest
from worldline.server.app import create_app
from worldline.server.census import COUNT_S, Leaks
from worldline.server.live.track import Track
from worldline.server.metrics import Metrics
from worldline.server.tracing import (
    LANES,
    MAX_EVENTS,
    MAX_OF_A_WORLD,
    MAX_TRACES,
    Event,
    Trace,
    Traces,
)
from worldline.server.waiting import change

pytestmark = pytest.mark.anyio


class Rig:
    """The whole app on a fake engine, with real worlds."""

    def __init__(self, app: Any, clock: FakeClock) -> None:
        self.app, self.clock = app, clock
        self.socket = LiveSocket(app)

    async def get(self, path: str) -> httpx.Response:
        transport = httpx.ASGITransport(app=self.app)
        async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as client:
            return await client.get(path)

    async def samples(self) -> dict[tuple[str, str], float]:
        """Every sample of /metrics by name and the value of its only label."""
        families = text_string_to_metric_families((await self.get("/metrics")).text)
        return {
            (s.name, next(iter(s.labels.values()), "")): s.value
            for family in families
            for s in family.samples
            if "le" not in s.labels
        }

    async def until(self, kind: type[Any]) -> Any:
        """The next message of a kind, letting time pass for as long as it takes."""
        waiting = asyncio.create_task(self.socket.until(kind))
        while not waiting.done():
            await self.clock.advance(0.01)
            await asyncio.to_thread(lambda: None)  # engine and encoders run in threads
            await settle(5)
        return await waiting


@asynccontextmanager
async def walking(**settings: Any) -> AsyncGenerator[Rig]:
    """A visitor in a live world."""
    clock = FakeClock()
    app = create_app(ServerConfig(**settings), FakeHandle(), clock=clock)
    async with app.router.lifespan_context(app):
        await app.state.services.readiness.wait(clock, 1.0)
        rig = Rig(app, clock)
        await rig.socket.walk()
        try:
            yield rig
        finally:
            if not rig.socket.task.done():
                await rig.socket.leave()


async def test_a_walk_as_a_trace_file() -> None:
    async with walking() as rig:
        rig.socket.send(TraceMessage(id=1, on=True, at_ms=5000.0))
        began: Traced = await rig.until(Traced)
        assert began.on
        rig.socket.send(Keys(id=2, held=("w",), at_ms=6000.0))
        applied = await rig.until(Applied)
        while applied.id != 2:
            applied = await rig.until(Applied)
        frame = await rig.until(Frame)
        while frame.input < 2:
            frame = await rig.until(Frame)
        # Long after: how much of our time has passed meanwhile depends on how busy this machine is.
        times = {"received_ms": 595_970.0, "decoded_ms": 595_975.0, "at_ms": 596_000.0}
        rig.socket.send(Shown(id=2, frame=frame.number, **times))
        rig.socket.send(
            Playhead(frame=frame.number, lead_ms=0, at_ms=596_010.0, stalls=3, dropped=2)
        )
        await rig.until(Chunk)
        rig.socket.send(TraceMessage(id=3, on=False))
        ended: Traced = await rig.until(Traced)
        assert (ended.on, ended.url) == (False, began.url)
        answer = await rig.get(began.url)
        samples = await rig.samples()
    assert answer.headers["content-disposition"].startswith("attachment")
    document = json.loads(answer.content)
    events = [event for event in document["traceEvents"] if event["ph"] != "M"]
    named = {e["args"]["name"] for e in document["traceEvents"] if e["name"] == "thread_name"}
    assert named == set(LANES.values())
    assert {"step", "stages", "encode", "inputs", "client"} <= {event["cat"] for event in events}
    assert all(event["ts"] >= 0 for event in events if event["cat"] == "inputs")
    (seen,) = [e for e in events if e["cat"] == "client" and e["ph"] == "X"]
    assert (seen["name"], seen["args"]["input"], seen["dur"]) == ("keys", 2, 30_000)
    parts = ("applied", "decode", "queue", "network")
    assert seen["args"]["photon"] == pytest.approx(590_000.0)
    assert sum(seen["args"][part] for part in parts) == pytest.approx(590_000.0, abs=0.01)
    by_chunk = [e for e in events if e["cat"] == "stages"]
    steps = {e["name"]: e for e in events if e["cat"] == "step"}
    for stage in by_chunk:
        assert stage["ts"] >= steps[f"chunk {stage['args']['chunk']}"]["ts"]
    assert samples["worldline_live_input_seconds_sum", "photon"] == pytest.approx(590.0)
    assert samples["worldline_live_input_seconds_count", "network"] == 1
    assert samples["worldline_live_stalls_total", ""] == 3
    assert samples["worldline_live_dropped_frames_total", ""] == 2
    assert samples["worldline_live_chunks_total", ""] >= 1
    assert samples["worldline_live_stage_seconds_count", "denoise"] >= 1


async def test_everything_live_is_counted_and_nothing_leaks() -> None:
    async with walking(seats=1) as rig:
        await rig.until(Chunk)
        during = await rig.samples()
        assert during["worldline_worlds", "live"] == 1
        assert during["worldline_viewers", ""] == 1
        assert during["worldline_engine", "sessions"] == 1
        waiting = LiveSocket(rig.app)
        await waiting.queue()
        assert (await rig.samples())["worldline_queue", ""] == 1
        listed = (await rig.get("/admin/worlds")).json()
        assert [world["state"] for world in listed["worlds"]] == ["live", "queued"]
        assert listed["queue"] == 1
        await waiting.leave()
        await rig.socket.leave()
        async with asyncio.timeout(LIMIT_S):
            while rig.app.state.house.rooms:
                await rig.clock.advance(1.0)
                await asyncio.to_thread(lambda: None)
                await settle()
        await settle()
        after = await rig.samples()
        for what in ("sessions", "tasks", "slots", "device_bytes"):
            assert after["worldline_leaked", what] == 0
        assert after["worldline_worlds", "live"] == after["worldline_viewers", ""] == 0
        assert after["worldline_tasks", ""] == 0
        leaks = await rig.get("/admin/leaks")
        assert (leaks.status_code, set(leaks.json().values())) == (200, {0})


async def test_what_nobody_owns_is_found() -> None:
    handle, clock = FakeHandle(), FakeClock()
    app = create_app(ServerConfig(), handle, clock=clock)
    async with app.router.lifespan_context(app):
        services, census = app.state.services, app.state.census
        await services.readiness.wait(clock, 1.0)
        await settle()
        assert not any(await census.count())
        # A task of ours that waits for ever, as one would that nobody stopped.
        lost = asyncio.create_task(change(clock, None, asyncio.Event()))
        await settle()
        ghost = OpenRequest(
            session_id="ghost", image=b"", image_width=1, image_height=1, prompt="nobody's"
        )
        handle.open(ghost)
        found = await census.count()
        assert (found.sessions, found.tasks) == (1, 1)
        handle.close("ghost")
        lost.cancel()
        await asyncio.gather(lost, return_exceptions=True)
        assert not any(await census.count())


async def test_a_busy_engine_delays_a_count_and_does_not_multiply_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    handle, clock = FakeHandle(), FakeClock()
    app = create_app(ServerConfig(), handle, clock=clock)
    async with app.router.lifespan_context(app):
        await app.state.services.readiness.wait(clock, 1.0)
        census, gate, asked = app.state.census, threading.Event(), []

        def counts() -> Counts:
            asked.append(1)
            assert gate.wait(LIMIT_S)
            return Counts(sessions=3)

        monkeypatch.setattr(handle, "counts", counts)
        counting = [asyncio.create_task(census.count()) for _ in range(20)]
        await clock.until_sleeping(COUNT_S)
        await clock.advance(COUNT_S)
        assert {await task for task in counting} == {Leaks()}  # the last count stands
        assert len(asked) <= 1
        gate.set()
        assert (await census.count()).sessions == 3


async def test_an_unknown_trace_is_not_there() -> None:
    async with walking() as rig:
        assert (await rig.get("/v1/traces/nothing")).status_code == 404
        assert (await rig.get("/admin/traces")).json() == {"traces": []}


def test_a_trace_keeps_its_newest_events() -> None:
    trace = Trace("w", 10.0)
    for number in range(MAX_EVENTS + 7):
        trace.add(Event("step", f"chunk {number}", 10.0 + number, 1.0))
    document = json.loads(trace.file()())
    assert len(trace) == MAX_EVENTS
    assert document["otherData"]["dropped_events"] == 7
    spans = [e for e in document["traceEvents"] if e["ph"] == "X"]
    assert (spans[0]["name"], spans[0]["ts"], spans[0]["dur"]) == ("chunk 7", 7_000_000, 1_000_000)


def test_the_store_keeps_the_newest_traces_and_ends_the_others() -> None:
    traces = Traces()
    made = [traces.begin(f"w{number}", 0.0) for number in range(MAX_TRACES + 1)]
    assert traces.find(made[0].id) is None
    assert not made[0].recording
    assert len({trace.id for trace in made}) == MAX_TRACES + 1
    assert traces.all() == tuple(made[1:])


def test_one_world_drives_out_only_its_own_traces() -> None:
    traces = Traces()
    other = traces.begin("other", 0.0)
    newest = [traces.begin("busy", 0.0) for _ in range(5 * MAX_TRACES)][-1]
    assert [trace.world for trace in traces.all()] == ["other", *["busy"] * MAX_OF_A_WORLD]
    assert other.recording and traces.all()[-1] is newest


class Alone:
    """A track by itself."""

    def __init__(self) -> None:
        self.clock = FakeClock()
        self.metrics = Metrics()
        self.track = Track("w", metrics=self.metrics, traces=Traces(), clock=self.clock)

    def photons(self) -> float | None:
        name = "worldline_live_input_seconds_count"
        return self.metrics.collected.get_sample_value(name, {"part": "photon"})


@pytest.mark.parametrize(
    "report",
    [
        Shown(id=9, frame=1, at_ms=200.0, received_ms=150.0, decoded_ms=160.0),  # no such input
        Shown(id=1, frame=1, at_ms=50.0, received_ms=40.0, decoded_ms=45.0),  # before it happened
        Shown(id=1, frame=1, at_ms=200.0, received_ms=170.0, decoded_ms=160.0),
        Shown(id=1, frame=1, at_ms=150.0, received_ms=140.0, decoded_ms=160.0),
        Shown(id=1, frame=1, at_ms=2.0**53, received_ms=140.0, decoded_ms=160.0),
        Shown(id=1, frame=1, at_ms=0.0, received_ms=0.0, decoded_ms=0.0),
    ],
)
async def test_what_a_client_invents_is_no_measurement(report: Shown) -> None:
    rig = Alone()
    rig.track.switch(True)
    rig.track.input(Keys(id=1, held=(), at_ms=100.0))
    rig.track.told(Applied(id=1, chunk=0, latent_frame=0, server_ms=0.0))
    rig.track.shown(report)
    assert rig.photons() in (None, 0.0)


async def test_a_new_hand_begins_anew_and_memory_is_bounded() -> None:
    rig = Alone()
    for id in range(1, 5000):
        rig.track.input(Keys(id=id, held=(), at_ms=float(id)))
    rig.track.told(Applied(id=4999, chunk=0, latent_frame=0, server_ms=0.0))
    rig.track.new_hand()
    rig.track.shown(Shown(id=4999, frame=1, at_ms=6e3, received_ms=5.9e3, decoded_ms=5.95e3))
    assert rig.photons() in (None, 0.0)
    rig.track.told(StateChange(state="live"))
    assert rig.track.switch(False) == Traced(on=False, url="")
