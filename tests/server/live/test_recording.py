"""A recording is the stream itself: it plays, its camera path fits, and it ends where it must."""

from __future__ import annotations

import asyncio
import io
import json
import threading
import zipfile
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import numpy as np
import pytest
from starlette.applications import Starlette

from tests.fakes import FakeClock
from tests.server.live.conftest import Rig
from tests.server.live.stage import HERE, PICTURES, Stage, needs_h264, opened, staged
from worldline.core.config import ServerConfig
from worldline.core.errors import CapacityError, ConfigError
from worldline.core.live.client import Leave, Record
from worldline.core.live.server import Bye, Notice, Recording
from worldline.core.motion import Pose
from worldline.server.live import downloads, recordings
from worldline.server.live.recording import MOST_WAITING, REFRESH_S, Recorder
from worldline.server.live.recordings import FILES, Recordings

pytestmark = [pytest.mark.anyio, needs_h264]


class Desk:
    """A stage, a recorder on it, and where its takes lie."""

    def __init__(self, stage: Stage) -> None:
        self.stage = stage
        self.recordings = Recordings(stage.broadcast.config, stage.clock)
        self.recorder = Recorder(stage.broadcast, self.recordings, stage.clock)

    async def latents(self, count: int) -> None:
        for _ in range(count):
            await self.stage.latent()

    async def finish(self) -> Recording:
        """End, and wait for the files."""
        told = self.recorder.switch(False)
        await self.recorder.close()
        return told


@asynccontextmanager
async def recording(tmp_path: Path, **config: Any) -> AsyncGenerator[Desk]:
    async with staged(recordings_dir=str(tmp_path), **config) as stage:
        desk = Desk(stage)
        yield desk
        await stage.broadcast.close()
        desk.recordings.close()
    assert list(tmp_path.iterdir()) == [], "nothing stays on the disk"


def pictures_in(data: bytes) -> list[int]:
    """The numbers of the pictures of a film, from its own time."""
    av = pytest.importorskip("av", reason="H.264 needs the extra `video`")
    with av.open(io.BytesIO(data), "r") as container:
        numbers: list[int] = []
        with suppress(av.error.FFmpegError):  # a broken end is reported after all before it
            numbers += (round(frame.time * 16) for frame in container.decode(video=0))
        return numbers


async def test_a_recording_is_the_stream_and_the_path(tmp_path: Path) -> None:
    async with recording(tmp_path) as desk:
        eyes = desk.stage.watch("a", holder=True)
        await desk.latents(5)
        begun = desk.recorder.switch(True)
        assert begun.on and desk.recorder.switch(True) == begun
        start = Pose((*HERE.c2w[:11], 0.0))
        for step in range(1, 10):
            desk.stage.pose = Pose((*start.c2w[:11], 0.4 * step))
            await desk.stage.latent()
        await desk.finish()
        take = desk.recordings.find("w")
        assert take is not None and [path.name for path in take.files()] == list(FILES)
        film = (take.folder / "world.mp4").read_bytes()
        assert pictures_in(film) == list(range(9 * PICTURES))
        assert desk.stage.broadcast.stream.key_frames == 2, "the start and one for the film"
        assert {frame.format for frame in eyes.frames} == {"h264"}
        poses = np.load(take.folder / "poses.npy")
        np.testing.assert_allclose(poses[:, 2, 3], 0.1 * np.arange(1, 37), atol=1e-5)
        assert np.load(take.folder / "intrinsics.npy").shape == (36, 4)
        facts = json.loads((take.folder / "transforms.json").read_text(encoding="utf-8"))
        assert len(facts["frames"]) == 36
        assert take.seconds == 36 / 16


async def test_it_is_readable_while_it_grows(tmp_path: Path) -> None:
    async with recording(tmp_path) as desk:
        desk.recorder.switch(True)
        await desk.latents(12)
        take = desk.recordings.find("w")
        assert take is not None and not take.done.is_set()
        while take.pictures < 12 * PICTURES - 1:  # all but the newest, whose end is not known
            await asyncio.sleep(0.01)
        film = (take.folder / "world.mp4").read_bytes()
        seen = pictures_in(film[: len(film) - 1])
        assert seen == list(range(len(seen))) and len(seen) >= 15
        assert len(np.load(take.folder / "poses.npy")) >= len(seen)


async def test_the_world_ends_and_so_does_the_recording(tmp_path: Path) -> None:
    async with recording(tmp_path) as desk:
        desk.recorder.switch(True)
        await desk.latents(3)
        await desk.stage.broadcast.close()
        take = desk.recordings.find("w")
        assert take is not None and take.done.is_set()
        assert len(pictures_in((take.folder / "world.mp4").read_bytes())) == 3 * PICTURES


@pytest.mark.parametrize("way", ["complete", "left", "stopped"])
async def test_who_records_when_the_world_ends_is_told_where_it_is(rig: Rig, way: str) -> None:
    socket = rig.connect()
    seat = await socket.walk()
    (room,) = rig.house.rooms
    assert room.broadcast is not None
    room.recorder = Recorder(room.broadcast, rig.services.recordings, rig.clock)
    socket.send(Record(id=1, on=True))
    begun = await socket.until(Recording)
    assert begun.on
    closing: asyncio.Task[None] | None = None
    await rig.worlds.last.chunk()
    if way == "left":
        socket.send(Leave())
    elif way == "stopped":
        closing = asyncio.create_task(rig.house.close())
    else:
        rig.worlds.last.complete.set_result(None)
    ended = await socket.until(Recording)
    assert (ended.on, ended.url) == (False, begun.url)
    bye, _ = await socket.closed()
    assert isinstance(bye, Bye) and bye.code == way
    if closing is not None:
        await closing
    await rig.empty()
    take = rig.services.recordings.find(seat.world)
    assert take is not None and take.done.is_set()


@pytest.mark.parametrize("limit", [{"max_recording_s": 2.0}, {"max_recording_bytes": 6000}])
async def test_a_limit_ends_it_and_is_told(tmp_path: Path, limit: dict[str, object]) -> None:
    async with recording(tmp_path, **limit) as desk:
        eyes = desk.stage.watch("a", holder=True)
        desk.recorder.switch(True)
        await desk.latents(40)
        await desk.recorder.close()
        await desk.stage.quiet()
        told = [m for m in eyes.messages if isinstance(m, Notice | Recording)]
        assert isinstance(told[0], Notice) and told[0].code == "recording_limit"
        assert isinstance(told[1], Recording) and not told[1].on and told[1].seconds > 0.9
        assert not desk.recorder.on
        take = desk.recordings.find("w")
        assert take is not None and take.done.is_set() and take.seconds < 10
        assert pictures_in((take.folder / "world.mp4").read_bytes())
        if "max_recording_bytes" in limit:
            size = sum(path.stat().st_size for path in take.folder.glob("*.mp4"))
            assert size <= 6000


async def test_old_takes_make_room_and_grow_old(tmp_path: Path) -> None:
    config = ServerConfig(recordings_dir=str(tmp_path), max_recordings_bytes=1000)
    clock = FakeClock()
    store = Recordings(config, clock)
    first, second = store.begin("a"), store.begin("b")
    assert store.has_room(first, 600) and not store.has_room(second, 600)
    first.pictures = second.pictures = 1
    store.finish(first)
    assert store.has_room(second, 600), "what is done goes first"
    assert store.find("a") is None and not first.folder.exists()
    with pytest.raises(CapacityError):
        assert not store.has_room(second, 600)
        second.bytes = 1000
        store.begin("c")
    second.bytes = 10
    store.finish(second)
    await clock.advance(config.recording_keep_s + 1)
    assert store.find("b") is None and not second.folder.exists()
    store.close()
    assert list(tmp_path.iterdir()) == []


async def test_a_take_without_pictures_is_forgotten(tmp_path: Path) -> None:
    async with recording(tmp_path) as desk:
        desk.recorder.switch(True)
        await desk.finish()
        assert desk.recordings.find("w") is None


async def test_what_cannot_be_recorded_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with recording(tmp_path, max_recordings_bytes=0) as desk:
        with pytest.raises(ConfigError, match="does not record"):
            desk.recorder.switch(True)
    async with recording(tmp_path) as desk:
        desk.stage.broadcast.opened(opened(width=65))
        with pytest.raises(ConfigError, match="cannot be recorded"):
            desk.recorder.switch(True)
    async with recording(tmp_path) as desk:
        monkeypatch.setattr(recordings, "MIN_FREE_BYTES", 2**70)
        with pytest.raises(CapacityError, match="disk is full"):
            desk.recorder.switch(True)


async def test_a_disk_that_stands_still_leaves_a_gap_and_holds_nobody_up(tmp_path: Path) -> None:
    async with recording(tmp_path) as desk:
        eyes = desk.stage.watch("a", holder=True)
        free = threading.Event()
        for _ in range(recordings.MOST_WRITERS):
            desk.recordings.writers.submit(free.wait)
        desk.recorder.switch(True)
        await desk.latents(MOST_WAITING // PICTURES + 20)
        assert [f.number for f in eyes.frames] == list(range(desk.stage.number))
        assert desk.stage.broadcast.stream.key_frames <= 1 + 512 / 16 / REFRESH_S
        free.set()
        take = desk.recordings.find("w")
        assert take is not None
        while take.pictures < MOST_WAITING - 16:
            await asyncio.sleep(0.01)
        await desk.latents(24)
        await desk.finish()
        numbers = pictures_in((take.folder / "world.mp4").read_bytes())
        assert numbers == sorted(numbers) and numbers[-1] == desk.stage.number - 1
        assert MOST_WAITING <= len(numbers) < desk.stage.number, "a gap, and then it goes on"


async def test_a_folder_that_vanishes_ends_the_recording_only(tmp_path: Path) -> None:
    async with recording(tmp_path) as desk:
        eyes = desk.stage.watch("a", holder=True)
        desk.recorder.switch(True)
        take = desk.recordings.find("w")
        assert take is not None
        take.folder.rmdir()
        await desk.latents(6)
        await desk.recorder.close()
        await desk.stage.quiet()
        codes = [m.code for m in eyes.messages if isinstance(m, Notice)]
        assert codes == ["recording_failed"]
        assert [f.number for f in eyes.frames] == list(range(desk.stage.number))


@asynccontextmanager
async def fetching(desk: Desk) -> AsyncGenerator[httpx.AsyncClient]:
    app = Starlette(routes=downloads.ROUTES)
    app.state.services = SimpleNamespace(recordings=desk.recordings, clock=desk.stage.clock)
    transport = httpx.ASGITransport(app)
    async with httpx.AsyncClient(transport=transport, base_url="http://here") as client:
        yield client


async def test_it_is_fetched_whole_or_file_by_file(tmp_path: Path) -> None:
    async with recording(tmp_path) as desk, fetching(desk) as client:
        desk.recorder.switch(True)
        await desk.latents(6)
        told = await desk.finish()
        answer = await client.get(told.url)
        assert answer.headers["content-type"] == "application/zip"
        with zipfile.ZipFile(io.BytesIO(answer.content)) as archive:
            assert archive.testzip() is None and archive.namelist() == list(FILES)
            film = archive.read("world.mp4")
        single = await client.get("/v1/worlds/w/recording/world.mp4")
        assert single.content == film and single.headers["content-type"] == "video/mp4"
        part = await client.get("/v1/worlds/w/recording/world.mp4", headers={"Range": "bytes=4-7"})
        assert part.status_code == 206 and part.content == b"ftyp"


@pytest.mark.parametrize(
    ("url", "status"),
    [
        ("/v1/worlds/nobody/recording", 404),
        ("/v1/worlds/w/recording?take=99", 404),
        ("/v1/worlds/w/recording?take=-1", 400),
        ("/v1/worlds/w/recording?take=" + "9" * 5000, 400),
        ("/v1/worlds/w/recording/passwd", 404),
        ("/v1/worlds/w/recording/..%2f..%2fetc%2fpasswd", 404),
        ("/v1/worlds/w/recording/%2e%2e", 404),
    ],
)
async def test_nothing_else_can_be_fetched(tmp_path: Path, url: str, status: int) -> None:
    async with recording(tmp_path) as desk, fetching(desk) as client:
        desk.recorder.switch(True)
        await desk.latents(3)
        await desk.finish()
        assert (await client.get(url)).status_code == status


async def test_a_recording_in_progress_is_not_fetched(tmp_path: Path) -> None:
    async with recording(tmp_path) as desk, fetching(desk) as client:
        desk.recorder.switch(True)
        await desk.latents(3)
        asked = asyncio.create_task(client.get("/v1/worlds/w/recording"))
        await desk.stage.clock.until_sleeping(downloads.WAIT_S)
        await desk.stage.clock.advance(downloads.WAIT_S)
        assert (await asked).status_code == 409
