"""Films of models that make nothing else, from the request to the file, in a real worker."""

from __future__ import annotations

import asyncio
import io
from collections.abc import AsyncGenerator, Generator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests import film_worlds as worlds
from tests import tiny
from tests.media.test_scene import psnr
from worldline.core.config import ServerConfig
from worldline.core.film import film_frames
from worldline.media.scene import decode_picture
from worldline.runtime.films import open_film
from worldline.runtime.handle import WorkerHandle
from worldline.runtime.protocol import WorkerSettings
from worldline.server.app import create_app
from worldline.server.films.film import Wish
from worldline.server.films.guided import request_of
from worldline.server.films.store import FilmStore
from worldline.server.waiting import LoopClock

pytest.importorskip("diffusers")
pytest.importorskip("av")

pytestmark = pytest.mark.anyio
LIMIT_S = 60.0
CHUNK, CHUNKS = 3, 3


class QuickClock(LoopClock):
    """A second of it is ten milliseconds: what is saved every ten seconds is saved often."""

    def now(self) -> float:
        return 100 * super().now()


@pytest.fixture(scope="module")
def worker() -> Generator[WorkerHandle]:
    """A base model in its own process."""
    settings = WorkerSettings(model="base", engine="tests.film_worlds:load", threads=1)
    handle = WorkerHandle.spawn(settings)
    yield handle
    handle.shutdown()


@asynccontextmanager
async def serving(folder: Path, worker: WorkerHandle) -> AsyncGenerator[httpx.AsyncClient]:
    """A client of a server that makes films of that model."""
    store = FilmStore(folder)
    app = create_app(ServerConfig(), worker, clock=QuickClock(), store=store)
    try:
        async with app.router.lifespan_context(app):
            transport = httpx.ASGITransport(app=app)
            async with httpx.AsyncClient(transport=transport, base_url="http://127.0.0.1") as http:
                yield http
    finally:
        store.close()


def wish() -> Wish:
    return Wish(
        prompt=tiny.PROMPT,
        seed=4,
        width=tiny.WIDTH,
        height=tiny.HEIGHT,
        chunks=CHUNKS,
        actions="w-8,wl-12",
        guidance=3.0,
        negative_prompt="grey",
    )


def luma(picture: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Random networks make noise, of whose colours 4:2:0 loses most."""
    return (picture @ np.array([0.2126, 0.7152, 0.0722])).astype(np.uint8)


async def ask(http: httpx.AsyncClient, **changes: Any) -> httpx.Response:
    start = io.BytesIO()
    Image.fromarray(tiny.picture()).save(start, "PNG")
    fields = {"prompt": tiny.PROMPT, "seed": 4, "chunks": CHUNKS, "actions": "w-8,wl-12"}
    fields |= {"guidance": 3, "negative_prompt": "grey"} | changes
    files = {"input_reference": ("start.png", start.getvalue())}
    return await http.post("/v1/videos", data=fields, files=files)


async def until(http: httpx.AsyncClient, id: str, percent: int) -> dict[str, Any]:
    async with asyncio.timeout(LIMIT_S):
        while (shown := (await http.get(f"/v1/videos/{id}")).json())["progress"] < percent:
            assert shown["status"] in ("queued", "in_progress"), shown
            await asyncio.sleep(0.01)
    return shown


async def test_a_film_of_a_base_model_is_the_engines_also_when_the_server_ends_under_it(
    worker: WorkerHandle, tmp_path: Path
) -> None:
    async with serving(tmp_path, worker) as http:
        asked = (await ask(http)).json()
        shown = await until(http, asked["id"], 40)
        assert (shown["status"], shown["total_chunks"]) == ("in_progress", CHUNKS)
    async with serving(tmp_path, worker) as http:
        shown = await until(http, asked["id"], 100)
        film = (await http.get(f"/v1/videos/{asked['id']}/content")).content
    frames = 4 * (film_frames(CHUNK, CHUNKS, overlap=1) - 1) + 1
    assert (shown["status"], shown["frames"]) == ("completed", frames)
    assert not (tmp_path / asked["id"] / "work").exists()
    world = worlds.base()
    with open_film(world, request_of(wish(), chunk=CHUNK, overlap=1), tiny.picture()) as job:
        expected = worlds.whole(job)
    assert len(expected) == frames
    quality = [psnr(luma(decode_picture(film, i)), luma(one)) for i, one in enumerate(expected)]
    assert min(quality) > 25, quality
    shown_frames = [luma(decode_picture(film, i)) for i in range(frames)]
    for i, one in enumerate(shown_frames):  # each is nearest to its own
        assert max(range(frames), key=lambda j: psnr(one, luma(expected[j]))) == i
    assert worker.counts().rings == 0


async def test_what_a_base_model_takes_and_what_it_does_not(
    worker: WorkerHandle, tmp_path: Path
) -> None:
    async with serving(tmp_path, worker) as http:
        for changes in ({"guidance": 0.5}, {"guidance": 1e9}, {"solver": "euler"}, {"steps": 0}):
            response = await ask(http, **changes)
            assert response.status_code == 400, changes
        assert (await http.get("/v1/videos")).json()["data"] == []
        assert (await http.get("/readyz")).status_code == 200  # nothing to warm up
