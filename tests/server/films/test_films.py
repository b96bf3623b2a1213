"""Films from the request to the file: made behind live worlds, cancelled, fetched, entered."""

from __future__ import annotations

import asyncio
import io
import sqlite3
from contextlib import closing
from pathlib import Path

import msgspec
import numpy as np
import pytest
from PIL import Image

from tests.fakes import LIMIT_S, FakeHandle, fake_info, settle
from tests.media.test_scene import psnr
from tests.server.films.filming import lot
from worldline.core.errors import CapacityError, GenerationError
from worldline.core.motion import MOTIONLESS, Motion
from worldline.core.worldfile import read_world
from worldline.media.scene import decode_picture
from worldline.server.films.film import Film, Status
from worldline.server.films.reel import Reel
from worldline.server.films.store import FilmStore

pytestmark = pytest.mark.anyio


async def test_a_film_from_the_request_to_the_file(tmp_path: Path) -> None:
    async with lot(tmp_path) as here:
        asked = await here.ask(actions="w-8,jw-4,none-2", chunks=2, seed=5, size="64x48")
        assert (asked["object"], asked["status"], asked["progress"]) == ("video", "queued", 0)
        assert (asked["model"], asked["size"], asked["seconds"]) == ("fake", "64x48", "1.3125")
        done = await here.ended(asked["id"])
        assert (done["status"], done["progress"], done["frames"]) == ("completed", 100, 21)
        assert done["completed_at"] >= done["started_at"] >= done["created_at"] > 0
        (opened,) = here.handle.opened
        assert (opened.prompt, opened.seed, opened.width, opened.height) == (
            "a red gate",
            5,
            64,
            48,
        )
        motions = [m for request in here.handle.requests for m in request.motions or ()]
        ahead, turning = Motion(z=1.0), Motion(z=1.0, yaw=-1.0)
        assert motions == [MOTIONLESS, ahead, ahead, turning, MOTIONLESS, MOTIONLESS]
        film = await here.client.get(f"/v1/videos/{asked['id']}/content")
        assert film.headers["content-type"] == "video/mp4"
        part = await here.client.get(
            f"/v1/videos/{asked['id']}/content", headers={"Range": "bytes=0-99"}
        )
        assert (part.status_code, part.content) == (206, film.content[:100])
        frame = await here.client.get(f"/v1/videos/{asked['id']}/frames/20")
        assert frame.headers["content-type"] == "image/png"
        shown = np.asarray(Image.open(io.BytesIO(frame.content)))
        assert psnr(shown, decode_picture(film.content, 20)) > 60
        thumbnail = await here.client.get(
            f"/v1/videos/{asked['id']}/content", params={"variant": "thumbnail"}
        )
        assert Image.open(io.BytesIO(thumbnail.content)).format == "WEBP"


async def test_a_film_becomes_a_world_at_any_picture(tmp_path: Path) -> None:
    async with lot(tmp_path) as here:
        film = await here.ended((await here.ask(chunks=3, actions="w-12,wl-24", seed=9))["id"])
        for query, chunks in (("", 3), ("?frame=0", 1), ("?frame=9", 2), ("?frame=32", 3)):
            response = await here.client.get(f"/v1/videos/{film['id']}/world{query}")
            world = read_world(response.content)
            assert (world.start.prompt, world.start.seed) == ("a red gate", 9)
            steps = list(world.chunks())
            asked = [step.motions for step in here.handle.requests][:chunks]
            assert [step.motions for step in steps] == asked
            assert all(step.digest for step in steps)
        again = await here.client.get(f"/v1/videos/{film['id']}/world?frame=33")
        assert again.status_code == 400


async def test_films_are_made_one_after_the_other(tmp_path: Path) -> None:
    handle = FakeHandle()
    async with lot(tmp_path, handle) as here:
        handle.hold()
        ids = [(await here.ask(chunks=1, seed=i))["id"] for i in range(3)]
        await here.until(lambda: len(handle.opened) == 1)
        await settle()
        shown = [(await here.shown(id))["status"] for id in ids]
        assert shown == ["in_progress", "queued", "queued"]
        assert [(await here.shown(id))["ahead"] for id in ids] == [None, 0, 1]
        handle.allow(100)
        assert [(await here.ended(id))["status"] for id in ids] == ["completed"] * 3
        assert [request.seed for request in handle.opened] == [0, 1, 2]
        listed = (await here.client.get("/v1/videos", params={"limit": 2})).json()
        assert [one["id"] for one in listed["data"]] == [ids[2], ids[1]]
        assert (listed["object"], listed["has_more"], listed["last_id"]) == ("list", True, ids[1])
        rest = await here.client.get("/v1/videos", params={"after": ids[1]})
        assert [one["id"] for one in rest.json()["data"]] == [ids[0]]


async def test_every_replica_makes_a_film_and_each_ends_by_itself(tmp_path: Path) -> None:
    handle = FakeHandle(msgspec.structs.replace(fake_info(), replicas=2))
    async with lot(tmp_path, handle, seats=3) as here:
        handle.hold()
        ids = [(await here.ask(chunks=50, seed=i))["id"] for i in range(3)]
        await here.until(lambda: len(handle.opened) == 2)
        await settle()
        shown = [(await here.shown(id))["status"] for id in ids]
        assert shown == ["in_progress", "in_progress", "queued"]
        assert here.studio.busy == 2 and here.services.seats.taken == 2
        cancelling = asyncio.create_task(here.client.post(f"/v1/videos/{ids[0]}/cancel"))
        async with asyncio.timeout(LIMIT_S):
            while not cancelling.done():  # a step that is waiting is let go: it may be either's
                await settle()
                if handle.running:
                    handle.allow()
                await asyncio.sleep(0.001)
        assert (await cancelling).json()["status"] == "cancelled"
        assert (await here.shown(ids[1]))["status"] == "in_progress"
        await here.until(lambda: len(handle.opened) == 3)
    with closing(FilmStore(tmp_path)) as store:
        films = [store.find(id) for id in ids]
        assert [film and (film.status, film.barren) for film in films[1:]] == [("queued", 0)] * 2


async def test_a_disk_that_fails_under_one_film_ends_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    handle = FakeHandle(msgspec.structs.replace(fake_info(), replicas=2))
    async with lot(tmp_path, handle, seats=2) as here:
        store, end = here.studio.desk.store, here.studio.desk.store.end
        failures = [sqlite3.OperationalError("database or disk is full")]

        def failing(id: str, status: Status, now: float, **said: str) -> Film | None:
            if failures:
                raise failures.pop()
            return end(id, status, now, **said)

        monkeypatch.setattr(store, "end", failing)
        ids = [(await here.ask(chunks=3, seed=i))["id"] for i in range(2)]
        assert [(await here.ended(id))["status"] for id in ids] == ["completed"] * 2
        assert failures == []
        assert [(await here.shown(id))["chunks"] for id in ids] == [3] * 2


async def test_cancelled_films_stop_and_keep_what_there_is(tmp_path: Path) -> None:
    handle = FakeHandle()
    async with lot(tmp_path, handle) as here:
        handle.hold()
        first, second = [(await here.ask(chunks=50))["id"] for _ in range(2)]
        handle.allow(3)
        await here.reaches(first, 2)
        handle.allow(1)  # the step that is waiting is let go: it is never left behind
        cancelled = (await here.client.post(f"/v1/videos/{first}/cancel")).json()
        assert cancelled["status"] == "cancelled"
        handle.allow(100)
        await here.client.post(f"/v1/videos/{second}/cancel")
        assert (await here.ended(second))["status"] == "cancelled"
        again = (await here.client.post(f"/v1/videos/{first}/cancel")).json()
        assert again["completed_at"] == cancelled["completed_at"]
        film = await here.client.get(f"/v1/videos/{first}/content")
        assert film.status_code == 200 and len(film.content) > 100


async def test_deleted_films_are_gone(tmp_path: Path) -> None:
    handle = FakeHandle()
    async with lot(tmp_path, handle) as here:
        film = (await here.ask(chunks=50))["id"]
        await here.reaches(film, 1)
        gone = (await here.client.delete(f"/v1/videos/{film}")).json()
        assert gone == {"id": film, "object": "video.deleted", "deleted": True}
        for path in ("", "/content", "/frames/0"):
            response = await here.client.get(f"/v1/videos/{film}{path}")
            assert (response.status_code, response.json()["code"]) == (404, "unknown_film")
        assert [path for path in tmp_path.iterdir() if path.is_dir()] == []


async def test_what_the_engine_refuses_fails_and_says_so(tmp_path: Path) -> None:
    handle = FakeHandle()
    async with lot(tmp_path, handle) as here:
        handle.fail_step = (1, GenerationError("no kernel"))
        film = await here.ended((await here.ask())["id"])
        assert (film["status"], film["chunks"]) == ("failed", 1)
        assert film["error"] == {"code": GenerationError.code, "message": "no kernel"}
        handle.fail_step = None
        assert (await here.ended((await here.ask())["id"]))["status"] == "completed"


async def test_a_film_goes_on_in_the_next_process(tmp_path: Path) -> None:
    whole = FakeHandle()
    async with lot(tmp_path / "whole", whole) as here:
        film = await here.ended((await here.ask(chunks=5, seed=3))["id"])
        expected = (await here.client.get(f"/v1/videos/{film['id']}/content")).content
    handle = FakeHandle()
    async with lot(tmp_path / "cut", handle) as here:
        handle.hold()
        film = await here.ask(chunks=5, seed=3)
        handle.allow(2)
        await here.reaches(film["id"], 2)
    store = FilmStore(tmp_path / "cut")
    left = store.find(film["id"])
    store.close()
    assert left is not None and (left.status, left.chunks, left.barren) == ("queued", 2, 0)
    again = FakeHandle()
    async with lot(tmp_path / "cut", again) as here:
        done = await here.ended(film["id"])
        assert (done["status"], done["frames"], done["chunks"]) == ("completed", 57, 5)
        (opened,) = again.opened
        assert opened.light is not None
        assert [request.chunk_index for request in again.requests] == [2, 3, 4]
        assert (await here.client.get(f"/v1/videos/{film['id']}/content")).content == expected


async def test_a_worker_that_dies_costs_no_film(tmp_path: Path) -> None:
    handle = FakeHandle()
    handle.reviving = True
    async with lot(tmp_path, handle) as here:
        handle.hold()
        film = await here.ask(chunks=4)
        handle.allow(2)
        await here.reaches(film["id"], 2)
        handle.die()
        handle.sessions.clear()
        await here.until(lambda: here.services.seats.taken == 0)
        assert (await here.shown(film["id"]))["status"] == "queued"
        handle.dead = False
        handle.allow(100)
        assert (await here.ended(film["id"]))["status"] == "completed"


async def test_a_film_leaves_its_seat_to_a_visitor_and_comes_back(tmp_path: Path) -> None:
    handle = FakeHandle()
    async with lot(tmp_path, handle, seats=1) as here:
        handle.hold()
        film = await here.ask(chunks=6)
        handle.allow(1)
        await here.reaches(film["id"], 1)
        seats = here.services.seats
        visiting = asyncio.create_task(seats.wait("visitor", here.clock, 100.0))
        await settle()
        handle.allow(1)
        await here.until(visiting.done)
        name = f"film-{film['id']}"
        assert ("park", name) in handle.calls and ("unpark", name) not in handle.calls
        before = len(handle.requests)
        handle.allow(100)
        await here.clock.advance(60.0)
        assert len(handle.requests) == before  # not while somebody sits there
        seats.release("visitor")
        assert (await here.ended(film["id"]))["status"] == "completed"
        assert ("unpark", name) in handle.calls


async def test_a_chunk_is_given_up_for_a_live_world_but_not_for_ever(tmp_path: Path) -> None:
    handle = FakeHandle()
    async with lot(tmp_path, handle) as here:
        handle.hold()
        film = await here.ask(chunks=1)
        name = f"film-{film['id']}"
        device, turns = here.services.device, 0
        await here.until(lambda: handle.running == 1)
        while not handle.requests:
            live = asyncio.create_task(_turn(here.services.device, here.clock.now()))
            await settle()
            handle.allow(1)
            await here.until(live.done)
            turns += 1
            await here.until(lambda: handle.running == 1 or bool(handle.requests))
        assert handle.calls.count(("abort", name)) == 4 and turns == 5
        assert device.others_s("live") == 0.0
        assert (await here.ended(film["id"]))["status"] == "completed"


async def _turn(device: object, now: float) -> None:
    async with device.turn("live", deadline=now), asyncio.timeout(LIMIT_S):  # pyright: ignore
        pass


async def test_a_disk_that_fails_fails_the_film_and_not_the_queue(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with lot(tmp_path) as here:
        store, take = here.studio.desk.store, here.studio.desk.store.take
        failures = [sqlite3.OperationalError("database or disk is full")]

        def failing(model: str, weights: str, now: float) -> Film | None:
            if failures:
                raise failures.pop()
            return take(model, weights, now)

        monkeypatch.setattr(store, "take", failing)
        film = await here.ask(chunks=2)
        assert (await here.ended(film["id"]))["status"] == "completed"
        assert failures == []

        def full(reel: Reel, frames: object, kept: object) -> None:
            raise OSError(28, "No space left on device")

        monkeypatch.setattr(Reel, "append", full)
        failed = await here.ended((await here.ask(chunks=2))["id"])
        assert failed["status"] == "failed" and "No space" in failed["error"]["message"]
        monkeypatch.undo()
        assert (await here.ended((await here.ask(chunks=2))["id"]))["status"] == "completed"


async def test_what_does_not_fit_waits_for_others_to_leave_and_fails_alone(tmp_path: Path) -> None:
    handle = FakeHandle()
    async with lot(tmp_path, handle) as here:
        seats = here.services.seats
        assert seats.take("visitor")
        handle.fail_open = CapacityError("no memory")
        film = await here.ask(chunks=1)
        assert (await here.ended(film["id"]))["status"] == "completed"  # the second time
        seats.release("visitor")
        handle.fail_open = CapacityError("no memory")
        failed = await here.ended((await here.ask(chunks=1))["id"])
        assert (failed["status"], failed["error"]["code"]) == ("failed", "capacity")


async def test_a_film_that_was_cancelled_before_it_began_is_not_made(tmp_path: Path) -> None:
    handle = FakeHandle()
    async with lot(tmp_path, handle) as here:
        handle.hold()
        first = (await here.ask(chunks=1))["id"]
        await here.until(lambda: handle.running == 1)
        second = (await here.ask(chunks=1))["id"]
        await here.client.post(f"/v1/videos/{second}/cancel")
        handle.allow(100)
        assert (await here.ended(first))["status"] == "completed"
        await settle()
        assert len(handle.opened) == 1
        assert (await here.shown(second))["status"] == "cancelled"
        response = await here.client.get(f"/v1/videos/{second}/content")
        assert (response.status_code, response.json()["code"]) == (409, "film_not_ready")
