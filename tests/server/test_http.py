"""The plain routes: models, health, readiness, metrics, and what is not there."""

from __future__ import annotations

from pathlib import Path

import msgspec
import pytest

from tests import worlds
from tests.fakes import FakeHandle, fake_info
from tests.server.conftest import Rig, Start
from tests.server.sockets import Socket, init
from tests.server.test_reports import get, samples
from worldline.core.errors import CapacityError, GenerationError
from worldline.server.warmup import enough_chunks

pytestmark = pytest.mark.anyio


async def test_models_lists_the_loaded_model(rig: Rig) -> None:
    response = await get(rig, "/v1/models")
    body = response.json()
    assert body["object"] == "list"
    (entry,) = body["data"]
    assert (entry["id"], entry["object"], entry["root"]) == ("fake", "model", "fake")
    assert entry["info"]["sizes"] == [[64, 48], [128, 96], [48, 64]]
    assert entry["info"].keys().isdisjoint({"torch", "machine", "options"})


async def test_the_world_that_the_page_walks_into(start: Start, tmp_path: Path) -> None:
    path = tmp_path / "walk.wl"
    path.write_bytes(worlds.walked().encode())
    rig = await start(world_file=str(path))
    response = await get(rig, "/v1/world.wl")
    assert (response.status_code, response.content) == (200, path.read_bytes())
    assert response.headers["cache-control"] == "no-store"
    none = await start()
    response = await get(none, "/v1/world.wl")
    assert (response.status_code, response.json()["code"]) == (404, "no_file")


async def test_ready_only_after_the_real_path_has_run(start: Start) -> None:
    handle = FakeHandle()
    handle.hold()
    rig = await start(handle, warm=False)
    await rig.entered()
    response = await get(rig, "/readyz")
    assert (response.status_code, response.json()) == (503, {"status": "warming up"})
    assert (await get(rig, "/healthz")).status_code == 200
    handle.allow(100)
    await rig.services.readiness.wait(rig.clock, 1.0)
    assert (await get(rig, "/readyz")).status_code == 200
    (opened,) = handle.opened
    assert set(opened.image) == {0x80}
    assert len(opened.image) == opened.image_width * opened.image_height * 3
    assert [r.chunk_index for r in handle.requests] == [0, 1, 2, 3]  # window 9 of chunks of 3, + 1
    assert handle.closed == [opened.session_id]


async def test_a_failed_warm_up_is_never_ready(start: Start) -> None:
    handle = FakeHandle()
    handle.fail_step = (0, GenerationError("no kernel"))
    rig = await start(handle, warm=False)
    with pytest.raises(CapacityError):
        await rig.services.readiness.wait(rig.clock, 1.0)
    response = await get(rig, "/readyz")
    assert response.status_code == 503
    assert "no kernel" in response.json()["status"]
    handle.fail_step = None


async def test_a_dead_worker_is_neither_healthy_nor_ready(rig: Rig) -> None:
    rig.handle.die()
    for path in ("/healthz", "/health", "/readyz"):
        response = await get(rig, path)
        assert (response.status_code, response.json()["status"]) == (503, "worker died")
        assert int(response.headers["Retry-After"]) > 0


async def test_gauges_follow_seats_and_sockets(rig: Rig) -> None:
    seen = await samples(rig)
    assert (seen["worldline_seats", ""], seen["worldline_seats_taken", ""]) == (2, 0)
    assert (seen["worldline_ready", ""], seen["worldline_sockets", ""]) == (1, 0)
    rig.handle.hold()
    socket = await rig.connect()
    socket.send(init())
    await rig.entered()
    seen = await samples(rig)
    assert (seen["worldline_seats_taken", ""], seen["worldline_sockets", ""]) == (1, 1)
    rig.handle.allow(2)
    await socket.leave()
    seen = await samples(rig)
    assert (seen["worldline_seats_taken", ""], seen["worldline_sockets", ""]) == (0, 0)
    assert seen["worldline_sessions_total", "disconnected"] == 1


async def test_two_apps_share_no_metrics(start: Start) -> None:
    one, two = await start(), await start()
    socket = await one.connect()
    socket.send(init(max_chunks=1))
    await socket.chunk()
    await socket.closed()
    assert ("worldline_chunks_total", "application/x-raw-rgb") in await samples(one)
    assert ("worldline_chunks_total", "application/x-raw-rgb") not in await samples(two)


async def test_sockets_elsewhere_are_refused(rig: Rig) -> None:
    socket = Socket(rig.app, "/somewhere/else")
    assert (await socket.closed())[0] == 1008


@pytest.mark.parametrize(
    ("chunk", "window", "chunks"), [(3, 18, 7), (1, 8, 9), (3, -1, 2), (1, 60, 12), (4, 9, 4)]
)
def test_the_warm_up_fills_the_cache_and_runs_full_once(
    chunk: int, window: int, chunks: int
) -> None:
    assert enough_chunks(fake_info(chunk=chunk, window=window)) == chunks


@pytest.mark.parametrize(("chunk", "window", "chunks"), [(3, 18, 11), (4, 18, 9), (3, 60, 12)])
def test_the_warm_up_reaches_the_end_of_the_pictures_encode(
    chunk: int, window: int, chunks: int
) -> None:
    info = msgspec.structs.replace(fake_info(chunk=chunk, window=window), encoded=30)
    assert enough_chunks(info) == chunks


async def test_the_warm_up_walks_every_memory_that_stays(start: Start) -> None:
    """With graphs, two rings wait for visitors; two seats, two walks chunk by chunk."""
    info = msgspec.structs.replace(fake_info(), rings=2)
    for seats, walks in ((1, 1), (2, 2), (3, 2)):
        handle = FakeHandle(info)
        rig = await start(handle, warm=False, seats=seats)
        await rig.services.readiness.wait(rig.clock, 1.0)
        assert len({request.session_id for request in handle.opened}) == walks
        assert len({request.seed for request in handle.opened}) == walks, "one would be recalled"
        assert len(handle.requests) == walks * enough_chunks(info)
        handle.nothing_is_left()
